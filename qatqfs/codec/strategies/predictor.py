"""Strategy 0: f32 values as the XOR with a prediction from 4-bit quantised, rotated values (format section 4.8).

The lossy mode 3 stores the prediction alone. This strategy hardly ever wins. The encoder exists so that every strategy
can be written, and it does the same as the reference, to the bit.
"""

import struct
from dataclasses import dataclass

import numpy as np

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidResidualScale, InvalidResidualStream, PayloadTooShort
from qatqfs.codec.level import Level
from qatqfs.codec.strategies.base import F32_ONLY, Strategy
from qatqfs.codec.strategies.quaternions import F32, conjugate, hamilton, lane_quaternions

_META = struct.Struct(">QI")  # seed, bits of the residual scale
_WORD_RUN_MAX_TOKEN = 1
_LANES_AT_ONCE = 1 << 14  # bounds the temporaries to a few MiB
DEFAULT_SEED = 0x51415451C0DE0001
"""Seed of the lanes' quaternions that this encoder and the reference use."""
_STEPS = np.float32(7)  # on either side of zero


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
        scale: value of a quantisation step.
        residual_scale: value of a sign.
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
        PayloadTooShort: if they are cut off.
    """
    coordinates = coordinate_count(size // 4)
    minimum = _META.size + coordinates // 2 + -(-coordinates // 8)
    if len(data) < minimum:
        raise PayloadTooShort(len(data), minimum)


def decode(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Predict, and XOR with the stored words.

    Raises:
        PayloadTooShort: if the coordinates are cut off.
        InvalidResidualScale: if the residual scale is not legal.
        InvalidResidualStream: if the runs do not give exactly the values.
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


def _rotate(raw: Bytes, seed: int) -> F32:
    """Return the rotated values, padded to whole quaternions. Values that are not finite count as zero."""
    n = len(raw) // 4
    rotated = np.zeros(coordinate_count(n), np.float32)
    rotated[:n] = raw.view("<f4")
    rotated[~np.isfinite(rotated)] = 0
    for first in range(0, len(rotated) // 4, _LANES_AT_ONCE):
        x = rotated[first * 4 : (first + _LANES_AT_ONCE) * 4].reshape(-1, 4)
        q = lane_quaternions(seed, np.arange(first, first + len(x), dtype=np.uint64))
        turned = hamilton(hamilton(q, (x[:, 0], x[:, 1], x[:, 2], x[:, 3])), conjugate(q))
        x[:] = np.stack(turned, axis=1)
    return rotated


@dataclass(frozen=True, slots=True)
class _Quantised:
    """The content of a payload besides the runs, and the values that a decoder predicts from it.

    Attributes:
        step: value of a quantisation step, the header's scale.
        residual: value of a sign.
        nibbles: two coordinates a byte.
        signs: eight coordinates a byte.
        predicted: n values.
    """

    step: np.float32
    residual: np.float32
    nibbles: bytes
    signs: bytes
    predicted: F32


def _quantise(raw: Bytes, seed: int) -> _Quantised:
    """Quantise the rotated values, or predict zeros if that gives no payload that all decoders agree on.

    This happens if decoders would refuse the step or the residual scale. It also happens if a prediction is NaN,
    because the bits of NaN differ between processors.
    """
    rotated = _rotate(raw, seed)
    finite = np.isfinite(rotated)
    largest = np.abs(rotated[finite]).max(initial=np.float32(0))
    step = np.float32(largest / _STEPS) if largest else np.float32(1)
    with np.errstate(all="ignore"):
        quotient = rotated / step
        whole = np.trunc(quotient)
        whole += np.copysign(np.abs(quotient - whole) >= np.float32(0.5), quotient)
        steps = np.where(finite, np.clip(whole, -_STEPS, _STEPS), 0).astype(np.float32)
        errors = rotated - steps * step
        residual = _mean_error(errors)
    if step > 0 and np.isfinite(residual):
        found = _predicted(len(raw) // 4, seed, step, residual, steps, errors)
        if not np.isnan(found.predicted).any():
            return found
    zeros = np.zeros(len(rotated), np.float32)
    return _predicted(len(raw) // 4, seed, np.float32(1), np.float32(0), zeros, zeros)


def _mean_error(errors: F32) -> np.float32:
    """Return the mean of absolute errors, added up in order in binary32."""
    if not len(errors):
        return np.float32(0)
    return np.float32(np.add.accumulate(np.abs(errors), dtype=np.float32)[-1] / np.float32(len(errors)))


def _predicted(n: int, seed: int, step: np.float32, residual: np.float32, steps: F32, errors: F32) -> _Quantised:
    digits = (steps + np.float32(8)).astype(np.uint8)
    nibbles = (digits[0::2] << 4 | digits[1::2]).tobytes()
    signs = np.packbits(errors >= 0, bitorder="little").tobytes()
    predicted = np.empty(n, np.float32)
    predict(seed, float(step), float(residual), memoryview(nibbles), memoryview(signs), predicted)
    return _Quantised(step, residual, nibbles, signs, predicted)


def scale(raw: Bytes, seed: int = DEFAULT_SEED) -> float:
    """Return the scale that the payload header needs for the data that :func:`encode` makes of raw values."""
    return float(_quantise(raw, seed).step)


def encode(raw: Bytes, dtype: DType, level: Level, seed: int = DEFAULT_SEED) -> bytes:
    """Predict each value from 4 bits and a sign, and store these and the XOR of value and prediction."""
    found = _quantise(raw, seed)
    words = (found.predicted.view(np.uint32) ^ raw.view("<u4")).astype(">u4")
    runs = _native.encode_word_runs(words.view(np.uint8).data)
    assert runs is not None
    return _META.pack(seed, int(found.residual.view(np.uint32))) + found.nibbles + found.signs + runs


PREDICTOR = Strategy(0, "predictor-xor", F32_ONLY, decode, encode, check, scale=scale)
