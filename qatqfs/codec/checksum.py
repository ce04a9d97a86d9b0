"""FNV-1a 64, the checksum of payloads and containers (format section 1.3)."""

from collections.abc import Sequence

from qatqfs.codec import _native
from qatqfs.codec.buffers import Buffer

FNV_OFFSET = 0xCBF29CE484222325
"""The state before the first byte, and so the checksum of nothing."""


HASHED_TOGETHER = 4
"""Buffers that :func:`fnv1a64_many` takes into one loop."""


def fnv1a64(data: Buffer, state: int = FNV_OFFSET) -> int:
    """Return the 64-bit state after ``data``, going on from ``state``; releases the GIL for long buffers."""
    return _native.fnv1a64(data, state)


def fnv1a64_many(buffers: Sequence[Buffer]) -> list[int]:
    """Return the checksum of each buffer, four at a time in one loop without the GIL."""
    return _native.fnv1a64_many(buffers)


def fnv1a64_chain(buffers: Sequence[Buffer], state: int) -> list[int]:
    """Return the state behind each of several buffers that follow one another, in one call without the GIL."""
    return _native.fnv1a64_chain(buffers, state)


def fnv1a64_plain(data: Buffer) -> int:
    """Return what :func:`fnv1a64` does, by the plain loop: slowly, and with nothing that could go wrong."""
    return _native.fnv1a64_plain(data)


def hashes_alone() -> bool:
    """Return whether one buffer is hashed no slower here than each of several in :func:`fnv1a64_many`."""
    return _native.hashes_alone()
