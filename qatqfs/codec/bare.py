"""Bare QATQ files of any readable mode (format sections 2 and 10)."""

import struct

import numpy as np

from qatqfs.codec.buffers import Buffer, Bytes, as_bytes
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import (
    ChecksumMismatch,
    InvalidBody,
    LengthMismatch,
    LimitExceeded,
    PayloadTooShort,
    UnsupportedMode,
)
from qatqfs.codec.payload import (
    EXACT_MODE,
    MAX_VALUES,
    MODE_NAMES,
    PAYLOAD_HEADER_SIZE,
    PayloadHeader,
    decode_payload,
    read_bare_header,
    read_payload_header,
    values_checksum,
)
from qatqfs.codec.planes import swap_elements
from qatqfs.codec.strategies.predictor import coordinate_count, predict, read_residual_scale

_LOSSY_I4, _LOSSLESS_F32, _PHASE1_Q4 = 1, 2, 3
_PHASE1 = struct.Struct(">4sQII")  # magic, seed, bits of the residual scale, reserved


def decode_any_payload(buf: Buffer, *, max_values: int = MAX_VALUES) -> tuple[memoryview, DType]:
    """Decode one payload of mode 1 (lossy-i4), 2 (lossless-f32), 3 (phase1-q4) or 4 (exact).

    The lossy modes store the checksum of the original values, so it cannot verify the decoded ones.

    Args:
        buf: the whole payload.
        max_values: most values that the caller accepts.

    Returns:
        The raw little-endian values and their dtype (f32 in all modes but exact).

    Raises:
        QatcError: as :func:`qatqfs.codec.decode_payload`; UnsupportedMode names mode 5 (turboquant-q4).
    """
    view = as_bytes(buf)
    header = read_bare_header(view)
    if header.mode == EXACT_MODE:
        return decode_payload(view, max_values=max_values), read_payload_header(view).dtype
    if header.count > max_values:
        raise LimitExceeded("values in a payload", header.count, max_values)
    body = view[PAYLOAD_HEADER_SIZE:]
    if header.mode == _LOSSY_I4:
        raw = _decode_lossy_i4(body, header)
    elif header.mode == _LOSSLESS_F32:
        raw = _decode_lossless_f32(body, header)
    elif header.mode == _PHASE1_Q4:
        raw = _decode_phase1_q4(body, header)
    else:
        raise UnsupportedMode(header.mode, MODE_NAMES[header.mode])
    return raw.data, DType.F32


def _decode_lossy_i4(body: memoryview, header: PayloadHeader) -> Bytes:
    _check_length(body, -(-header.count // 2))
    packed = np.frombuffer(body, np.uint8)
    steps = np.empty(len(packed) * 2, np.float32)
    steps[0::2] = packed >> 4
    steps[1::2] = packed & 15
    with np.errstate(all="ignore"):
        values = (steps[: header.count] - np.float32(8)) * np.float32(header.scale)
    return values.astype("<f4").view(np.uint8)


def _decode_lossless_f32(body: memoryview, header: PayloadHeader) -> Bytes:
    _check_length(body, header.raw_size)
    raw = np.empty(header.raw_size, np.uint8)
    swap_elements(np.frombuffer(body, np.uint8), DType.F32.width, raw)
    actual = values_checksum(raw, DType.F32)
    if actual != header.checksum:
        raise ChecksumMismatch(header.checksum, actual)
    return raw


def _decode_phase1_q4(body: memoryview, header: PayloadHeader) -> Bytes:
    if len(body) < _PHASE1.size:
        raise PayloadTooShort(len(body), _PHASE1.size)
    magic, seed, residual_bits, reserved = _PHASE1.unpack_from(body)
    coordinates = coordinate_count(header.count)
    signs_at = _PHASE1.size + coordinates // 2
    _check_length(body, signs_at + -(-coordinates // 8))
    if magic != b"P1Q4" or reserved:
        raise InvalidBody("it is no phase1-q4 body")
    values = np.empty(header.count, np.float32)
    residual_scale = read_residual_scale(residual_bits)
    predict(seed, header.scale, residual_scale, body[_PHASE1.size : signs_at], body[signs_at:], values)
    return values.astype("<f4").view(np.uint8)


def _check_length(body: memoryview, expected: int) -> None:
    if len(body) != expected:
        raise LengthMismatch(expected, len(body))
