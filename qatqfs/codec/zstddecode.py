"""Decompress zstd data into exactly the buffer that it must fill (format section 4.5).

What libzstd's one-shot decoder accepts is accepted, and everything else refused: see :mod:`zstdframes`, also for the
one exception. Content goes straight into the caller's buffer. Nothing is allocated from a size that a frame
claims: sizes are compared with the buffer first, and a window larger than the buffer is cut down to it, which changes
nothing for content that fits.
"""

import threading

import zstandard

from qatqfs.codec.buffers import Buffer, Bytes
from qatqfs.codec.errors import InvalidResidualStream
from qatqfs.codec.zstdframes import Frames, frame_at, walk_frames, with_narrow_windows

_MIN_WINDOW_BYTES = 128 * 1024  # a smaller one would also lower the largest block (RFC 8878 section 3.1.1.2.4)


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)


_contexts = _Contexts()


def check_size(frames: Frames, size: int) -> None:
    """Refuse frames that cannot hold exactly ``size`` bytes, before memory is taken for them.

    Raises:
        InvalidResidualStream: when the sizes in the frame headers say so.
    """
    known = frames.sized_bytes
    if known > size or (known < size and not frames.unsized):
        raise InvalidResidualStream(f"zstd frames hold {known} bytes where {size} are due")


def decompress_exactly(data: memoryview, out: Bytes) -> None:
    """Fill ``out`` with the content of all frames in ``data``.

    Raises:
        InvalidResidualStream: when the data is damaged, or holds more or fewer bytes than ``out``.
    """
    window_limit = max(len(out), _MIN_WINDOW_BYTES)
    frames = walk_frames(data, window_limit)
    check_size(frames, len(out))
    if not frames.count:
        return
    source = with_narrow_windows(data, window_limit) if frames.wide else data
    try:
        if frames.unsized and frames.sized_bytes:
            made, more = _one_by_one(source, out)
        else:
            made, more = _at_once(source, out.data)
    except zstandard.ZstdError as err:
        raise InvalidResidualStream(f"zstd data is damaged ({err})") from err
    if made != len(out) or more:
        raise InvalidResidualStream(f"zstd data holds {'more' if more else made} bytes where {len(out)} are due")


def _at_once(source: Buffer, room: memoryview) -> tuple[int, bool]:
    """Decompress frames of which all say their size, or none; returns the bytes made and whether there are more.

    A frame that says its size is decoded in one pass into the room that is left, whatever its window.
    """
    reader = _contexts.decompressor.stream_reader(source, read_across_frames=True)
    made = int(reader.readinto(room)) if len(room) else 0
    return made, bool(reader.read(1))  # also drives the decoder through empty frames, and to the last checksum


def _one_by_one(source: Buffer, out: Bytes) -> tuple[int, bool]:
    """The same for any frames. A size that does not fit is noticed by libzstd only if there is room for it."""
    view, made, start = memoryview(source), 0, 0
    while start < len(view):
        stop, size = frame_at(source, start)
        room = out[made:].data
        if size is not None and size > len(room):
            return made, True
        count, more = _at_once(view[start:stop], room if size is None else room[:size])
        made += count
        if more or size not in (None, count):
            return made, more
        start = stop
    return made, False
