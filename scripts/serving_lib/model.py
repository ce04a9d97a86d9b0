"""The transformer of the demo, token by token: it continues a text with the K/V blocks that it has.

Its weights come from a seed, so that every process that is given the same seed has the same model. So do the random
numbers that a token is drawn with; they depend on its position alone. Attention goes through the cache block by block,
in order, whoever holds the blocks: then a process that got them from elsewhere computes the same bits.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from demo_lib.transformer import F32, Layer, Shape, pieces, random_layer, rms_norm, rotate

VOCABULARY = 1024
_EMBEDDING_SCALE = np.float32(0.1)
"""Of the first layer's input, small beside what the layers add, as training leaves it: so that what a token leaves in
the cache depends on the text before it, but for the first layer's values."""
_SHARPNESS = np.float32(6.0)
"""How far the logits spread: so that tokens follow from the context, and no text repeats itself for ever."""


class Cache(Protocol):
    """K/V blocks of one sequence. A block is [layers, 2, kv_heads, block_tokens, head_dim]."""

    block_tokens: int

    def begin(self, tokens: int) -> None:
        """Make room for so many tokens more, all of them in one block."""
        ...

    def put(self, layer: int, key: F32, value: F32) -> None:
        """Keep what those tokens add to a layer, [tokens, kv_heads, head_dim] each."""
        ...

    def views(self, layer: int) -> Iterable[tuple[F32, F32]]:
        """Return keys and values of each block in order, [kv_heads, tokens, head_dim] each."""
        ...


class Model:
    """A decoder-only transformer with random weights.

    Args:
        shape: its sizes.
        seed: for its weights and for the tokens that it draws.
    """

    def __init__(self, shape: Shape, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.shape = shape
        self._seed = seed
        self._embedding: F32 = rng.standard_normal((VOCABULARY, shape.width)).astype(np.float32)
        self._layers: list[Layer] = [random_layer(rng, shape) for _ in range(shape.layers)]

    def run(self, tokens: list[int], start: int, cache: Cache) -> F32:
        """Take some tokens in, the first at position ``start``; return the logits after the last of them."""
        cache.begin(len(tokens))
        x = self._embedding[tokens] * _EMBEDDING_SCALE
        for index, layer in enumerate(self._layers):
            x = self._run_layer(index, layer, x, start, cache)
        return rms_norm(x[-1:], np.ones(1, np.float32))[0] @ self._embedding.T * (_SHARPNESS / self.shape.width**0.5)

    def _run_layer(self, index: int, layer: Layer, x: F32, start: int, cache: Cache) -> F32:
        shape, count = self.shape, len(x)
        normed = rms_norm(x, layer.attention_norm)
        key = rotate((normed @ layer.key + layer.key_bias).reshape(count, shape.kv_heads, shape.head_dim), start)
        value = (normed @ layer.value).reshape(count, shape.kv_heads, shape.head_dim)
        query = rotate((normed @ layer.query).reshape(count, shape.heads, shape.head_dim), start)
        cache.put(index, key, value)
        x = x + _attend(query, cache.views(index), start, shape) @ layer.out
        normed = rms_norm(x, layer.mlp_norm)
        gate = normed @ layer.gate
        return x + (gate / (1 + np.exp(-gate)) * (normed @ layer.up)) @ layer.down

    def draw(self, logits: F32, position: int) -> int:
        """Draw the token that stands at a position."""
        noise = np.random.default_rng([self._seed, position]).gumbel(size=len(logits))
        return int(np.argmax(logits + noise))

    def prefill(self, tokens: list[int], cache: Cache) -> Iterator[F32]:
        """Take a prompt in, block by block; yields the logits after each block."""
        for start in range(0, len(tokens), cache.block_tokens):
            yield self.run(tokens[start : start + cache.block_tokens], start, cache)

    def generate(self, tokens: list[int], steps: int, cache: Cache) -> Iterator[list[int]]:
        """Continue a text, of which the last token is not in the cache yet.

        Yields:
            The text, after each token more.
        """
        for _ in range(steps):
            logits = self.run(tokens[-1:], len(tokens) - 1, cache)
            tokens = [*tokens, self.draw(logits, len(tokens))]
            yield tokens


def _attend(query: F32, blocks: Iterable[tuple[F32, F32]], start: int, shape: Shape) -> F32:
    """Causal attention of [tokens, heads, head_dim] over blocks, the last of which has the queries' own tokens."""
    count = len(query)
    by_head = query.reshape(count, shape.kv_heads, -1, shape.head_dim).transpose(1, 2, 0, 3)
    rows = (by_head / np.float32(np.sqrt(shape.head_dim))).reshape(shape.kv_heads, -1, shape.head_dim)
    highest = np.full((*rows.shape[:2], 1), -np.inf, np.float32)
    total, out = np.zeros_like(highest), np.zeros_like(rows)
    first = 0
    for key, value in blocks:
        scores = rows @ key.transpose(0, 2, 1)
        last = first + key.shape[1]
        if last > start + 1:
            positions = np.tile(np.arange(start, start + count), len(rows[0]) // count)
            scores[:, np.arange(first, last)[None, :] > positions[:, None]] = -np.inf
        higher = np.maximum(highest, scores.max(axis=-1, keepdims=True))
        kept = np.exp(highest - higher)
        weights = np.exp(scores - higher)
        total = total * kept + weights.sum(axis=-1, keepdims=True)
        out = out * kept + weights @ value
        highest, first = higher, last
    by_head = (out / total).reshape(shape.kv_heads, -1, count, shape.head_dim)
    return by_head.transpose(2, 0, 1, 3).reshape(count, shape.width)


def tokenise(text: bytes, count: int) -> list[int]:
    """Return the first ``count`` words and marks of a text as tokens."""
    return [zlib.crc32(piece) % VOCABULARY for piece in pieces(text, count)]
