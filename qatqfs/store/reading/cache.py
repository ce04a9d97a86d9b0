"""The cache of decoded chunks, and the memory that they are decoded into.

The cache is one LRU for all files, bounded in bytes. A chunk is decoded once, however many readers wait for it.

Its memory is used again, because faulting in fresh pages costs more than decoding into them. A block of memory is a
bytearray, and readers get views of it. A reader keeps a slice of a chunk as long as it likes, also after the cache has
dropped the chunk; so a block that comes back may still be in use. The interpreter knows whether it is: a bytearray
refuses to change its length while any view of it exists.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from cachetools import LRUCache

from qatqfs.store.counters import Counters

K = TypeVar("K", bound=Hashable)

Chunk = memoryview | bytes

_PAGE_BYTES = 4096
_SMALL_GRANULE_BYTES = 64
"""Blocks below a page are multiples of this, so that a chunk of two bytes does not take a page."""
_LOOKED_AT = 8
"""Blocks that are tested before a new one is made: those that came back first may all be in use."""
_SPARE_BYTES = 8 << 20
"""Memory of dropped chunks that is kept for the next ones. A full cache drops a chunk for each that it takes."""
_ENTRY_BYTES = 1024
"""Memory that a chunk takes beside its bytes: its key, its views, its places in three dictionaries."""


# -- memory --------------------------------------------------------------------------------------------


def _is_free(block: bytearray) -> bool:
    try:
        block.pop()
    except BufferError:
        return False
    block.append(0)  # stays within what is allocated, so nothing is moved
    return True


def block_size(size: int) -> int:
    """Return the length of the block that holds ``size`` bytes."""
    granule = _PAGE_BYTES if size >= _PAGE_BYTES else _SMALL_GRANULE_BYTES
    return max(-(-size // granule), 1) * granule


class BufferPool:
    """Blocks of memory by size. Safe for any number of threads.

    Args:
        max_bytes: memory to keep for later; what comes back beyond that is left to the system.
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
        """Take back what :meth:`take` returned; readers may still hold slices of it."""
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


# -- chunks --------------------------------------------------------------------------------------------


def allocated_bytes(chunk: Chunk) -> int:
    """Return the memory that a kept chunk takes in bytes: its whole block, and its place in the cache."""
    block = memoryview(chunk.obj) if isinstance(chunk, memoryview) else chunk
    return len(block) + _ENTRY_BYTES


class _Chunks(LRUCache[Hashable, Chunk]):
    """Gives the memory of dropped chunks back to the pool."""

    def __init__(self, max_bytes: int, pool: BufferPool) -> None:
        super().__init__(max_bytes, getsizeof=allocated_bytes)
        self._pool = pool

    def popitem(self) -> tuple[Hashable, Chunk]:
        key, chunk = super().popitem()
        if isinstance(chunk, memoryview):
            self._pool.give_back(chunk)
        return key, chunk


class ChunkCache:
    """Maps a chunk's key to its decoded, verified bytes.

    Safe for any number of threads: one lock protects the LRU and the table of claims, and is never held during a
    decode. A chunk that is larger than the whole cache is returned but not kept.

    A thread claims a chunk, decodes it, and settles the claim with the bytes or with an error. Other threads that want
    the chunk wait for that. A claim that is abandoned wakes them up as well, and each of them decodes the chunk itself.

    Args:
        max_bytes: bound of all kept chunks together, as :func:`allocated_bytes` counts them.
        counters: counts hits and misses.

    Attributes:
        pool: memory to decode into.
    """

    def __init__(self, max_bytes: int, counters: Counters) -> None:
        self.pool = BufferPool(_SPARE_BYTES)
        self._lock = threading.Lock()
        self._chunks = _Chunks(max_bytes, self.pool)
        self._claims: dict[Hashable, Future[Chunk | None]] = {}  # the result None: the claim was abandoned
        self._counters = counters

    @property
    def current_bytes(self) -> int:
        """Bytes that decoded chunks take now."""
        return int(self._chunks.currsize)

    def peek(self, key: Hashable) -> Chunk | None:
        """Return a chunk that is in the cache, without waiting for one that is being decoded."""
        with self._lock:
            return self._chunks.get(key)

    @contextmanager
    def claimed(self, keys: Sequence[K]) -> Iterator[list[K]]:
        """Claim those chunks that are neither in the cache nor being decoded.

        However the block ends, no thread waits for its chunks afterwards: claims that it has not settled are abandoned.

        Yields:
            The keys that the caller has claimed, to :meth:`settle`.
        """
        mine: dict[K, Future[Chunk | None]] = {}
        try:
            with self._lock:
                for key in keys:
                    if key not in self._chunks and key not in self._claims:
                        mine[key] = Future()
                        self._claims[key] = mine[key]
            self._counters.add("cache_misses", len(mine))
            yield list(mine)
        finally:
            self._abandon_unsettled(mine)

    def _abandon_unsettled(self, claims: "dict[K, Future[Chunk | None]]") -> None:
        """Empty a table of claims. A settled error refers to the frame that has the table, and would live for ever."""
        while claims:
            key, future = claims.popitem()
            if future.done():
                continue
            with self._lock:
                if self._claims.get(key) is future:
                    del self._claims[key]
            future.set_result(None)

    def settle(self, key: Hashable, found: Chunk | OSError) -> None:
        """Hand over a chunk that was claimed, or the error for all threads that wait for it."""
        with self._lock:
            if not isinstance(found, OSError) and allocated_bytes(found) <= self._chunks.maxsize:
                self._chunks[key] = found
            future = self._claims.pop(key)
        if isinstance(found, OSError):
            future.set_exception(found)
        else:
            future.set_result(found)

    def get(self, key: Hashable, decode: Callable[[], Chunk]) -> Chunk:
        """Return a chunk, decoding it unless it is in the cache or another thread decodes it.

        Raises:
            OSError: what ``decode`` raised, in all threads that waited.
            BaseException: anything else that it raised, in the thread that called it alone.
        """
        while True:
            with self._lock:
                chunk = self._chunks.get(key)
                future = self._claims.get(key)
            if chunk is not None:
                self._counters.add("cache_hits")
                return chunk
            if future is None:
                with self.claimed([key]) as mine:
                    if mine:
                        return self._decode(key, decode)
                continue
            try:
                found = future.result()
            finally:
                del future  # an error refers to this frame; without the cycle the file is closed at once
            if found is not None:
                return found

    def _decode(self, key: Hashable, decode: Callable[[], Chunk]) -> Chunk:
        try:
            chunk = decode()
        except OSError as err:
            self.settle(key, err)
            raise
        self.settle(key, chunk)
        return chunk
