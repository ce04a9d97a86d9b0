"""FNV-1a 64, the checksum of payloads and containers (format section 1.3)."""

from collections.abc import Sequence

from qatqfs.codec import _native
from qatqfs.codec.buffers import Buffer

FNV_OFFSET = 0xCBF29CE484222325
"""The state before the first byte, which is also the checksum of no bytes."""


HASHED_TOGETHER = 4
"""Number of buffers that :func:`fnv1a64_many` hashes in one loop."""


def fnv1a64(data: Buffer, state: int = FNV_OFFSET) -> int:
    """Return the 64-bit state after ``data``, starting from ``state``; releases the GIL for long buffers."""
    return _native.fnv1a64(data, state)


def fnv1a64_many(buffers: Sequence[Buffer]) -> list[int]:
    """Return the checksum of each buffer, four at a time in one loop without the GIL."""
    return _native.fnv1a64_many(buffers)


def fnv1a64_chain(buffers: Sequence[Buffer], state: int) -> list[int]:
    """Return the state after each of several consecutive buffers, in one call without the GIL."""
    return _native.fnv1a64_chain(buffers, state)


def fnv1a64_plain(data: Buffer) -> int:
    """Return the same as :func:`fnv1a64` by a plain loop, which is slow but too simple to go wrong."""
    return _native.fnv1a64_plain(data)


def hashes_alone() -> bool:
    """Return whether hashing one buffer is as fast on this machine as each of several in :func:`fnv1a64_many`."""
    return _native.hashes_alone()
