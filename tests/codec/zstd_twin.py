"""Where each frame of zstd data lies and what it says of itself: the plain twin of the walk that asks libzstd."""

from dataclasses import dataclass

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE_MAGIC_TAIL = b"\x2a\x4d\x18"
"""Bytes 1..3 of a skippable frame; byte 0 is 0x50 to 0x5f."""
SKIPPABLE_HEADER_SIZE = 8

_MAX_WINDOW_LOG = 31  # what libzstd takes on 64-bit machines
_DICTIONARY_ID_SIZES = (0, 1, 2, 4)
_CONTENT_SIZE_SIZES = (0, 2, 4, 8)
_RAW, _RLE, _COMPRESSED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of zstd data.

    Attributes:
        start: offset of its first byte.
        stop: offset behind its last byte.
        content_size: decompressed bytes; ``None`` when the header does not say, 0 for a skippable frame.
        skippable: whether it holds no content at all.
    """

    start: int
    stop: int
    content_size: int | None
    skippable: bool = False


def walk_frames(data: bytes) -> list[Frame]:
    """Return the frames that fill ``data`` exactly; none for empty data.

    Raises:
        ValueError: for anything cut off or left over. The content of blocks is not looked at.
    """
    frames = []
    position = 0
    while position < len(data):
        frame = _frame_at(data, position)
        frames.append(frame)
        position = frame.stop
    return frames


def _frame_at(data: bytes, start: int) -> Frame:
    magic = data[start : start + 4]
    if magic == FRAME_MAGIC:
        return _zstd_frame_at(data, start)
    if magic[1:] == SKIPPABLE_MAGIC_TAIL and magic[0] & 0xF0 == 0x50:
        if len(data) - start < SKIPPABLE_HEADER_SIZE:
            raise ValueError("a skippable frame is cut off")
        stop = start + SKIPPABLE_HEADER_SIZE + int.from_bytes(data[start + 4 : start + 8], "little")
        if stop > len(data):
            raise ValueError("a skippable frame is cut off")
        return Frame(start, stop, 0, skippable=True)
    raise ValueError("zstd data has bytes that are no frame")


def _zstd_frame_at(data: bytes, start: int) -> Frame:
    position = start + 4
    if position >= len(data):
        raise ValueError("a zstd frame header is cut off")
    descriptor = data[position]
    position += 1
    single_segment = descriptor >> 5 & 1
    if descriptor & 0x08:
        raise ValueError("a zstd frame header has its reserved bit set")
    if not single_segment:
        if position >= len(data):
            raise ValueError("a zstd frame header is cut off")
        if 10 + (data[position] >> 3) > _MAX_WINDOW_LOG:
            raise ValueError("a zstd frame needs too large a window")
        position += 1
    id_size = _DICTIONARY_ID_SIZES[descriptor & 3]
    size_size = _CONTENT_SIZE_SIZES[descriptor >> 6]
    if single_segment and size_size == 0:
        size_size = 1
    if position + id_size + size_size > len(data):
        raise ValueError("a zstd frame header is cut off")
    position += id_size
    content_size = None
    if size_size:
        content_size = int.from_bytes(data[position : position + size_size], "little")
        content_size += 256 if size_size == 2 else 0
        position += size_size
    stop = _end_of_blocks(data, position)
    stop += 4 if descriptor & 0x04 else 0  # content checksum
    if stop > len(data):
        raise ValueError("a zstd frame is cut off")
    return Frame(start, stop, content_size)


def _end_of_blocks(data: bytes, position: int) -> int:
    while True:
        if position + 3 > len(data):
            raise ValueError("a zstd block is cut off")
        header = int.from_bytes(data[position : position + 3], "little")
        kind, size = header >> 1 & 3, header >> 3
        position += 3
        if kind not in (_RAW, _RLE, _COMPRESSED):
            raise ValueError("a zstd block is of the reserved type")
        position += 1 if kind == _RLE else size
        if position > len(data):
            raise ValueError("a zstd block is cut off")
        if header & 1:
            return position
