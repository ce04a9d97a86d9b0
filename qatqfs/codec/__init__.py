"""The codec turns bytes into QATQ payloads and QATC v2 containers, and back, without losing a bit.

It has pure functions over buffers, and objects that read and write through callables of the caller. It uses no paths,
no threads of its own and no FUSE. Any number of threads may call everything at once, except that only one thread at a
time may use a :class:`ContainerWriter`. The entry points:

* :func:`encode_array` and :func:`decode_array` for numpy arrays, :func:`encode_container` and
  :func:`decode_container` for bytes: a container in memory, at once;
* :func:`encode_into` and :func:`decode_into` for memory of the caller, :func:`encoded_size_bound` for its size;
* :class:`Container` to open one, look into it without decoding, and read any range or chunk;
* :class:`ContainerWriter` to write one chunk by chunk in constant memory;
* :func:`encode_payload` and :func:`decode_payload` for one chunk, :func:`decode_any_payload` for a .qatq file;
* :func:`verify_container` to check all of a container.

For bytes that it cannot decode, the codec raises a :class:`QatcError`. Importing it on a big-endian machine raises
ImportError, because there are no kernels for one.
"""

import sys

if sys.byteorder != "little":
    raise ImportError("qatqfs works on little-endian machines only")

from qatqfs.codec.arrays import decode_array, encode_array
from qatqfs.codec.bare import decode_any_payload
from qatqfs.codec.checksum import FNV_OFFSET, fnv1a64, fnv1a64_many
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    CONTAINER_MAGIC,
    DEFAULT_CHUNK_BYTES,
    LENGTH_FIELD_SIZE,
    MAX_CHUNKS,
    MAX_PAYLOAD_BYTES,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import (
    ChecksumMismatch,
    EncodingFault,
    InvalidBody,
    InvalidContainer,
    InvalidHeader,
    InvalidMagic,
    InvalidResidualScale,
    InvalidResidualStream,
    InvalidScale,
    LengthMismatch,
    LimitExceeded,
    MixedDtypes,
    PayloadTooShort,
    QatcError,
    UnsupportedMode,
    UnsupportedVersion,
    ValueCountTooLarge,
    without_frames,
)
from qatqfs.codec.fileaccess import ReadAt
from qatqfs.codec.index_frame import IndexFrame
from qatqfs.codec.into import container_size, decode_into, encode_into, encoded_size_bound
from qatqfs.codec.layout import WalkedLayout
from qatqfs.codec.level import Level
from qatqfs.codec.limits import UNLIMITED, Limits
from qatqfs.codec.payload import (
    EXACT_HEADER_SIZE,
    MAX_VALUES,
    PAYLOAD_HEADER_SIZE,
    PAYLOAD_MAGIC,
    PayloadHeader,
    decode_payload,
    decode_payloads,
    read_payload_header,
)
from qatqfs.codec.payloadencoder import encode_payload, encode_payloads
from qatqfs.codec.reader import HEAD_SIZE, ChunkHeader, Container, claimed_length
from qatqfs.codec.search import Memory
from qatqfs.codec.sinks import BytesSink, FileSink, Sink
from qatqfs.codec.strategies import STRATEGIES, Strategy
from qatqfs.codec.verify import Problem, decode_container, verify_container
from qatqfs.codec.writer import ContainerInfo, ContainerWriter, empty_container, encode_container

__all__ = [
    "CONTAINER_HEADER_SIZE",
    "CONTAINER_MAGIC",
    "DEFAULT_CHUNK_BYTES",
    "EXACT_HEADER_SIZE",
    "FNV_OFFSET",
    "HEAD_SIZE",
    "LENGTH_FIELD_SIZE",
    "MAX_CHUNKS",
    "MAX_PAYLOAD_BYTES",
    "MAX_VALUES",
    "PAYLOAD_HEADER_SIZE",
    "PAYLOAD_MAGIC",
    "STRATEGIES",
    "UNLIMITED",
    "BytesSink",
    "ChecksumMismatch",
    "ChunkHeader",
    "Container",
    "ContainerHeader",
    "ContainerInfo",
    "ContainerWriter",
    "DType",
    "EncodingFault",
    "FileSink",
    "IndexFrame",
    "InvalidBody",
    "InvalidContainer",
    "InvalidHeader",
    "InvalidMagic",
    "InvalidResidualScale",
    "InvalidResidualStream",
    "InvalidScale",
    "LengthMismatch",
    "Level",
    "LimitExceeded",
    "Limits",
    "Memory",
    "MixedDtypes",
    "PayloadHeader",
    "PayloadTooShort",
    "Problem",
    "QatcError",
    "ReadAt",
    "Sink",
    "Strategy",
    "UnsupportedMode",
    "UnsupportedVersion",
    "ValueCountTooLarge",
    "WalkedLayout",
    "claimed_length",
    "container_size",
    "decode_any_payload",
    "decode_array",
    "decode_container",
    "decode_into",
    "decode_payload",
    "decode_payloads",
    "empty_container",
    "encode_array",
    "encode_container",
    "encode_into",
    "encode_payload",
    "encode_payloads",
    "encoded_size_bound",
    "fnv1a64",
    "fnv1a64_many",
    "read_payload_header",
    "verify_container",
    "without_frames",
]
