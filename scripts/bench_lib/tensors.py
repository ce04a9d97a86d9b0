"""Synthetic K/V tensors whose planes compress like those of trained models."""

import numpy as np

_HEAD_DIM = 64


def bf16_tensor(size: int, seed: int = 0) -> bytes:
    """Return ``size`` bytes of bf16 values [tokens, 16 heads * 64]: normal, with a scale of its own per channel."""
    rng = np.random.default_rng(seed)
    columns = 16 * _HEAD_DIM
    rows = -(-size // (2 * columns))
    scales = np.exp(rng.normal(scale=0.7, size=columns)).astype(np.float32)
    block = 1 << 10
    parts = []
    for start in range(0, rows, block):
        values = rng.standard_normal((min(block, rows - start), columns), dtype=np.float32) * scales
        parts.append((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return b"".join(parts)[:size]
