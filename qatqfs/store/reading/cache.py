"""The decoded-chunk cache: one LRU for all files, bounded in bytes, one decode per chunk however many wait."""

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from cachetools import LRUCache

from qatqfs.store.counters import Counters
from qatqfs.store.reading.buffers import BufferPool

K = TypeVar("K", bound=Hashable)

Chunk = memoryview | bytes

_KEPT_FOR_LATER_BYTES = 8 << 20
"""Memory of dropped chunks that is kept for the next ones: each chunk that comes drives out one that goes."""
_ENTRY_BYTES = 1024
"""What one chunk takes beside its bytes: its key, its views, its places in three dictionaries."""


def allocated_bytes(chunk: Chunk) -> int:
    """Return the memory that a kept chunk takes in bytes, all that belongs to it included."""
    block = memoryview(chunk.obj) if isinstance(chunk, memoryview) else chunk
    return len(block) + _ENTRY_BYTES


class _Chunks(LRUCache[Hashable, Chunk]):
    """Gives the memory of what it drops back to the pool."""

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

    Safe for any number of threads: one lock guards the LRU and the table of decodes under way, and is never
    held during a decode. A chunk that is larger than the whole cache is returned but not kept.

    Args:
        max_bytes: bound of all kept chunks together, with what belongs to them.
        counters: counts hits and misses.

    Attributes:
        pool: memory to decode into.
    """

    def __init__(self, max_bytes: int, counters: Counters) -> None:
        self.pool = BufferPool(_KEPT_FOR_LATER_BYTES)
        self._lock = threading.Lock()
        self._chunks = _Chunks(max_bytes, self.pool)
        self._decoding: dict[Hashable, Future[Chunk | None]] = {}  # None: given up, whoever waits decodes it
        self._counters = counters

    @property
    def current_bytes(self) -> int:
        """Bytes that decoded chunks take now."""
        return int(self._chunks.currsize)

    def peek(self, key: Hashable) -> Chunk | None:
        """Return a chunk if it is there, without waiting for one under way."""
        with self._lock:
            return self._chunks.get(key)

    @contextmanager
    def claimed(self, keys: Sequence[K]) -> Iterator[list[K]]:
        """Take on the decoding of those chunks that are neither there nor being decoded.

        However the block ends, nobody waits for its chunks any more: those that it has not settled are given up,
        and each reader that waits for one decodes it himself.

        Yields:
            The keys that are the caller's, to :meth:`settle`.
        """
        mine: dict[K, Future[Chunk | None]] = {}
        try:
            with self._lock:
                for key in keys:
                    if key not in self._chunks and key not in self._decoding:
                        mine[key] = Future()
                        self._decoding[key] = mine[key]
            self._counters.add("cache_misses", len(mine))
            yield list(mine)
        finally:
            self._abandon_unsettled(mine)

    def _abandon_unsettled(self, claims: "dict[K, Future[Chunk | None]]") -> None:
        """Empty a table of claims, lest a settled error live for ever: it refers to the frame that has the table."""
        while claims:
            key, future = claims.popitem()
            if future.done():
                continue
            with self._lock:
                if self._decoding.get(key) is future:
                    del self._decoding[key]
            future.set_result(None)

    def settle(self, key: Hashable, found: Chunk | OSError) -> None:
        """Hand over a chunk that was claimed, or the error for all who wait for it."""
        with self._lock:
            if not isinstance(found, OSError) and allocated_bytes(found) <= self._chunks.maxsize:
                self._chunks[key] = found
            future = self._decoding.pop(key)
        if isinstance(found, OSError):
            future.set_exception(found)
        else:
            future.set_result(found)

    def get(self, key: Hashable, decode: Callable[[], Chunk]) -> Chunk:
        """Return a chunk, decoding it if nobody has.

        Raises:
            OSError: what ``decode`` raised, for all who waited.
            BaseException: anything else that it raised, for its caller alone.
        """
        while True:
            with self._lock:
                chunk = self._chunks.get(key)
                future = self._decoding.get(key)
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
                del future  # an error refers to this frame: without the cycle nothing keeps the file open
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
