"""Frames of zstd data (RFC 8878): libzstd reads them; frames without compressed blocks are written here.

A strategy's zstd data is what libzstd's one-shot decoder accepts: consecutive frames, skippable ones anywhere, and
nothing after them (format section 4.5). The extension links libzstd and passes it all frames in one call. The content
goes straight into the caller's buffer. The size that a frame claims never decides how much memory is allocated.
"""

from dataclasses import dataclass

from qatqfs.codec import _native
from qatqfs.codec.buffers import Buffer, Bytes
from qatqfs.codec.errors import InvalidResidualStream

_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_BLOCK_BYTES = 128 * 1024
_RAW, _RLE = 0, 1
_SINGLE_SEGMENT = 0x20


@dataclass(frozen=True, slots=True)
class Frames:
    """What the headers say about frames that fill some data exactly.

    Attributes:
        last_start: offset of the last frame.
        last_is_skippable: whether the last frame is skippable; false for empty data.
        unsized: whether some frame does not say how much it holds.
        sized_bytes: how much all other frames hold, by their headers.
    """

    last_start: int
    last_is_skippable: bool
    unsized: bool
    sized_bytes: int


def walk_frames(data: Buffer) -> Frames:
    """Find frames by their headers and those of their blocks, in constant memory and without decompressing.

    Raises:
        InvalidResidualStream: if anything is cut off or left over. The content of blocks is not examined.
    """
    try:
        return Frames(*_native.walk_zstd(data))
    except ValueError as err:
        raise _damaged(err) from None


def check_size(frames: Frames, size: int) -> None:
    """Refuse frames that cannot hold exactly ``size`` bytes, before memory is allocated for them.

    Raises:
        InvalidResidualStream: if the sizes in the frame headers do not fit.
    """
    known = frames.sized_bytes
    if known > size or (known < size and not frames.unsized):
        raise InvalidResidualStream(f"zstd frames hold {known} bytes where {size} are due")


def decompress_exactly(data: Buffer, out: Bytes) -> None:
    """Fill ``out`` with the content of all frames in ``data``.

    Raises:
        InvalidResidualStream: if the data is damaged, or holds more or fewer bytes than ``out``.
    """
    check_size(walk_frames(data), len(out))
    try:
        _native.decompress_zstd(data, out.data)
    except ValueError as err:
        raise _damaged(err) from None


def _damaged(err: ValueError) -> InvalidResidualStream:
    return InvalidResidualStream(f"zstd data is damaged ({str(err).lower()})")


def _header(size: int) -> bytes:
    """Return a frame header for less than 2**32 bytes of content in a single segment."""
    if size < 256:
        header = bytes([_SINGLE_SEGMENT, size])
    elif size < 65536 + 256:
        header = bytes([_SINGLE_SEGMENT | 0x40]) + (size - 256).to_bytes(2, "little")
    else:
        header = bytes([_SINGLE_SEGMENT | 0x80]) + size.to_bytes(4, "little")
    return _MAGIC + header


def stored_frame(content: Bytes) -> list[Buffer]:
    """Return the parts of a zstd frame of stored bytes. It adds 3 bytes for each 128 KiB, and at most 9 for the header.

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
    """Return a zstd frame of one byte repeated. It takes 4 bytes for each 128 KiB, and at most 9 for the header.

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
