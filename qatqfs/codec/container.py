"""The 32-byte header of a QATC v2 container (format section 6)."""

import struct
from dataclasses import dataclass

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.errors import (
    InvalidContainer,
    InvalidMagic,
    PayloadTooShort,
    UnsupportedMode,
    UnsupportedVersion,
)
from qatqfs.codec.payload import EXACT_HEADER_SIZE, EXACT_MODE, MAX_VALUES

CONTAINER_MAGIC = b"QATC"
CONTAINER_HEADER_SIZE = 32
LENGTH_FIELD_SIZE = 4
"""Bytes of the length before each payload."""
MIN_CHUNK_SIZE = LENGTH_FIELD_SIZE + EXACT_HEADER_SIZE
MAX_PAYLOAD_BYTES = EXACT_HEADER_SIZE + 4 * MAX_VALUES
"""Bytes of the longest payload that a reference decoder accepts: 268,435,492."""
DEFAULT_CHUNK_BYTES = 256 * 1024
"""Raw bytes of a chunk by default."""
MAX_CHUNKS = 1 << 20
"""Most chunks that a reference decoder accepts by default."""
MAX_TOTAL_VALUES = 1 << 32
"""Most values in all chunks together that a reference decoder accepts by default."""

_HEADER = struct.Struct(">4sBBHQIIQ")
_VERSION = 2


@dataclass(frozen=True, slots=True)
class ContainerHeader:
    """The first 32 bytes of a container.

    Attributes:
        total_values: sum of the chunks' value counts.
        chunk_count: number of chunks, at least 1.
        checksum: FNV-1a 64 over everything after the header.
    """

    total_values: int
    chunk_count: int
    checksum: int

    def pack(self) -> bytes:
        """Return the 32 bytes."""
        return _HEADER.pack(
            CONTAINER_MAGIC, _VERSION, EXACT_MODE, 0, self.total_values, self.chunk_count, 0, self.checksum
        )

    @classmethod
    def parse(cls, buf: Buffer) -> "ContainerHeader":
        """Read the header at the start of ``buf``.

        Raises:
            PayloadTooShort, InvalidMagic, UnsupportedVersion, UnsupportedMode, InvalidContainer: in the order
                of format section 7.3.
        """
        view = as_bytes(buf)
        if len(view) < CONTAINER_HEADER_SIZE:
            raise PayloadTooShort(len(view), CONTAINER_HEADER_SIZE)
        magic, version, mode, reserved, total, count, reserved_too, checksum = _HEADER.unpack_from(view)
        if magic != CONTAINER_MAGIC:
            raise InvalidMagic("container magic is not QATC")
        if version != _VERSION:
            raise UnsupportedVersion(version)
        if mode != EXACT_MODE:
            raise UnsupportedMode(mode)
        if reserved or reserved_too:
            raise InvalidContainer("reserved header bytes are set")
        if count == 0:
            raise InvalidContainer("it has no chunks")
        return cls(total, count, checksum)
