"""Statistics of byte planes, and the two quick ways of coding one, which come with them from one kernel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes, scratch

MAX_LAG = 4096
"""Widest row, in elements, that :func:`equal_at_lags` looks for."""
_ROOM_BYTES = 384 * 1024
"""Working memory of the kernel, beside three bytes for each of the plane: mostly for two blocks of the largest size,
whose codes may take 11 bits for each byte until that is known."""
_WINDOW_BYTES = 2048
"""How much of a plane is compared with what lies a lag before it: enough for a share to within some percent."""
_WINDOWS = 4
"""Into how many windows that is divided where a single lag is looked at."""


class CodedPlane(NamedTuple):
    """What the kernel found out about a byte plane, and made of it.

    Attributes:
        singles: a zstd frame that codes single bytes, in blocks that end where the plane changes; ``None`` for
            noise, which that would not make smaller, and when it was not asked for.
        matches: a frame that has long matches too; ``None`` when it was not asked for.
        equal: share of bytes that equal the one before; 0 for noise.
        chance: what that share would be if the order of the bytes did not matter; 0 for noise.
        repeats: share of strings of 9 bytes, sampled by content, that occurred before.
        ends: where the blocks end, the last one with the plane; none for noise.
    """

    singles: bytes | None
    matches: bytes | None
    equal: float
    chance: float
    repeats: float
    ends: list[int]

    @property
    def noise(self) -> bool:
        """Whether coding single bytes has nothing to gain."""
        return not self.ends


class Encoded(NamedTuple):
    """A chunk encoded in one call.

    Attributes:
        data: prefix and frames.
        verified: whether the frames were decoded again and compared with the elements, and the checksum proved.
        hashed: whether the checksum was proved: for a piece of the elements, by the plain loop.
    """

    data: bytes
    verified: bool
    hashed: bool


def code_plane(
    plane: Bytes, *, singles_below: float, matches_from: float, matches_in_noise_from: float, exact: bool = False
) -> CodedPlane:
    """Return the statistics of a plane, and the frames that its share of repeated strings asks for.

    Args:
        plane: 1 to 2**32 - 1 bytes.
        singles_below: shares for which single bytes are coded.
        matches_from: shares for which matches are, on planes that are no noise.
        matches_in_noise_from: the same on noise.
        exact: count every byte also of a long plane, not a sample: smaller by some hundredths of a percent.
    """
    room = scratch("frames", 3 * len(plane) + _ROOM_BYTES)
    return CodedPlane(
        *_native.code_plane(plane.data, room.data, singles_below, matches_from, matches_in_noise_from, exact)
    )


def encode_planes_at_once(
    raws: Sequence[Bytes],
    width: int,
    prefix: bytes,
    checksum_at: int,
    *,
    by_repeats: int,
    by_matches: int,
    repeats_limit: float,
    verified: bool,
) -> list[Encoded]:
    """Return for each chunk a prefix and a zstd frame for each byte plane, all in one call without the GIL.

    A plane is stored where no other way is smaller.

    Args:
        raws: equally long chunks of little-endian elements, n * width bytes, at least one.
        width: bytes of an element, 2 or 4.
        prefix: what the frames come behind.
        checksum_at: offset in it of the checksum of the values (format section 5), 8 bytes that are filled in.
        by_repeats: planes (bit i for plane i) that are best coded by single bytes below the limit of repeats, and with
            matches from there on.
        by_matches: planes that are best coded with matches.
        repeats_limit: share of repeated strings, from which on noise is coded with matches too.
        verified: decode the frames again, and compare with the elements and their checksum.

    Returns:
        Prefix and frames of each, up to the first chunk of which another plane is neither constant nor noise, or which
        gets no smaller. No chunk after that is looked at.
    """
    size = len(raws[0])
    room = scratch("at once", size + 3 * (size // width) + _ROOM_BYTES)
    # The checksum of wide values is that of big-endian ones.
    found = _native.encode_planes(
        [raw.data for raw in raws],
        prefix,
        room.data,
        width,
        checksum_at,
        len(prefix) + size - 1,
        width == 4,
        by_repeats,
        by_matches,
        repeats_limit,
        verified,
    )
    return [Encoded(*each) for each in found]


def equal_at_lags(plane: Bytes) -> npt.NDArray[np.uint32]:
    """Return, for each lag from 0 to at most :data:`MAX_LAG`, how many bytes equal the one a lag before.

    A window in the middle of the plane is looked at, the same for all lags. Lags that leave fewer than half of
    the plane as a window are left out.

    Args:
        plane: bytes, which need not be contiguous.
    """
    lags = min(MAX_LAG, len(plane) // 2)
    window = min(_WINDOW_BYTES, len(plane) - lags)
    start = (len(plane) - lags - window) // 2
    looked_at = np.ascontiguousarray(plane[start : start + lags + window])
    return np.frombuffer(_native.equal_at_lags(looked_at.data, lags), np.uint32)


def share_equal_at_lag(plane: Bytes, lag: int) -> float:
    """Return the share of bytes that equal the one a lag before, from 0 to 1.

    A few windows from all over the plane are looked at: one alone may lie within a row as wide as itself.

    Args:
        plane: bytes, which need not be contiguous.
        lag: from 1 to less than the length of the plane.
    """
    step = (len(plane) - lag) // _WINDOWS
    if step <= _WINDOW_BYTES // _WINDOWS:
        return float(np.mean(plane[lag:] == plane[:-lag]))
    later, earlier = (part[: _WINDOWS * step].reshape(_WINDOWS, step) for part in (plane[lag:], plane[:-lag]))
    size = _WINDOW_BYTES // _WINDOWS
    return np.count_nonzero(later[:, :size] == earlier[:, :size]) / (_WINDOWS * size)
