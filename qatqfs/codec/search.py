"""Which strategy holds some values in the fewest bytes.

Byte planes in zstd frames (7) win on nearly all tensors, so the others are tried where a sample says that they
might: differences (8) on smooth f32, the adjacent XOR (9) on sorted or slowly changing 16-bit values. What no
strategy makes smaller stays raw bits (1), unless an index frame has to be appended.
"""

import numpy as np

from qatqfs.codec.buffers import Bytes
from qatqfs.codec.dtypes import DType
from qatqfs.codec.level import Level
from qatqfs.codec.strategies import STRATEGIES

_RAW_BITS, _BLOCKS, _PLANES, _DIFFERENCES, _ADJACENT = 1, 5, 7, 8, 9
_FILTERED = {DType.F32: _DIFFERENCES, DType.F16: _ADJACENT, DType.BF16: _ADJACENT}
_SAMPLE_PARTS = 4
_SAMPLE_PART_BYTES = 4096
_TINY_BYTES = 1024
"""Up to here the headers of zstd frames weigh, so that simpler strategies may win."""
_HOPELESS = 1.03
"""Relative size in the sample from which ``SMALL`` does not try a filter on all values."""


def encode_smallest(
    raw: Bytes,
    dtype: DType,
    level: Level,
    *,
    appendable: bool = False,
    strategy: int | None = None,
    stride: int | None = None,
) -> tuple[int, bytes]:
    """Encode values with the strategy that suits them.

    Args:
        raw: little-endian elements.
        dtype: their type.
        level: how hard to look.
        appendable: only strategies whose data ends in zstd frames.
        strategy: force this one.
        stride: for strategy 10 when it is forced, in elements.

    Returns:
        The id of the strategy and its data.

    Raises:
        ValueError: when the forced strategy cannot be used.
    """
    if strategy is not None:
        if appendable and strategy in STRATEGIES and STRATEGIES[strategy].zstd_offset is None:
            raise ValueError(f"nothing can be appended to strategy {STRATEGIES[strategy].name}")
        return strategy, _encode(strategy, raw, dtype, level, stride)
    candidates = [(i, _encode(i, raw, dtype, level)) for i in _candidates(raw, dtype, level, appendable)]
    best, data = min(candidates, key=lambda candidate: len(candidate[1]))
    if len(data) >= len(raw) and not appendable:
        return _RAW_BITS, _encode(_RAW_BITS, raw, dtype, level)
    return best, data


def _candidates(raw: Bytes, dtype: DType, level: Level, appendable: bool) -> list[int]:
    """Return the ids worth trying on all values."""
    filtered = _FILTERED[dtype]
    if len(raw) <= _TINY_BYTES:
        tiny = [_PLANES, filtered]
        return tiny if appendable or dtype is not DType.F32 else [*tiny, _BLOCKS]
    if level is Level.FAST or (level is Level.BALANCED and dtype.width == 2):
        return [_PLANES]
    sample = _sample(raw)
    plain, other = (len(_encode(i, sample, dtype, Level.FAST)) for i in (_PLANES, filtered))
    if level is Level.SMALL:
        return [_PLANES, filtered] if other < _HOPELESS * plain else [_PLANES]
    return [filtered] if other < plain else [_PLANES]


def _sample(raw: Bytes) -> Bytes:
    """Return a few runs of values from all over."""
    if len(raw) <= _SAMPLE_PARTS * _SAMPLE_PART_BYTES:
        return raw
    step = (len(raw) - _SAMPLE_PART_BYTES) // (_SAMPLE_PARTS - 1) // 4 * 4
    return np.concatenate([raw[i * step : i * step + _SAMPLE_PART_BYTES] for i in range(_SAMPLE_PARTS)])


def _encode(strategy: int, raw: Bytes, dtype: DType, level: Level, stride: int | None = None) -> bytes:
    known = STRATEGIES.get(strategy)
    if known is None:
        raise ValueError(f"there is no strategy {strategy}")
    if dtype not in known.dtypes:
        raise ValueError(f"strategy {known.name} is not legal for {dtype.label}")
    if known.encode is not None:
        data = known.encode(raw, dtype, level)
    elif known.encode_with_stride is not None and stride is not None:
        data = known.encode_with_stride(raw, dtype, level, stride)
    else:
        raise ValueError(f"strategy {known.name} needs a stride")
    if data is None:
        raise ValueError(f"strategy {known.name} cannot hold these {len(raw)} bytes")
    return data
