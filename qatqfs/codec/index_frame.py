"""The index at the end of a container that this project writes, in a zstd skippable frame.

QATC itself has no index, and no place for a length that is not a multiple of the element width. A zstd decoder skips
this frame. So the frame may follow the zstd data of the last chunk (strategies 7 to 10), and any other QATC decoder
restores the same bytes. Everything in the frame is little-endian, like the frame header that zstd defines:

    off     size  field
    0       4     magic of the skippable frame, 0x184D2A5B
    4       4     bytes that follow
    8       8     signature "QATQFSi1"; the last byte is the version of this layout
    16      8     true length in bytes
    24      8     state of the container's FNV-1a before the length field of the last chunk
    32      4     values in each chunk but the last
    36      4     n, the number of chunks
    40      3, 1  dtype as in the body prefix (format section 3), zero
    44      4 n   payload length of each chunk; the last one includes this frame
    44+4n   4     bytes of the whole frame, 60 + 4 n
    48+4n   4     CRC-32 (zlib) of all bytes before it
    52+4n   8     footer magic "QATQFSix"

The footer has a fixed size, so a reader finds the frame in one read from the end of the file.

An index is a shortcut, never an authority. :func:`read_index` returns it only if it agrees with the file around it,
and each chunk's own header is compared with it when the chunk is read. One condition cannot be checked here: the pad
bytes after a length that is not a multiple of the width must be zero. That is checked when the last chunk is decoded.
A valid index with a pad that is not zero means that the last chunk is damaged.
"""

import array
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    LENGTH_FIELD_SIZE,
    MAX_PAYLOAD_BYTES,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidContainer, InvalidResidualStream
from qatqfs.codec.fileaccess import TAIL_SIZE, ReadAt, read_exactly
from qatqfs.codec.payload import EXACT_HEADER_SIZE, MAX_VALUES, PayloadHeader
from qatqfs.codec.strategies import STRATEGIES
from qatqfs.codec.zstdframes import walk_frames

SKIPPABLE_MAGIC = 0x184D2A5B
SIGNATURE = b"QATQFSi1"
FOOTER_MAGIC = b"QATQFSix"

_HEAD = struct.Struct("<II8sQQII3sx")
_SKIPPABLE_HEAD = struct.Struct("<II")
_FOOTER = struct.Struct("<II8s")
_LENGTH_BYTES = 4
_CRC_AND_MAGIC_BYTES = 12
FIXED_SIZE = _HEAD.size + _FOOTER.size


@dataclass(frozen=True, slots=True)
class IndexFrame:
    """Where each chunk of a container is, and the true length of the content.

    Attributes:
        true_length: bytes of content, up to width - 1 fewer than the bytes of the values.
        values_per_chunk: values in each chunk but the last, which has at least 1 and at most this many.
        payload_lengths: bytes of each chunk's payload (u32); the last one includes this frame.
        state_before_last: state of the container's checksum before the length field of the last chunk.
        dtype: of all values.
    """

    true_length: int
    values_per_chunk: int
    payload_lengths: Sequence[int]
    state_before_last: int
    dtype: DType

    @staticmethod
    def size(chunk_count: int) -> int:
        """Return the size in bytes of the frame for a number of chunks."""
        return FIXED_SIZE + _LENGTH_BYTES * chunk_count

    def pack(self) -> bytes:
        """Return the frame."""
        count = len(self.payload_lengths)
        size = self.size(count)
        head = _HEAD.pack(
            SKIPPABLE_MAGIC,
            size - 8,
            SIGNATURE,
            self.true_length,
            self.state_before_last,
            self.values_per_chunk,
            count,
            self.dtype.wire,
        )
        lengths = np.asarray(self.payload_lengths, "<u4").tobytes()
        checked = head + lengths + struct.pack("<I", size)
        return checked + struct.pack("<I8s", zlib.crc32(checked), FOOTER_MAGIC)

    @classmethod
    def parse(cls, buf: Buffer) -> "IndexFrame":
        """Read a frame that fills ``buf``.

        Raises:
            InvalidContainer: unless it is exactly what :meth:`pack` writes.
        """
        view = as_bytes(buf)
        if len(view) < FIXED_SIZE + _LENGTH_BYTES:
            raise InvalidContainer("the index frame is cut off")
        magic, rest, signature, true_length, state, per_chunk, count, wire = _HEAD.unpack_from(view)
        size, crc, footer_magic = _FOOTER.unpack_from(view, len(view) - _FOOTER.size)
        if magic != SKIPPABLE_MAGIC or signature != SIGNATURE or footer_magic != FOOTER_MAGIC:
            raise InvalidContainer("the index frame has no known signature")
        if size != len(view) or rest != size - 8 or size != cls.size(count) or view[43]:
            raise InvalidContainer("the index frame has inconsistent sizes")
        if crc != zlib.crc32(view[:-_CRC_AND_MAGIC_BYTES]):
            raise InvalidContainer("the index frame has a wrong CRC")
        try:
            dtype = DType.from_wire(wire)
        except ValueError as err:
            raise InvalidContainer(f"the index frame names no dtype: {err}") from None
        lengths = array.array("I", view[_HEAD.size : -_FOOTER.size].tobytes())
        return cls(true_length, per_chunk, lengths, state, dtype)

    def check(self, header: ContainerHeader, size: int) -> None:
        """Compare the index with the container around it.

        Args:
            header: of the container.
            size: of the file, in bytes.

        Raises:
            InvalidContainer: if they disagree.
        """
        count = len(self.payload_lengths)
        total, per_chunk, width = header.total_values, self.values_per_chunk, self.dtype.width
        if count != header.chunk_count:
            raise InvalidContainer("the index has another number of chunks than the header")
        if not (0 < per_chunk <= MAX_VALUES and (count - 1) * per_chunk < total <= count * per_chunk):
            raise InvalidContainer("the index has another number of values than the header")
        if not (total - 1) * width < self.true_length <= total * width:
            raise InvalidContainer("the index has a length that its values do not have")
        lengths = np.asarray(self.payload_lengths, np.uint32)
        if int(lengths.min()) < EXACT_HEADER_SIZE or int(lengths.max()) > MAX_PAYLOAD_BYTES:
            raise InvalidContainer("the index has a chunk length that is not legal")
        if lengths[-1] < EXACT_HEADER_SIZE + self.size(count):
            raise InvalidContainer("the index does not fit into the last chunk")
        if int(lengths.sum(dtype=np.uint64)) + LENGTH_FIELD_SIZE * count != size - CONTAINER_HEADER_SIZE:
            raise InvalidContainer("the index has chunk lengths that do not add up to the file")


