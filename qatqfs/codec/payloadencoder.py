"""Encode raw values as QATQ payloads, one or several, and verify them if asked to."""

import itertools
from collections.abc import Sequence

import numpy as np

from qatqfs.codec.buffers import Buffer, Bytes, as_bytes, scratch
from qatqfs.codec.checksum import fnv1a64_plain, hashes_alone
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import EncodingFault, QatcError
from qatqfs.codec.level import Level
from qatqfs.codec.payload import (
    CHECKSUM_OFFSET,
    MAX_VALUES,
    canonical_order,
    payload_head,
    prepare_payload,
    values_checksum,
    values_checksums,
)
from qatqfs.codec.search import Memory, Settings, encode_as_known, encode_smallest
from qatqfs.codec.strategies import STRATEGIES

_UNUSED_SCALE = 1.0  # only the predictor reads it
_PLANES = 7


def encode_payload(
    raw: Buffer,
    dtype: DType,
    *,
    level: Level = Level.BALANCED,
    appendable: bool = False,
    strategy: int | None = None,
    stride: int | None = None,
    row_widths: Sequence[int] = (),
    memory: Memory | None = None,
    verified: bool = False,
) -> bytes:
    """Encode raw values as one exact payload.

    Args:
        raw: little-endian elements, at most 2**26 of them.
        dtype: their type.
        level: how hard to search for a smaller form.
        appendable: choose among strategies 7 to 10 only, whose data ends in zstd frames, so that a skippable
            frame may be appended to the payload.
        strategy: force this one, an id from :data:`~qatqfs.codec.STRATEGIES`.
        stride: of strategy 10, in elements. It is needed, and used, only when that strategy is forced.
        row_widths: elements that a row may have. These are hints, which may be wrong.
        memory: of the stream that the values are a chunk of. It makes the search shorter.
        verified: decode the payload and compare the values, and prove the checksum by the plain loop. Where the
            chunk needed no search, the plain loop covers 4 KiB, at another place in each chunk. Elsewhere it covers
            all values.

    Returns:
        The payload.

    Raises:
        EncodingFault: the payload was verified, and is wrong.
        ValueError: if the length is not a multiple of the width, there are too many values, or the forced
            strategy is unknown, not legal for the dtype, or cannot hold the values.
    """
    values, settings = _values(raw, dtype), Settings(dtype, level, memory, verified)
    if strategy is None:
        for known in _encode_as_known([values], settings, row_widths):
            return known
    body = encode_smallest(values, settings, row_widths, appendable=appendable, strategy=strategy, stride=stride)
    return _payload(body, values, settings)


def _encode_as_known(values: Sequence[Bytes], settings: Settings, row_widths: Sequence[int]) -> list[bytes]:
    """Return the payloads of equally long values, up to the first that needs a search; raises EncodingFault."""
    head = payload_head(_PLANES, _UNUSED_SCALE, len(values[0]), settings.dtype, 0)
    payloads = []
    found = encode_as_known(values, settings, head, CHECKSUM_OFFSET, row_widths)
    for known, each in zip(found, values, strict=False):
        if settings.verified and not known.verified:  # again, to say what is wrong
            _verify(known.data, each, settings.dtype, hashed=known.hashed)
        payloads.append(known.data)
    return payloads


def _payload(body: tuple[int, bytes], values: Bytes, settings: Settings) -> bytes:
    """Return the payload of a strategy's data; raises EncodingFault."""
    dtype = settings.dtype
    payload = _with_header(body, values, dtype, values_checksum(values, dtype))
    if settings.verified:
        _verify(payload, values, dtype, hashed=False)
    return payload


def _verify(payload: bytes, values: Bytes, dtype: DType, *, hashed: bool) -> None:
    """Decode a payload and compare the values. Compare the checksum with that of the plain loop too, unless ``hashed``
    says that it has been proved already. Raises EncodingFault.
    """
    decoded = scratch("verified", len(values))
    try:
        header, data, _ = prepare_payload(payload, decoded.data, len(values), dtype)
        STRATEGIES[header.strategy].decode(data, decoded, dtype, header.scale)
    except QatcError as err:
        raise EncodingFault(str(err)) from err
    if header.raw_size != len(values) or not np.array_equal(decoded, values):
        raise EncodingFault("other values came back")
    if hashed:
        return
    if header.checksum != fnv1a64_plain(canonical_order(decoded, dtype, 0).data):
        raise EncodingFault("its checksum is wrong")


def encode_payloads(
    raws: Sequence[Buffer],
    dtype: DType,
    *,
    level: Level = Level.BALANCED,
    row_widths: Sequence[int] = (),
    memory: Memory | None = None,
    verified: bool = False,
) -> list[bytes]:
    """Encode several raw values as one exact payload each.

    Consecutive chunks of equal length that need no search are encoded in one call of a kernel. That call gives up the
    interpreter's lock once, so the thread waits less for others. Where it is faster, the checksums of all chunks are
    computed together instead.

    Args:
        raws: little-endian elements, at most 2**26 of them in each.
        dtype: their type.
        level: how hard to search for a smaller form.
        row_widths: as for :func:`encode_payload`.
        memory: the same.
        verified: the same.

    Raises:
        EncodingFault, ValueError: as :func:`encode_payload`.
    """
    left, settings = [_values(raw, dtype) for raw in raws], Settings(dtype, level, memory, verified)
    if not verified and not hashes_alone():
        bodies = [encode_smallest(each, settings, row_widths) for each in left]
        sums = values_checksums(left, dtype)
        return [_with_header(body, each, dtype, found) for body, each, found in zip(bodies, left, sums, strict=True)]
    payloads: list[bytes] = []
    # Chunks in one call. After a chunk that needs a search, others may need one too; then a long call would be in vain.
    most = len(left)
    while left:
        _, group = next(itertools.groupby(left[:most], key=len))
        alike = list(group)
        found = _encode_as_known(alike, settings, row_widths)
        most *= 2
        if len(found) < len(alike):
            values = alike[len(found)]
            body = encode_smallest(values, settings, row_widths)
            found.append(_payload(body, values, settings))
            most = 1
        payloads += found
        left = left[len(found) :]
    return payloads


def _values(raw: Buffer, dtype: DType) -> Bytes:
    view = as_bytes(raw)
    if len(view) % dtype.width:
        raise ValueError(f"{len(view)} bytes are no whole {dtype.label} values")
    if len(view) // dtype.width > MAX_VALUES:
        count = len(view) // dtype.width
        raise ValueError(f"{count} values are too many for one payload, at most {MAX_VALUES} are allowed")
    return np.frombuffer(view, np.uint8) if len(view) else np.empty(0, np.uint8)


def _with_header(body: tuple[int, bytes], values: Bytes, dtype: DType, checksum: int) -> bytes:
    strategy, data = body
    scale_of = STRATEGIES[strategy].scale
    scale = _UNUSED_SCALE if scale_of is None else scale_of(values)
    return payload_head(strategy, scale, len(values), dtype, checksum) + data
