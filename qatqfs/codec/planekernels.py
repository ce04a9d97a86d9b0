"""The typed front of the kernels that examine and encode byte planes (``native/plane_stats.h``, ``plane_encode.h``).

These functions allocate working memory, name the arguments and give results a type. They decide nothing about how a
plane is coded: :mod:`~qatqfs.codec.planecoder` does. :mod:`~qatqfs.codec.planes` is the front of the kernels that
split, merge and decode planes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes, scratch

MAX_LAG = 4096
"""The widest row, in elements, that :func:`equal_at_lags` looks for."""
_ROOM_BYTES = 384 * 1024
"""Working memory of the kernel, in addition to three bytes for each byte of the plane. Most of it is for two blocks of
the largest size, whose codes may take 11 bits for each byte while they are written."""
_WINDOW_BYTES = 2048
"""How much of a plane is compared with the bytes a lag before. This gives the share to within a few percent."""
_WINDOWS = 4
"""How many windows to divide that into when only one lag is measured."""


class CodedPlane(NamedTuple):
    """Statistics of a byte plane, and the frames that encode it.

    Attributes:
        singles: a zstd frame that codes single bytes, in blocks that end where the plane changes. ``None`` for
            noise, which would get no smaller, and when it was not asked for.
        matches: a frame that also has long matches; ``None`` when it was not asked for.
        equal: share of bytes that equal the byte before; 0 for noise.
        chance: what that share would be in random order; 0 for noise.
        repeats: share of strings of 9 bytes, sampled by content, that occurred before.
        ends: offsets where the blocks end, the last one at the end of the plane; empty for noise.
    """

    singles: bytes | None
    matches: bytes | None
    equal: float
    chance: float
    repeats: float
    ends: list[int]

    @property
    def noise(self) -> bool:
        """Whether coding single bytes gains nothing."""
        return not self.ends


class Encoded(NamedTuple):
    """A chunk encoded in one call.

    Attributes:
        data: prefix and frames.
        verified: whether the checksum was proved, and the frames were decoded and compared with the elements.
        hashed: whether the checksum was proved, by hashing a piece of the elements with the plain loop too.
    """

    data: bytes
    verified: bool
    hashed: bool


def code_plane(
    plane: Bytes, *, singles_below: float, matches_from: float, matches_in_noise_from: float, exact: bool = False
) -> CodedPlane:
    """Return the statistics of a plane, and those frames that its share of repeated strings asks for.

    Args:
        plane: 1 to 2**32 - 1 bytes.
        singles_below: make a frame of single bytes for shares below this.
        matches_from: make a frame with matches for shares from this on, unless the plane is noise.
        matches_in_noise_from: the same if the plane is noise.
        exact: count every byte of a long plane, not a sample. This saves some hundredths of a percent.
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
    """Encode chunks in one call without the GIL: for each, a prefix and a zstd frame for each byte plane.

    A plane is stored if no other way is smaller.

    Args:
        raws: equally long chunks of little-endian elements, n * width bytes, with at least one element.
        width: bytes of an element, 2 or 4.
        prefix: written before the frames.
        checksum_at: offset in the prefix where the checksum of the values (format section 5) goes, 8 bytes.
        by_repeats: planes (bit i for plane i) whose share of repeated strings decides: matches from the limit on,
            single bytes below it.
        by_matches: planes that are coded with matches.
        repeats_limit: this limit. Noise is coded with matches from it on, too.
        verified: decode the frames again, compare them with the elements, and prove the checksum.

    Returns:
        The encoded chunks. The kernel stops before the first chunk that gets no smaller, or that has another plane
        which is neither constant nor noise.
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
    """Return, for each lag from 0 to at most :data:`MAX_LAG`, how many bytes equal the byte a lag before.

    The same window in the middle of the plane is compared for all lags. Lags beyond half of the plane are left out.

    Args:
        plane: bytes; they need not be contiguous.
    """
    lags = min(MAX_LAG, len(plane) // 2)
    window = min(_WINDOW_BYTES, len(plane) - lags)
    start = (len(plane) - lags - window) // 2
    looked_at = np.ascontiguousarray(plane[start : start + lags + window])
    return np.frombuffer(_native.equal_at_lags(looked_at.data, lags), np.uint32)


def share_equal_at_lag(plane: Bytes, lag: int) -> float:
    """Return the share of bytes that equal the byte a lag before, from 0 to 1.

    It is measured in a few windows from all over the plane. A single one may lie within one wide row.

    Args:
        plane: bytes; they need not be contiguous.
        lag: from 1 to less than the length of the plane.
    """
    step = (len(plane) - lag) // _WINDOWS
    if step <= _WINDOW_BYTES // _WINDOWS:
        return float(np.mean(plane[lag:] == plane[:-lag]))
    later, earlier = (part[: _WINDOWS * step].reshape(_WINDOWS, step) for part in (plane[lag:], plane[:-lag]))
    size = _WINDOW_BYTES // _WINDOWS
    return np.count_nonzero(later[:, :size] == earlier[:, :size]) / (_WINDOWS * size)
