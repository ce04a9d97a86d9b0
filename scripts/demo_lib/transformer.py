"""A small decoder-only transformer in numpy, run once over a text to fill a K/V cache.

It has the parts that shape a real cache: grouped-query attention, rotary positions on queries and keys,
RMSNorm, a gated MLP and a residual stream. Its weights are random and never trained, so what it predicts
is noise. What matters here is how the *bits* of K and V are spread, and that follows from the scales: the
channel gains and key biases below are drawn with the spread that trained models show, which gives exponents
of about 2.6 to 2.8 bits of entropy, as in caches of trained models. Random mantissas are as incompressible
as trained ones.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

_PIECE = re.compile(rb"\s*\w+|\s*[^\w\s]+|\s+$")
_ROTARY_BASE = 10_000.0
_NORM_EPSILON = np.float32(1e-5)
_QUERY_BLOCK = 256
"""Queries attended at a time, so that the scores of a block stay in the processor's cache."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; widths are counts of values, not bytes."""

    layers: int = 6
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    hidden: int = 1024

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Values that one token adds to the keys of one layer, and again to its values."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Layer:
    """Weights of one block; matrices are [in, out]."""

    attention_norm: F32
    query: F32
    key: F32
    key_bias: F32
    value: F32
    out: F32
    mlp_norm: F32
    gate: F32
    up: F32
    down: F32


def pieces(text: bytes, limit: int) -> list[bytes]:
    """Split a text into words and marks with their leading space, at most ``limit`` of them."""
    found = _PIECE.findall(text)
    if len(found) < limit:
        found *= -(-limit // max(1, len(found)))
    return found[:limit]


def random_layer(rng: np.random.Generator, shape: Shape) -> Layer:
    """Draw one block: normal weights of variance 1/in, with gains per channel as training leaves them."""

    def matrix(rows: int, columns: int, scale: float = 1.0) -> F32:
        return (rng.standard_normal((rows, columns)) * (scale / np.sqrt(rows))).astype(np.float32)

    def gains(count: int, spread: float) -> F32:
        return np.exp(rng.normal(0.0, spread, count)).astype(np.float32)

    width, into_residual = shape.width, 1.0 / np.sqrt(2 * shape.layers)
    return Layer(
        attention_norm=gains(width, 0.3),
        query=matrix(width, width),
        key=matrix(width, shape.kv_width) * gains(shape.kv_width, 0.4),
        key_bias=(rng.standard_t(3, shape.kv_width) * 0.5).astype(np.float32),
        value=matrix(width, shape.kv_width, 0.6) * gains(shape.kv_width, 0.2),
        out=matrix(width, width, into_residual),
        mlp_norm=gains(width, 0.3),
        gate=matrix(width, shape.hidden),
        up=matrix(width, shape.hidden),
        down=matrix(shape.hidden, width, into_residual),
    )


def embed(rng: np.random.Generator, tokens: list[bytes], width: int) -> F32:
    """Embed each piece from its bytes: a table row per place and byte, summed; [tokens, width]."""
    places = 24
    table = rng.standard_normal((places * 256, width)).astype(np.float32)
    rows = []
    for token in tokens:
        ids = [place * 256 + byte for place, byte in enumerate(token[:places])]
        rows.append(table[ids].sum(axis=0) / np.sqrt(len(ids)))
    return np.stack(rows).astype(np.float32)


def rms_norm(x: F32, gain: F32) -> F32:
    """Scale every row to a root mean square of one, then by the gain of each channel."""
    return x * (gain / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + _NORM_EPSILON))


def rotate(x: F32, start: int = 0) -> F32:
    """Apply rotary positions from ``start`` to [tokens, heads, head_dim], halves paired as most runtimes do."""
    tokens, _, head_dim = x.shape
    frequency = _ROTARY_BASE ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = np.outer(np.arange(start, start + tokens), frequency).astype(np.float32)[:, None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(query: F32, key: F32, value: F32) -> F32:
    """Causal grouped-query attention of [tokens, heads, head_dim] over [tokens, kv_heads, head_dim]."""
    tokens, heads, head_dim = query.shape
    group = heads // key.shape[1]
    out = np.empty_like(query)
    for head in range(heads):
        k, v = key[:, head // group], value[:, head // group]
        for start in range(0, tokens, _QUERY_BLOCK):
            end = min(start + _QUERY_BLOCK, tokens)
            scores = query[start:end, head] @ k[:end].T / np.float32(np.sqrt(head_dim))
            scores[np.arange(end)[None, :] > np.arange(start, end)[:, None]] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            out[start:end, head] = weights @ v[:end] / weights.sum(axis=-1, keepdims=True)
    return out


def run_layer(layer: Layer, x: F32, shape: Shape) -> tuple[F32, F32, F32]:
    """Return the residual stream after the block, and its keys and values [tokens, kv_heads, head_dim]."""
    tokens = len(x)
    normed = rms_norm(x, layer.attention_norm)
    key = rotate((normed @ layer.key + layer.key_bias).reshape(tokens, shape.kv_heads, shape.head_dim))
    value = (normed @ layer.value).reshape(tokens, shape.kv_heads, shape.head_dim)
    query = rotate((normed @ layer.query).reshape(tokens, shape.heads, shape.head_dim))
    x = x + attend(query, key, value).reshape(tokens, shape.width) @ layer.out
    normed = rms_norm(x, layer.mlp_norm)
    gate = normed @ layer.gate
    return x + (gate / (1 + np.exp(-gate)) * (normed @ layer.up)) @ layer.down, key, value


def kv_cache(text: bytes, tokens: int, seed: int, shape: Shape) -> F32:
    """Run the model over the first pieces of a text; return [layers, 2, kv_heads, tokens, head_dim]."""
    rng = np.random.default_rng(seed)
    x = embed(rng, pieces(text, tokens), shape.width)
    cache = np.empty((shape.layers, 2, shape.kv_heads, tokens, shape.head_dim), dtype=np.float32)
    for index in range(shape.layers):
        x, key, value = run_layer(random_layer(rng, shape), x, shape)
        cache[index, 0] = key.transpose(1, 0, 2)
        cache[index, 1] = value.transpose(1, 0, 2)
    if not np.isfinite(cache).all():
        raise ArithmeticError("the model's cache is not finite")
    return cache
