"""The decoded-chunk cache: one LRU for all files, bounded in bytes, one decode per chunk however many wait."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from cachetools import LRUCache

from qatqfs.store.stats import Statistics

Chunk = memoryview | bytes


class ChunkCache:
    """Maps a chunk's key to its decoded, verified bytes.

    Safe for any number of threads: one lock guards the LRU and the table of decodes under way, and is never
    held during a decode. A chunk that is larger than the whole cache is returned but not kept.

    Args:
        max_bytes: bound of all kept chunks together.
        statistics: counts hits and misses.
    """

    def __init__(self, max_bytes: int, statistics: Statistics) -> None:
        self._lock = threading.Lock()
        self._chunks: LRUCache[Hashable, Chunk] = LRUCache(max_bytes, getsizeof=len)
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

    def wanted(self, key: Hashable) -> bool:
        """Whether a chunk is neither there nor being decoded."""
        with self._lock:
            return key not in self._chunks and key not in self._decoding

    def get(self, key: Hashable, decode: Callable[[], Chunk]) -> Chunk:
        """Return a chunk, decoding it if nobody has; raises what ``decode`` raised, for all who waited."""
        with self._lock:
            found = self._chunks.get(key)
            if found is not None:
                self._statistics.add("cache_hits")
                return found
            future = self._decoding.get(key)
            mine = future is None
            if future is None:
                future = self._decoding[key] = Future()
        if not mine:
            return future.result()
        self._statistics.add("cache_misses")
        try:
            chunk = decode()
        except BaseException as err:
            with self._lock:
                del self._decoding[key]
            future.set_exception(err)
            raise
        with self._lock:
            del self._decoding[key]
            if len(chunk) <= self._chunks.maxsize:
                self._chunks[key] = chunk
        future.set_result(chunk)
        return chunk
