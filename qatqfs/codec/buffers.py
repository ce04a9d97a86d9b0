"""Types of the buffers in the codec, and scratch memory that each thread keeps.

Fresh memory costs more than decoding, because every page of a new block faults. So each thread keeps blocks of up to
4 MiB each for temporary planes. Larger blocks are allocated each time.
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
"""Largest scratch block that a thread keeps: 16 chunks of the default 256 KiB."""


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
        TypeError: if the buffer is not contiguous, or its format says that its items are big-endian.
    """
    view = memoryview(data)
    if not view.c_contiguous:
        raise TypeError("a contiguous buffer is needed")
    if view.format == "B" and view.ndim == 1:
        return view
    if view.format is not None and view.format[:1] in (">", "!") and view.itemsize > 1:
        raise TypeError("the values are big-endian; little-endian ones are needed")
    return view.cast("B") if view.nbytes else memoryview(b"")
