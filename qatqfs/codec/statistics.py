"""What the encoder looks at before it spends time on compressing: cheap statistics of byte planes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes

MAX_LAG = 4096
"""Widest row, in elements, that :func:`equal_at_lags` looks for."""
_WINDOW_BYTES = 2048
"""How much of a plane is compared with what lies a lag before it: enough for a share to within some percent."""


@dataclass(frozen=True, slots=True)
class PlaneStatistics:
    """Statistics of one byte plane.

    Attributes:
        size: bytes of the plane.
        frame: a zstd frame that codes its single bytes, with blocks that end where the plane changes; empty for
            noise, which that would not make smaller.
        equal: share of bytes that equal the one before; 0 for noise.
        chance: what that share would be if the order of the bytes did not matter; 0 for noise.
        repeats: share of strings of 9 bytes, sampled by content, that occurred before.
        ends: where the blocks end, the last one with the plane; none for noise.
    """

    size: int
    frame: bytes
    equal: float
    chance: float
    repeats: float
    ends: list[int]

    @property
    def noise(self) -> bool:
        """Whether coding single bytes has nothing to gain."""
        return not self.ends


def plane_statistics(plane: Bytes) -> PlaneStatistics:
    """Return the statistics of a plane of 1 to 2**32 - 1 bytes: a thousand MB/s, five times that on noise."""
    return PlaneStatistics(len(plane), *_native.code_plane(plane.data))


def equal_at_lags(plane: Bytes) -> npt.NDArray[np.uint32]:
    """Return, for each lag from 0 to at most :data:`MAX_LAG`, how many bytes equal the one a lag before.

    A window in the middle of the plane is looked at, the same for all lags. Lags that leave fewer than half of
    the plane as a window are left out.
    """
    lags = min(MAX_LAG, len(plane) // 2)
    window = min(_WINDOW_BYTES, len(plane) - lags)
    start = (len(plane) - lags - window) // 2
    return np.frombuffer(_native.equal_at_lags(plane[start : start + lags + window].data, lags), np.uint32)
