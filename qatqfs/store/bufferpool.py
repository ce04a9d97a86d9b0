"""Memory for decoded chunks that is used again: faulting in fresh pages costs more than decoding into them.

A block is a bytearray, and what is handed out are views of it. Readers keep slices of a chunk for as long as they
like, also after the cache has dropped it; so a block that comes back is not free yet. Whether it is, the interpreter
knows exactly: a bytearray refuses to change its length while any view of it exists.
"""

import threading
from collections import deque

_GRANULE_BYTES = 4096
_LOOKED_AT = 8
"""Blocks that may still be in use are looked at before a new one is made."""


def _is_free(block: bytearray) -> bool:
    try:
        block.pop()
    except BufferError:
        return False
    block.append(0)  # within what is allocated: nothing is moved
    return True


class BufferPool:
    """Blocks of memory by size. Safe for any number of threads.

    Args:
        max_bytes: how much to keep for later; more than that is left to the system.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # Protected by the lock: blocks that came back, by length, and their bytes together.
        self._back: dict[int, deque[bytearray]] = {}
        self._back_bytes = 0

    def take(self, size: int) -> memoryview:
        """Return ``size`` writable bytes of undefined content."""
        length = max(-(-size // _GRANULE_BYTES), 1) * _GRANULE_BYTES
        with self._lock:
            waiting = self._back.get(length)
            for _ in range(min(len(waiting), _LOOKED_AT) if waiting else 0):
                assert waiting is not None
                block = waiting.popleft()
                if _is_free(block):
                    self._back_bytes -= length
                    return memoryview(block)[:size]
                waiting.append(block)
        return memoryview(bytearray(length))[:size]

    def give_back(self, view: memoryview) -> None:
        """Take back what :meth:`take` returned; anybody may still hold slices of it."""
        block = view.obj
        if not isinstance(block, bytearray):
            return
        with self._lock:
            if self._back_bytes + len(block) <= self._max_bytes:
                self._back_bytes += len(block)
                self._back.setdefault(len(block), deque()).append(block)
