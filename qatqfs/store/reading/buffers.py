"""Memory for decoded chunks that is used again: faulting in fresh pages costs more than decoding into them.

A block is a bytearray, and what is handed out are views of it. Readers keep slices of a chunk for as long as they
like, also after the cache has dropped it; so a block that comes back is not free yet. Whether it is, the interpreter
knows exactly: a bytearray refuses to change its length while any view of it exists.
"""

import threading
from collections import OrderedDict, deque

_PAGE_BYTES = 4096
_SMALL_GRANULE_BYTES = 64
"""Blocks below a page are multiples of it, so that a chunk of two bytes does not take a page."""
_LOOKED_AT = 8
"""Blocks that may still be in use are looked at before a new one is made."""


def _is_free(block: bytearray) -> bool:
    try:
        block.pop()
    except BufferError:
        return False
    block.append(0)  # within what is allocated: nothing is moved
    return True


def block_size(size: int) -> int:
    """Return the bytes of the block that ``size`` bytes are given."""
    granule = _PAGE_BYTES if size >= _PAGE_BYTES else _SMALL_GRANULE_BYTES
    return max(-(-size // granule), 1) * granule


class BufferPool:
    """Blocks of memory by size. Safe for any number of threads.

    Args:
        max_bytes: how much to keep for later; more than that is left to the system.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # Protected by the lock: blocks that came back, by length, the last length at the end; their bytes together.
        self._back: OrderedDict[int, deque[bytearray]] = OrderedDict()
        self._back_bytes = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes of the blocks that came back and are not in use again, as far as is known."""
        return self._back_bytes

    def take(self, size: int) -> memoryview:
        """Return ``size`` writable bytes of undefined content."""
        length = block_size(size)
        with self._lock:
            waiting = self._back.get(length)
            for _ in range(min(len(waiting), _LOOKED_AT) if waiting else 0):
                assert waiting is not None
                block = waiting.popleft()
                if _is_free(block):
                    self._forget(length, waiting)
                    return memoryview(block)[:size]
                waiting.append(block)
        return memoryview(bytearray(length))[:size]

    def give_back(self, view: memoryview) -> None:
        """Take back what :meth:`take` returned; anybody may still hold slices of it."""
        block = view.obj
        if not isinstance(block, bytearray) or len(block) > self._max_bytes:
            return
        with self._lock:
            self._back.setdefault(len(block), deque()).append(block)
            self._back.move_to_end(len(block))
            self._back_bytes += len(block)
            while self._back_bytes > self._max_bytes:
                self._drop_one()

    def _drop_one(self) -> None:
        """Leave a block to the system, of the length that came back least recently; lock held."""
        length, waiting = next(iter(self._back.items()))
        waiting.popleft()
        self._forget(length, waiting)

    def _forget(self, length: int, waiting: deque[bytearray]) -> None:
        """Note that a block was taken out of those that wait; lock held."""
        self._back_bytes -= length
        if not waiting:
            del self._back[length]
