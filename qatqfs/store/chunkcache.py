"""The decoded-chunk cache: one LRU for all files, bounded in bytes, one decode per chunk however many wait."""

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future

from cachetools import LRUCache

from qatqfs.store.bufferpool import BufferPool
from qatqfs.store.stats import Statistics

Chunk = memoryview | bytes

_KEPT_FOR_LATER_BYTES = 32 << 20
"""Memory of dropped chunks that is kept for the next ones: more than is ever being decoded at once."""


class _Chunks(LRUCache[Hashable, Chunk]):
    """Gives the memory of what it drops back to the pool."""

    def __init__(self, max_bytes: int, pool: BufferPool) -> None:
        super().__init__(max_bytes, getsizeof=len)
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
        max_bytes: bound of all kept chunks together.
        statistics: counts hits and misses.

    Attributes:
        pool: memory to decode into.
    """

    def __init__(self, max_bytes: int, statistics: Statistics) -> None:
        self.pool = BufferPool(_KEPT_FOR_LATER_BYTES)
        self._lock = threading.Lock()
        self._chunks = _Chunks(max_bytes, self.pool)
        self._decoding: dict[Hashable, Future[Chunk]] = {}
        self._statistics = statistics

    @property
    def current_bytes(self) -> int:
        """Bytes of decoded chunks held now."""
        return int(self._chunks.currsize)

    def peek(self, key: Hashable) -> Chunk | None:
        """Return a chunk if it is there, without waiting for one under way."""
        with self._lock:
            return self._chunks.get(key)

    def claim(self, keys: Sequence[Hashable]) -> list[bool]:
        """Take on the decoding of those chunks that are neither there nor being decoded.

        Returns:
            For each key whether it is the caller's now, who has to :meth:`settle` it whatever happens.
        """
        with self._lock:
            mine = [key not in self._chunks and key not in self._decoding for key in keys]
            for key, claimed in zip(keys, mine, strict=True):
                if claimed:
                    self._decoding[key] = Future()
        self._statistics.add("cache_misses", sum(mine))
        return mine

    def settle(self, key: Hashable, found: Chunk | BaseException) -> None:
        """Hand over a chunk that was claimed, or the error for all who wait for it."""
        with self._lock:
            future = self._decoding.pop(key)
            if not isinstance(found, BaseException) and len(found) <= self._chunks.maxsize:
                self._chunks[key] = found
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)

    def get(self, key: Hashable, decode: Callable[[], Chunk]) -> Chunk:
        """Return a chunk, decoding it if nobody has; raises what ``decode`` raised, for all who waited."""
        while True:
            with self._lock:
                chunk = self._chunks.get(key)
                future = self._decoding.get(key)
            if chunk is not None:
                self._statistics.add("cache_hits")
                return chunk
            if future is not None:
                try:
                    return future.result()
                finally:
                    del future  # an error refers to this frame: without the cycle nothing keeps the file open
            if self.claim([key])[0]:
                break
        try:
            chunk = decode()
        except BaseException as err:
            self.settle(key, err)
            raise
        self.settle(key, chunk)
        return chunk
