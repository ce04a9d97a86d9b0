"""One QATQ payload: its header, body prefix and strategy data (format sections 2 to 5), and how it is decoded."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qatqfs.codec.buffers import KEPT_BYTES, Buffer, Bytes, as_bytes, scratch
from qatqfs.codec.checksum import FNV_OFFSET, HASHED_TOGETHER, fnv1a64, fnv1a64_many, hashes_alone
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import (
    ChecksumMismatch,
    InvalidBody,
    InvalidHeader,
    InvalidMagic,
    InvalidScale,
    LimitExceeded,
    MixedDtypes,
    PayloadTooShort,
    QatcError,
    UnsupportedMode,
    UnsupportedVersion,
    ValueCountTooLarge,
    without_frames,
)
from qatqfs.codec.planes import swap_elements
from qatqfs.codec.strategies import STRATEGIES

PAYLOAD_MAGIC = b"QATQ"
PAYLOAD_HEADER_SIZE = 28
EXACT_HEADER_SIZE = 36
"""Bytes of the payload header and the prefix of an exact body."""
MAX_VALUES = 1 << 26
"""Most values in one payload (format section 2)."""
CHECKSUM_OFFSET = 20
"""Offset in a payload of the checksum of its values."""
EXACT_MODE = 4
MODE_NAMES = {1: "lossy-i4", 2: "lossless-f32", 3: "phase1-q4", 4: "exact", 5: "turboquant-q4"}

_HEADER = struct.Struct(">4sBBHQIQ")
_PREFIX_SIZE = EXACT_HEADER_SIZE - PAYLOAD_HEADER_SIZE
_VERSION = 1
_BODY_MAGIC = b"QEX1"


@dataclass(frozen=True, slots=True)
class PayloadHeader:
    """The first 36 bytes of a payload; the first 28 in modes other than exact.

    Attributes:
        mode: 4 for exact, see :data:`MODE_NAMES`.
        count: number of values in the payload.
        scale: used only by the predictor and the lossy modes.
        checksum: FNV-1a 64 over the values (format section 5).
        dtype: of the values; f32 in modes other than exact.
        strategy: id of the strategy, -1 in modes other than exact.
    """

    mode: int
    count: int
    scale: float
    checksum: int
    dtype: DType
    strategy: int

    @property
    def raw_size(self) -> int:
        """Bytes of the raw values."""
        return self.count * self.dtype.width


def read_bare_header(buf: Buffer) -> PayloadHeader:
    """Read the first 28 bytes of a payload, which have the same layout in all modes.

    Raises:
        PayloadTooShort, InvalidMagic, UnsupportedVersion, UnsupportedMode, InvalidHeader, ValueCountTooLarge,
        InvalidScale: in the order of format section 2.
    """
    view = as_bytes(buf)
    if len(view) < PAYLOAD_HEADER_SIZE:
        raise PayloadTooShort(len(view), PAYLOAD_HEADER_SIZE)
    magic, version, mode, reserved, count, scale_bits, checksum = _HEADER.unpack_from(view)
    if magic != PAYLOAD_MAGIC:
        raise InvalidMagic()
    if version != _VERSION:
        raise UnsupportedVersion(version)
    if mode not in MODE_NAMES:
        raise UnsupportedMode(mode)
    if reserved:
        raise InvalidHeader()
    if count > MAX_VALUES:
        raise ValueCountTooLarge(count)
    (scale,) = struct.unpack(">f", view[16:20])
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidScale(scale_bits)
    return PayloadHeader(mode, count, scale, checksum, DType.F32, -1)


def read_payload_header(buf: Buffer) -> PayloadHeader:
    """Read the first 36 bytes of an exact payload.

    Args:
        buf: the payload, or at least its first 36 bytes.

    Raises:
        QatcError: as :func:`read_bare_header`, then UnsupportedMode unless the mode is exact, PayloadTooShort
            and InvalidBody for the prefix, all in the order of format sections 2 and 3.
    """
    view = as_bytes(buf)
    bare = read_bare_header(view)
    if bare.mode != EXACT_MODE:
        raise UnsupportedMode(bare.mode, MODE_NAMES[bare.mode])
    if len(view) < EXACT_HEADER_SIZE:
        raise PayloadTooShort(len(view) - PAYLOAD_HEADER_SIZE, _PREFIX_SIZE)
    if view[28:32] != _BODY_MAGIC:
        raise InvalidBody("its magic is not QEX1")
    try:
        dtype = DType.from_wire(bytes(view[33:36]))
    except ValueError as err:
        raise InvalidBody(str(err)) from None
    strategy = view[32]
    if strategy not in STRATEGIES:
        raise InvalidBody(f"strategy {strategy} is unknown")
    if dtype not in STRATEGIES[strategy].dtypes:
        raise InvalidBody(f"strategy {STRATEGIES[strategy].name} is not legal for {dtype.label}")
    return PayloadHeader(bare.mode, bare.count, bare.scale, bare.checksum, dtype, strategy)


def payload_head(strategy: int, scale: float, size: int, dtype: DType, checksum: int) -> bytes:
    """Return the first 36 bytes of a payload of ``size`` bytes of values (format sections 2 and 3)."""
    (scale_bits,) = struct.unpack(">I", struct.pack(">f", scale))
    header = _HEADER.pack(PAYLOAD_MAGIC, _VERSION, EXACT_MODE, 0, size // dtype.width, scale_bits, checksum)
    return b"".join((header, _BODY_MAGIC, bytes([strategy]), dtype.wire))


def values_checksum(raw: Bytes, dtype: DType) -> int:
    """Return the checksum of raw values: f32 is hashed as big-endian, f16 and bf16 as little-endian."""
    if dtype.width == 2:
        return fnv1a64(raw.data)
    state = FNV_OFFSET
    for start in range(0, len(raw), KEPT_BYTES):
        state = fnv1a64(canonical_order(raw[start : start + KEPT_BYTES], dtype, 0).data, state)
    return state


def values_checksums(raws: Sequence[Bytes], dtype: DType) -> list[int]:
    """Return the checksum of each of several buffers of raw values, hashed together (see :func:`fnv1a64_many`)."""
    found: list[int] = []
    for first in range(0, len(raws), HASHED_TOGETHER):
        group = raws[first : first + HASHED_TOGETHER]
        if dtype.width != 2 and max(map(len, group)) > KEPT_BYTES:
            found += [values_checksum(raw, dtype) for raw in group]
            continue
        found += fnv1a64_many([canonical_order(raw, dtype, k).data for k, raw in enumerate(group)])
    return found


def canonical_order(raw: Bytes, dtype: DType, place: int) -> Bytes:
    """Return values in the byte order that their checksum is computed over (format section 5).

    16-bit values are returned as they are. f32 values are returned in scratch memory; each ``place`` has its own.
    """
    if dtype.width == 2:
        return raw
    canonical = scratch(f"canonical{place}", len(raw))
    swap_elements(raw, dtype.width, canonical)
    return canonical


def result_buffer(size: int, out: Buffer | None) -> Bytes:
    """Return the first ``size`` bytes of ``out``, or fresh memory.

    Raises:
        ValueError: if ``out`` is read-only or too small.
    """
    if out is None:
        return np.empty(size, np.uint8)
    view = as_bytes(out)
    if view.readonly or len(view) < size:
        raise ValueError(f"the output buffer must be writable and have {size} bytes")
    return np.frombuffer(view[:size], np.uint8)


def decode_payload(
    buf: Buffer, out: Buffer | None = None, *, max_values: int = MAX_VALUES, dtype: DType | None = None
) -> memoryview:
    """Decode and verify one exact payload.

    Args:
        buf: the whole payload.
        out: writable, at least as long as the raw values; ``None`` for fresh memory. After an error its
            content is undefined.
        max_values: most values that the caller accepts.
        dtype: the dtype that the payload must have, ``None`` for any.

    Returns:
        The raw little-endian values, count * width bytes; if ``out`` was given, its beginning.

    Raises:
        QatcError: one of the errors of format section 7.1, LimitExceeded above ``max_values``, MixedDtypes
            for another dtype.
        ValueError: if ``out`` is read-only or too small.
    """
    header, data, raw = prepare_payload(buf, out, max_values, dtype)
    strategy = STRATEGIES[header.strategy]
    actual = strategy.decode_hashed(data, raw, header.dtype) if strategy.decode_hashed is not None else None
    if actual is None:
        strategy.decode(data, raw, header.dtype, header.scale)
        actual = values_checksum(raw, header.dtype)
    if actual != header.checksum:
        raise ChecksumMismatch(header.checksum, actual)
    return raw.data


def prepare_payload(
    buf: Buffer, out: Buffer | None, max_values: int, dtype: DType | None
) -> tuple[PayloadHeader, memoryview, Bytes]:
    """Return the header and the strategy data of a payload, and the memory for its values.

    Arguments and errors are those of :func:`decode_payload`.
    """
    view = as_bytes(buf)
    header = read_payload_header(view)
    if header.count > max_values:
        raise LimitExceeded("values in a payload", header.count, max_values)
    if dtype is not None and header.dtype is not dtype:
        raise MixedDtypes(dtype.label, header.dtype.label)
    data = view[EXACT_HEADER_SIZE:]
    if out is None:
        STRATEGIES[header.strategy].check(data, header.raw_size)  # before memory is allocated
    return header, data, result_buffer(header.raw_size, out)


def decode_payloads(
    bufs: Sequence[Buffer],
    outs: Sequence[Buffer] | None = None,
    *,
    max_values: int = MAX_VALUES,
    dtype: DType | None = None,
) -> list[memoryview | QatcError]:
    """Decode and verify several exact payloads, and hash them together where that is faster.

    Args:
        bufs: whole payloads.
        outs: one buffer for each, as for :func:`decode_payload`; ``None`` for fresh memory.
        max_values: most values that the caller accepts in each payload.
        dtype: the dtype that each must have, ``None`` for any.

    Returns:
        For each payload, its raw values or the error that decoding it alone would raise.

    Raises:
        ValueError: if a buffer is read-only or too small, or there are not as many buffers as payloads.
    """
    results: list[memoryview | QatcError] = []
    decoded: dict[DType, list[tuple[int, PayloadHeader, Bytes]]] = {}
    places: Sequence[Buffer | None] = [None] * len(bufs) if outs is None else outs
    for i, (buf, out) in enumerate(zip(bufs, places, strict=True)):
        try:
            if hashes_alone():
                results.append(decode_payload(buf, out, max_values=max_values, dtype=dtype))
                continue
            header, data, raw = prepare_payload(buf, out, max_values, dtype)
            STRATEGIES[header.strategy].decode(data, raw, header.dtype, header.scale)
        except QatcError as err:
            results.append(without_frames(err))
            continue
        results.append(raw.data)
        decoded.setdefault(header.dtype, []).append((i, header, raw))
    for found, group in decoded.items():
        sums = values_checksums([raw for _, _, raw in group], found)
        for (i, header, _), actual in zip(group, sums, strict=True):
            if actual != header.checksum:
                results[i] = ChecksumMismatch(header.checksum, actual)
    return results
