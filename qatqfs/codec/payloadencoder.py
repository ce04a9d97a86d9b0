"""Raw values to QATQ payloads, one or several, verified where that is asked for."""

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
from qatqfs.codec.search import Memory, encode_as_known, encode_smallest
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
        level: how hard to look for a small form.
        appendable: choose among strategies 7 to 10 only, whose data ends in zstd frames, so that a skippable
            frame may be appended to the payload.
        strategy: force this one, an id from :data:`~qatqfs.codec.STRATEGIES`.
        stride: of strategy 10, in elements; needed when that is forced, and only then of use.
        row_widths: elements that a row may have, as far as anything is known: hints, which may be wrong.
        memory: of the stream that the values are a chunk of; it makes the search shorter.
        verified: decode the payload again and compare the values; and prove the checksum by the plain loop, of a
            chunk of which everything is known for 4 KiB, taken elsewhere in each, else for all.

    Returns:
        The payload.

    Raises:
        EncodingFault: when it is to be verified, and is wrong.
        ValueError: when the length is no multiple of the width, there are too many values, or the forced
            strategy is unknown, not legal for the dtype, or cannot hold the values.
    """
    values = _values(raw, dtype)
    if strategy is None:
        for known in _encode_as_known([values], dtype, level, row_widths, memory, verified=verified):
            return known
    body = encode_smallest(
        values,
        dtype,
        level,
        appendable=appendable,
        strategy=strategy,
        stride=stride,
        row_widths=row_widths,
        memory=memory,
    )
    return _payload(body, values, dtype, verified=verified)


def _encode_as_known(
    values: Sequence[Bytes],
    dtype: DType,
    level: Level,
    row_widths: Sequence[int],
    memory: Memory | None,
    *,
    verified: bool,
) -> list[bytes]:
    """Return the payloads of equally long values, as many of the first as take no search; raises EncodingFault."""
    head = payload_head(_PLANES, _UNUSED_SCALE, len(values[0]), dtype, 0)
    payloads = []
    found = encode_as_known(
        values, dtype, level, head, CHECKSUM_OFFSET, row_widths=row_widths, memory=memory, verified=verified
    )
    for known, each in zip(found, values, strict=False):
        if verified and not known.verified:  # again, to say what is wrong
            _verify(known.data, each, dtype, hashed=known.hashed)
        payloads.append(known.data)
    return payloads


def _payload(body: tuple[int, bytes], values: Bytes, dtype: DType, *, verified: bool) -> bytes:
    """Return the payload of a strategy's data; raises EncodingFault."""
    payload = _with_header(body, values, dtype, values_checksum(values, dtype))
    if verified:
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

    Equally long ones that follow one another are encoded in one call of a kernel, which gives up the interpreter's
    lock once, as long as that takes no search: so a thread that encodes them waits less for others. Where that helps
    their checksums are worked out together instead.

    Args:
        raws: little-endian elements, at most 2**26 of them in each.
        dtype: their type.
        level: how hard to look for a small form.
        row_widths: as for :func:`encode_payload`.
        memory: the same.
        verified: the same.

    Raises:
        EncodingFault, ValueError: as :func:`encode_payload`.
    """
    left = [_values(raw, dtype) for raw in raws]
    if not verified and not hashes_alone():
        bodies = [encode_smallest(each, dtype, level, row_widths=row_widths, memory=memory) for each in left]
        sums = values_checksums(left, dtype)
        return [_with_header(body, each, dtype, found) for body, each, found in zip(bodies, left, sums, strict=True)]
    payloads: list[bytes] = []
    most = len(left)  # chunks to encode at once: behind one that takes a search more of them may be, and in vain
    while left:
        _, group = next(itertools.groupby(left[:most], key=len))
        alike = list(group)
        found = _encode_as_known(alike, dtype, level, row_widths, memory, verified=verified)
        most *= 2
        if len(found) < len(alike):
            values = alike[len(found)]
            body = encode_smallest(values, dtype, level, row_widths=row_widths, memory=memory)
            found.append(_payload(body, values, dtype, verified=verified))
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
