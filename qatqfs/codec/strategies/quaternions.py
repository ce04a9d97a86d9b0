"""The f32 arithmetic of the predictor: pseudo-random unit quaternions and their products (format section 4.8).

Everything is IEEE binary32 and rounded after every operation, because numpy does not fuse elementwise calls.
"""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]
Quaternions = tuple[F32, F32, F32, F32]
"""Components r, i, j, k, each an array with one entry for each lane."""

_LANE_STEP = np.uint64(0x9E3779B97F4A7C15)
_STATE_SALT = np.uint64(0xA0761D6478BD642F)
_EPSILON = np.float32(2.0**-23)


def _splitmix64(x: U64) -> U64:
    z = x + _LANE_STEP
    m = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    m = (m ^ (m >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return m ^ (m >> np.uint64(31))


def lane_quaternions(seed: int, lanes: U64) -> Quaternions:
    """Return the quaternion of each lane number for a 64-bit seed."""
    with np.errstate(all="ignore"):
        state = np.uint64(seed) ^ (lanes * _LANE_STEP) ^ _STATE_SALT
        components: list[F32] = []
        square: F32 = np.zeros(len(lanes), np.float32)
        for _ in range(4):
            state = _splitmix64(state)
            unit = (state >> np.uint64(40)).astype(np.float32) / np.float32(16777215)
            component: F32 = unit * np.float32(2) - np.float32(1)
            square = square + component * component
            components.append(component)
        degenerate = ~(square > _EPSILON) | ~np.isfinite(square)
        length: F32 = np.sqrt(square)
        r, i, j, k = (np.divide(component, length, dtype=np.float32) for component in components)
        r[degenerate] = 1
        for part in (i, j, k):
            part[degenerate] = 0
        return r, i, j, k


def hamilton(a: Quaternions, b: Quaternions) -> Quaternions:
    """Return the Hamilton product of each pair. Every line is evaluated from left to right."""
    ar, ai, aj, ak = a
    br, bi, bj, bk = b
    with np.errstate(all="ignore"):
        return (
            ar * br - ai * bi - aj * bj - ak * bk,
            ar * bi + ai * br + aj * bk - ak * bj,
            ar * bj - ai * bk + aj * br + ak * bi,
            ar * bk + ai * bj - aj * bi + ak * br,
        )


def conjugate(q: Quaternions) -> Quaternions:
    """Return each quaternion with its imaginary parts negated."""
    r, i, j, k = q
    return r, -i, -j, -k
