"""Random changes of known inputs, for machines without a fuzzing engine."""

import random
from collections.abc import Callable, Sequence

_NUMBERS = (
    0,
    1,
    2,
    3,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0xFFFF,
    0x10000,
    1 << 26,
    (1 << 26) + 1,
    (1 << 31) - 1,
    1 << 31,
)
_MAX_CHANGES = 4


def _flip(rng: random.Random, data: bytearray, _: bytes) -> None:
    position = rng.randrange(len(data))
    data[position] ^= 1 << rng.randrange(8)


def _put(rng: random.Random, data: bytearray, _: bytes) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _number(rng: random.Random, data: bytearray, _: bytes) -> None:
    width = rng.choice((1, 2, 4, 8))
    position = rng.randrange(len(data))
    value = rng.choice(_NUMBERS) + rng.randrange(-2, 3)
    written = (value % (1 << 8 * width)).to_bytes(width, rng.choice(("big", "little")))
    data[position : position + width] = written[: len(data) - position]


def _cut(rng: random.Random, data: bytearray, _: bytes) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 8, len(data)))]


def _cut_end(rng: random.Random, data: bytearray, _: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def _tear(rng: random.Random, data: bytearray, _: bytes) -> None:
    """Zeros from the boundary of a sector or block, or from anywhere, to the end: what a power cut may leave."""
    block = rng.choice((1, 1, 512, 4096))
    start = rng.randrange(len(data)) // block * block
    data[start:] = bytes(len(data) - start)


def _insert(rng: random.Random, data: bytearray, _: bytes) -> None:
    position = rng.randrange(len(data) + 1)
    data[position:position] = rng.randbytes(rng.choice((1, 2, 4, 8)))


def _repeat(rng: random.Random, data: bytearray, _: bytes) -> None:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(1, 65)]
    position = rng.randrange(len(data) + 1)
    data[position:position] = part


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    if other:
        start = rng.randrange(len(other))
        data[rng.randrange(len(data)) :] = other[start:]


_CHANGES: Sequence[Callable[[random.Random, bytearray, bytes], None]] = (
    _flip,
    _put,
    _number,
    _cut,
    _cut_end,
    _tear,
    _insert,
    _repeat,
    _splice,
)


def mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Return one of the known inputs after a few random changes.

    Args:
        rng: decides everything, so that a seed gives the same inputs again.
        corpus: at least one input.
    """
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.randint(1, _MAX_CHANGES)):
        if not data:
            data += rng.randbytes(8)
        rng.choice(_CHANGES)(rng, data, rng.choice(corpus))
    return bytes(data)
