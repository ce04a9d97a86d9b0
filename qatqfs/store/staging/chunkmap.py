"""Which chunks of a staged file its data file holds, and which are still those of the container below.

Pure arithmetic. A chunk here is ``chunk_size`` bytes of the logical file. Three kinds:

* **held**: the data file has its bytes;
* **below**: not held, and the base has content for it: its bytes are the base's, then zeros;
* neither: it lies where the base has nothing (behind its end, or behind the lowest size since): zeros.

The map takes a byte for each chunk up to the last one held, so its size does not depend on what is written.
"""

from collections.abc import Iterator

OPEN_END = 1 << 62
"""Count of a VALID record that covers every chunk from its first on."""


def chunks_of(size: int, chunk_size: int) -> int:
    """Return how many chunks a size takes."""
    return -(-size // chunk_size)


class ChunkMap:
    """The map of one staging entry; the inode's content lock protects changes, readers may look at any time.

    Args:
        chunk_size: bytes of a chunk.
        base_length: bytes of content that the base has.
        held: chunks held at first, a byte each.

    Attributes:
        chunk_size: see above.
        base_length: bytes that the base still contributes: its length, or the lowest size since.
        base_chunks: chunks that have any of them.
    """

    __slots__ = ("_count", "_held", "base_chunks", "base_length", "chunk_size")

    def __init__(self, chunk_size: int, base_length: int, held: bytes = b"") -> None:
        self.chunk_size = chunk_size
        self.base_length = base_length
        self.base_chunks = chunks_of(base_length, chunk_size)
        self._held = bytearray(held)
        self._count = self._held.count(1)

    def copy(self) -> "ChunkMap":
        """Return a map of its own that is the same now."""
        return ChunkMap(self.chunk_size, self.base_length, bytes(self._held))

    def holds(self, chunk: int) -> bool:
        """Whether the data file has a chunk."""
        return chunk < len(self._held) and self._held[chunk] == 1

    def is_from_base(self, chunk: int) -> bool:
        """Whether a chunk's bytes are the base's."""
        return chunk < self.base_chunks and not self.holds(chunk)

    def any_from_base(self, first: int, stop: int) -> bool:
        """Whether any of the chunks ``first`` to ``stop - 1`` is below."""
        stop = min(stop, self.base_chunks)
        return first < stop and self.missing(first, stop) > 0

    def all_held(self, first: int, stop: int) -> bool:
        """Whether every one of the chunks ``first`` to ``stop - 1`` is held."""
        return self.missing(first, stop) == 0

    def hold(self, first: int, stop: int) -> None:
        """Note that the data file has the chunks ``first`` to ``stop - 1``."""
        if stop > len(self._held):
            self._held.extend(bytes(stop - len(self._held)))
        self._count += self.missing(first, stop)
        self._held[first:stop] = b"\1" * (stop - first)

    def cut(self, size: int) -> None:
        """Note that the file was cut to a size: nothing behind it is held or below any more."""
        if size < self.base_length:
            self.base_length = size
            self.base_chunks = chunks_of(size, self.chunk_size)
        stop = chunks_of(size, self.chunk_size)
        if stop < len(self._held):
            del self._held[stop:]
            self._count = self._held.count(1)

    def missing(self, first: int, stop: int) -> int:
        """Return how many of the chunks ``first`` to ``stop - 1`` are not held."""
        return stop - first - self._held.count(1, first, stop)

    def held_bytes(self, size: int, more: int = 0) -> int:
        """Return the bytes of a file of this size that are in held chunks, and in so many more, or a little less."""
        return min((self._count + more) * self.chunk_size, size)

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of held chunks among ``first`` to ``stop - 1``."""
        while first < stop:
            start = self._held.find(1, first, stop)
            if start < 0:
                return
            end = self._held.find(0, start, stop)
            first = end if end >= 0 else min(stop, len(self._held))
            yield start, first

    def runs_from_base(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges of chunks whose bytes are the base's."""
        chunk = 0
        for first, stop in (*self.runs(0, self.base_chunks), (self.base_chunks, self.base_chunks)):
            if chunk < first:
                yield chunk, first
            chunk = stop

    def pieces(self, offset: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Split a byte range into ``(start, stop, below)``: from the base, or from the data file."""
        while offset < stop:
            chunk = offset // self.chunk_size
            below = self.is_from_base(chunk)
            end = (chunk + 1) * self.chunk_size
            while end < stop and self.is_from_base(end // self.chunk_size) == below:
                end += self.chunk_size
            end = min(end, stop)
            yield offset, end, below
            offset = end
