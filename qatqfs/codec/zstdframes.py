"""The frames of zstd data, found by their headers alone (RFC 8878), without decompressing anything.

A strategy's zstd data is what libzstd's one-shot decoder accepts: frames one after another, skippable ones
anywhere, nothing behind (format section 4.5). The bindings offer no call that behaves so. Their one-shot
decompression stops after the first frame without a word, and their stream reader takes a skippable frame that
is cut off. So this walk proves that the frames fill the data exactly.
"""

from dataclasses import dataclass

from qatqfs.codec import _native
from qatqfs.codec.buffers import Buffer, Bytes
from qatqfs.codec.errors import InvalidResidualStream

FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_BLOCK_BYTES = 128 * 1024
_RAW, _RLE = 0, 1
_SINGLE_SEGMENT = 0x20


@dataclass(frozen=True, slots=True)
class Frames:
    """What the headers of frames say that fill some data exactly.

    Attributes:
        count: frames, 0 for empty data.
        last_start: offset of the last one.
        last_is_skippable: whether that holds no content at all.
        unsized: frames whose header does not say how much they hold.
        sized_bytes: what the others hold together, by their headers.
        wide: unsized frames whose window is larger than was asked about.
    """

    count: int
    last_start: int
    last_is_skippable: bool
    unsized: int
    sized_bytes: int
    wide: int


def walk_frames(data: Buffer, window_limit: int = 1 << 62) -> Frames:
    """Walk frames by their headers, in constant memory.

    Args:
        data: all of it.
        window_limit: bytes of window from which on an unsized frame counts as wide.

    Raises:
        InvalidResidualStream: for anything cut off or left over, for a dictionary, which the format does not
            know, and for a block that is larger than its frame allows. (libzstd's one-shot decoder takes raw and
            repeated blocks of any size also in frames without a content size; no encoder writes such.)
    """
    try:
        return Frames(*_native.walk_zstd(data, window_limit))
    except ValueError as err:
        raise InvalidResidualStream(str(err)) from None


def frame_at(data: Buffer, start: int) -> tuple[int, int | None]:
    """Return where the frame at an offset of walked data ends, and the bytes it holds, ``None`` if it does not say."""
    return _native.zstd_frame(data, start)


def with_narrow_windows(data: Buffer, window_limit: int) -> bytearray:
    """Return a copy in which no unsized frame has a window much larger than the limit, in bytes."""
    copy = bytearray(data)
    _native.narrow_zstd(copy, window_limit)
    return copy


def _header(size: int) -> bytes:
    """Return a frame header for less than 2**32 bytes of content in a single segment."""
    if size < 256:
        header = bytes([_SINGLE_SEGMENT, size])
    elif size < 65536 + 256:
        header = bytes([_SINGLE_SEGMENT | 0x40]) + (size - 256).to_bytes(2, "little")
    else:
        header = bytes([_SINGLE_SEGMENT | 0x80]) + size.to_bytes(4, "little")
    return FRAME_MAGIC + header


def stored_frame(content: Bytes) -> list[Buffer]:
    """Return the parts of a zstd frame of bytes as they are: 3 bytes more for each 128 KiB, and at most 9.

    Args:
        content: at least 1 and less than 2**32 bytes; the parts refer to them.
    """
    parts: list[Buffer] = [_header(len(content))]
    for start in range(0, len(content), _MAX_BLOCK_BYTES):
        block = content[start : start + _MAX_BLOCK_BYTES]
        is_last = start + len(block) == len(content)
        parts += ((len(block) << 3 | _RAW << 1 | is_last).to_bytes(3, "little"), block.data)
    return parts


def constant_frame(value: int, size: int) -> bytes:
    """Return a zstd frame of one byte repeated, written by hand: 4 bytes for each 128 KiB, 9 at most for the header.

    Args:
        value: the byte, 0 to 255.
        size: bytes of content, at least 1 and less than 2**32.
    """
    blocks = []
    for start in range(0, size, _MAX_BLOCK_BYTES):
        length = min(_MAX_BLOCK_BYTES, size - start)
        is_last = start + length == size
        blocks.append((length << 3 | _RLE << 1 | is_last).to_bytes(3, "little") + bytes([value]))
    return _header(size) + b"".join(blocks)
