"""Decompress zstd data into exactly the buffer that it must fill (format section 4.5).

What libzstd's one-shot decoder accepts is accepted, and everything else refused: see :mod:`zstdframes`.
Content goes straight into the caller's buffer. Nothing is allocated from a size that a frame claims: sizes are
compared with the buffer first, and a window larger than the buffer is cut down to it, which changes nothing
for content that fits.
"""

import threading

import zstandard

from qatqfs.codec.buffers import Bytes
from qatqfs.codec.errors import InvalidResidualStream
from qatqfs.codec.zstdframes import Frame, walk_frames

_MIN_WINDOW_BYTES = 128 * 1024  # a smaller one would also lower the largest block (RFC 8878 section 3.1.1.2.4)


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)


_contexts = _Contexts()


def check_size(frames: list[Frame], size: int) -> None:
    """Refuse frames that cannot hold exactly ``size`` bytes, before memory is taken for them.

    Raises:
        InvalidResidualStream: when the sizes in the frame headers say so.
    """
    known = sum(frame.content_size or 0 for frame in frames)
    if known > size or (known < size and all(frame.content_size is not None for frame in frames)):
        raise InvalidResidualStream(f"zstd frames hold {known} bytes where {size} are due")


def decompress_exactly(data: memoryview, out: Bytes) -> None:
    """Fill ``out`` with the content of all frames in ``data``.

    Raises:
        InvalidResidualStream: when the data is damaged, or holds more or fewer bytes than ``out``.
    """
    frames = walk_frames(data)
    check_size(frames, len(out))
    try:
        made = _decompress_frames(data, frames, out)
    except zstandard.ZstdError as err:
        raise InvalidResidualStream(f"zstd data is damaged ({err})") from err
    if made != len(out):
        raise InvalidResidualStream(f"zstd data holds {made} bytes where {len(out)} are due")


def _decompress_frames(data: memoryview, frames: list[Frame], out: Bytes) -> int:
    made = 0
    for frame in frames:
        if frame.skippable:
            continue
        room = out[made:].data
        if frame.content_size is None:
            made += _decompress_unsized(bytearray(data[frame.start : frame.stop]), frame, room)
        else:
            made += _decompress_sized(data[frame.start : frame.stop], room[: frame.content_size])
    return made


def _decompress_sized(frame: memoryview, room: memoryview) -> int:
    # libzstd decodes such a frame in one pass into the room, whatever its window, and checks all of it.
    reader = _contexts.decompressor.stream_reader(frame)
    made = int(reader.readinto(room if len(room) else bytearray(1)))
    if made != len(room):
        raise InvalidResidualStream(f"a zstd frame holds {made} bytes where it says {len(room)}")
    return made


def _decompress_unsized(encoded: bytearray, frame: Frame, room: memoryview) -> int:
    # Decoded piece by piece through a window that libzstd allocates: offset 5 of the frame is its size.
    if frame.window_size > max(len(room), _MIN_WINDOW_BYTES):
        encoded[5] = _window_descriptor(max(len(room), _MIN_WINDOW_BYTES))
    reader = _contexts.decompressor.stream_reader(encoded)
    made = int(reader.readinto(room)) if len(room) else 0
    if reader.read(1):  # also drives the decoder to the frame's end and its checksum
        raise InvalidResidualStream("zstd data holds more than what is due")
    return made


def _window_descriptor(size: int) -> int:
    """Return the header byte for the smallest power of two of at least ``size`` bytes."""
    return ((size - 1).bit_length() - 10) << 3
