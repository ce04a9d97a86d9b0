"""Strategy 0: f32 values as the XOR with a prediction from 4-bit quantised, rotated values (format section 4.8).

The prediction itself is also what the lossy mode 3 stores.
"""

import struct

import numpy as np

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidResidualScale, InvalidResidualStream, PayloadTooShort
from qatqfs.codec.strategies.base import F32_ONLY, Strategy
from qatqfs.codec.strategies.quaternions import F32, conjugate, hamilton, lane_quaternions

_META = struct.Struct(">QI")  # seed, bits of the residual scale
_WORD_RUN_MAX_TOKEN = 1
_LANES_AT_ONCE = 1 << 14  # bounds the temporaries to a few MiB


def coordinate_count(n: int) -> int:
    """Return n rounded up to whole quaternions."""
    return -(-n // 4) * 4


def read_residual_scale(bits: int) -> float:
    """Return the residual scale with these f32 bits.

    Raises:
        InvalidResidualScale: unless it is finite and at least zero (-0.0 passes).
    """
    value = float(np.array(bits, np.uint32).view(np.float32))
    if not (np.isfinite(value) and value >= 0):
        raise InvalidResidualScale(bits)
    return value


def predict(seed: int, scale: float, residual_scale: float, nibbles: memoryview, signs: memoryview, out: F32) -> None:
    """Write the predicted values.

    Args:
        seed: of the lanes' quaternions.
        scale: what a quantisation step is worth.
        residual_scale: what a sign is worth.
        nibbles: two coordinates a byte, high nibble first.
        signs: eight coordinates a byte, lowest bit first.
        out: n values.
    """
    s, rs = np.float32(scale), np.float32(residual_scale)
    n = len(out)
    for first in range(0, coordinate_count(n) // 4, _LANES_AT_ONCE):
        lanes = np.arange(first, min(first + _LANES_AT_ONCE, coordinate_count(n) // 4), dtype=np.uint64)
        packed = np.frombuffer(nibbles, np.uint8, len(lanes) * 2, first * 2)
        steps = np.empty(len(lanes) * 4, np.float32)
        steps[0::2] = packed >> 4
        steps[1::2] = packed & 15
        plus = np.unpackbits(np.frombuffer(signs, np.uint8, -(-len(lanes) // 2), first // 2), bitorder="little")[
            : len(steps)
        ]
        with np.errstate(all="ignore"):
            rotated = (steps - np.float32(8)) * s + np.where(plus, rs, -rs)
        x = rotated.reshape(-1, 4)
        q = lane_quaternions(seed, lanes)
        back = hamilton(hamilton(conjugate(q), (x[:, 0], x[:, 1], x[:, 2], x[:, 3])), q)
        values = np.stack(back, axis=1).ravel()
        start = first * 4
        out[start : start + len(values)] = values[: n - start]


def check(data: memoryview, size: int) -> None:
    """Refuse data without room for the coordinates.

    Raises:
        PayloadTooShort: when they are cut off.
    """
    coordinates = coordinate_count(size // 4)
    minimum = _META.size + coordinates // 2 + -(-coordinates // 8)
    if len(data) < minimum:
        raise PayloadTooShort(len(data), minimum)


def decode(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Predict, and XOR with the stored words.

    Raises:
        PayloadTooShort: when the coordinates are cut off.
        InvalidResidualScale: when the residual scale is no legal one.
        InvalidResidualStream: when the runs do not give exactly the values.
    """
    check(data, len(out))
    seed, residual_bits = _META.unpack_from(data)
    residual_scale = read_residual_scale(residual_bits)
    coordinates = coordinate_count(len(out) // 4)
    signs_at = _META.size + coordinates // 2
    runs_at = signs_at + -(-coordinates // 8)
    words = scratch("planes", len(out))
    if not _native.decode_runs(data[runs_at:], words.data, 4, _WORD_RUN_MAX_TOKEN):
        raise InvalidResidualStream(f"word runs do not give exactly {len(out) // 4} values")
    predicted = np.empty(len(out) // 4, np.float32)
    predict(seed, scale, residual_scale, data[_META.size : signs_at], data[signs_at:runs_at], predicted)
    np.bitwise_xor(predicted.view(np.uint32), words.view(">u4"), out=out.view("<u4"))


PREDICTOR = Strategy(0, "predictor-xor", F32_ONLY, decode, None, check)