def read_index(read_at: ReadAt, size: int, head: memoryview, header: ContainerHeader) -> IndexFrame | None:
    """Return the index of a container, ``None`` unless it has one that agrees with the rest.

    Args:
        read_at: reads the container. It is called once, or twice for an index of more than 64 KiB.
        size: of the container, in bytes.
        head: its first bytes. If these are the whole container, nothing is read.
        header: of the container.

    Raises:
        InvalidContainer: if the file is shorter than ``size``.
        OSError: what ``read_at`` raised.
    """
    if len(head) == size:
        tail = head
    else:
        tail_size = min(size, TAIL_SIZE)
        tail = read_exactly(read_at, size - tail_size, tail_size)
    claimed, _, magic = _FOOTER.unpack_from(tail, len(tail) - _FOOTER.size)
    if magic != FOOTER_MAGIC or claimed != IndexFrame.size(header.chunk_count) or claimed > size:
        return None
    if claimed > len(tail):
        tail = read_exactly(read_at, size - claimed, claimed)
    try:
        index = IndexFrame.parse(tail[len(tail) - claimed :])
        index.check(header, size)
    except InvalidContainer:
        return None
    return index


def trailing_frame(payload: memoryview, header: PayloadHeader, chunk_count: int) -> int | None:
    """Return where in a payload a skippable frame starts that ends the payload and has a mark of an index frame.

    The frame may be damaged: one with a wrong CRC or magic counts too. A loss of power may have left only zeros after
    the header; such a frame counts as well, because magic and size together are a mark. Returns ``None`` if there is no
    such frame, or if the payload does not hold valid zstd frames. It cannot be decoded then either.

    Args:
        payload: the last one of a container.
        header: of the payload.
        chunk_count: number of chunks in the container.
    """
    offset = STRATEGIES[header.strategy].zstd_offset
    if offset is None:
        return None
    start = EXACT_HEADER_SIZE + offset
    try:
        frames = walk_frames(payload[start:])
    except InvalidResidualStream:
        return None
    if not frames.last_is_skippable:
        return None
    start += frames.last_start
    has_our_header = payload[start : start + 8] == _SKIPPABLE_HEAD.pack(
        SKIPPABLE_MAGIC, IndexFrame.size(chunk_count) - _SKIPPABLE_HEAD.size
    )
    has_signature = payload[start + 8 : start + 16] == SIGNATURE or payload[-len(FOOTER_MAGIC) :] == FOOTER_MAGIC
    return start if has_our_header or has_signature else None
