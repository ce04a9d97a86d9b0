"""Synthetic K/V tensors whose planes compress like those of trained models."""

import numpy as np

from qatqfs.codec import DType

_HEAD_DIM = 64
_ROWS_AT_ONCE = 1 << 10


def kv_tensor(dtype: DType, size: int, seed: int = 0) -> bytes:
    """Return ``size`` bytes of values [tokens, 16 heads * 64]: normal, with a scale of its own per channel."""
    rng = np.random.default_rng(seed)
    columns = 16 * _HEAD_DIM
    rows = -(-size // (dtype.width * columns))
    scales = np.exp(rng.normal(scale=0.7, size=columns)).astype(np.float32)
    parts = []
    for start in range(0, rows, _ROWS_AT_ONCE):
        values = rng.standard_normal((min(_ROWS_AT_ONCE, rows - start), columns), dtype=np.float32) * scales
        if dtype is DType.BF16:
            parts.append((values.view(np.uint32) >> 16).astype("<u2").tobytes())
        else:
            parts.append(values.astype("<f4" if dtype is DType.F32 else "<f2").tobytes())
    return b"".join(parts)[:size]
