"""Types of the buffers that go through the codec, and scratch memory that each thread keeps.

Fresh memory costs more than decoding does (every page of a new block faults), so temporary planes live in one
block per thread, which is kept up to a few MiB and made for the occasion above that.
"""

import threading
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Anything contiguous that holds bytes."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
"""A flat array of bytes."""

KEPT_BYTES = 4 << 20
"""Largest scratch block that a thread keeps: 16 chunks of the usual 256 KiB."""


class _Blocks(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Bytes] = {}


_blocks = _Blocks()


def scratch(name: str, size: int) -> Bytes:
    """Return ``size`` bytes of undefined content, valid until this thread asks for the same name again."""
    if size > KEPT_BYTES:
        return np.empty(size, np.uint8)
    block = _blocks.by_name.get(name)
    if block is None or len(block) < size:
        block = _blocks.by_name[name] = np.empty(max(size, 1 << 16), np.uint8)
    return block[:size]


def as_bytes(data: Buffer) -> memoryview:
    """Return a flat view of bytes over any contiguous buffer, without copying.

    Raises:
        TypeError: when the buffer is not contiguous.
    """
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
