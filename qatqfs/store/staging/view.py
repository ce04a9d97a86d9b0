"""Where each byte of a dirty file is: in the entry's data file, in the base, or nowhere because it is zero.

A chunk is ``chunk_size`` bytes of the logical file. There are three kinds of chunk:

* **held**: the data file has its bytes.
* **from the base**: it is not held, and the base has content for it. Its bytes are the base's, followed by zeros.
* neither: the base has nothing there, because the chunk lies after its end or after the lowest size since. It reads
  as zeros.

:class:`ChunkMap` is pure arithmetic on these kinds. :class:`View` puts a map and its base together and reads them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.system.files import Fd, pread_exact


def chunks_of(size: int, chunk_size: int) -> int:
    """Return how many chunks a size takes."""
    return -(-size // chunk_size)


class ChunkMap:
    """The chunk map of one staging entry.

    The node's content lock protects changes. Readers may look at any time. The map takes one byte for each chunk up
    to the last one held, so its size does not depend on the order of writes.

    Args:
        chunk_size: bytes of a chunk.
        base_length: bytes of content that the base has.
        held: chunks held at first, a byte each.

    Attributes:
        chunk_size: see above.
        base_length: bytes that the base still contributes: its length, or the lowest size since.
        base_chunks: number of chunks that have any of these bytes.
    """

    __slots__ = ("_count", "_held", "base_chunks", "base_length", "chunk_size")

    def __init__(self, chunk_size: int, base_length: int, held: bytes = b"") -> None:
        self.chunk_size = chunk_size
        self.base_length = base_length
        self.base_chunks = chunks_of(base_length, chunk_size)
        self._held = bytearray(held)
        self._count = self._held.count(1)

    def copy(self) -> "ChunkMap":
        """Return an independent copy."""
        return ChunkMap(self.chunk_size, self.base_length, bytes(self._held))

    def holds(self, chunk: int) -> bool:
        """Whether the data file has a chunk."""
        return chunk < len(self._held) and self._held[chunk] == 1

    def is_from_base(self, chunk: int) -> bool:
        """Whether a chunk's bytes are the base's."""
        return chunk < self.base_chunks and not self.holds(chunk)

    def any_from_base(self, first: int, stop: int) -> bool:
        """Whether the bytes of any of the chunks ``first`` to ``stop - 1`` are the base's."""
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
        """Note that the file was cut to a size: no chunk after it is held or from the base any more."""
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
        """Return how many bytes of a file of this size are in held chunks, counting so many more chunks as held.

        The last chunk counts in full, up to the size of the file.
        """
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
        """Split a byte range into ``(start, stop, from_base)``: from the base, or from the data file."""
        while offset < stop:
            chunk = offset // self.chunk_size
            from_base = self.is_from_base(chunk)
            end = (chunk + 1) * self.chunk_size
            while end < stop and self.is_from_base(end // self.chunk_size) == from_base:
                end += self.chunk_size
            end = min(end, stop)
            yield offset, end, from_base
            offset = end


@dataclass(frozen=True, slots=True)
class View:
    """A chunk map and the container that it maps, which change together.

    Attributes:
        chunks: which chunks the data file holds.
        base: the container; ``None`` when there is none, and then no chunk is from the base.
    """

    chunks: ChunkMap
    base: ContainerFile | None

    def read(self, data: Fd, offset: int, size: int) -> bytes:
        """Return the bytes of a range that lies in the file.

        The result is shorter only when the file was cut meanwhile.

        Raises:
            OSError: EIO when content of the base is damaged, or what reading reported.
        """
        chunks = self.chunks
        if not chunks.any_from_base(offset // chunks.chunk_size, chunks_of(offset + size, chunks.chunk_size)):
            return pread_exact(data.number, size, offset)
        parts = []
        for start, stop, from_base in chunks.pieces(offset, offset + size):
            if from_base:
                parts.append(self.read_base(start, stop, keep=True))
                continue
            part = pread_exact(data.number, stop - start, start)
            parts.append(part)
            if len(part) < stop - start:
                break
        return b"".join(parts)

    def read_base(self, start: int, stop: int, *, keep: bool = False) -> bytes:
        """Return the base's bytes in a range, zeros where it has none.

        Args:
            start: offset in the content in bytes.
            stop: where the range ends.
            keep: keep decoded chunks in the cache, for the next reader.

        Raises:
            OSError: EIO when the bytes are damaged, or what reading reported.
        """
        end = min(stop, self.chunks.base_length)
        if self.base is None or start >= end:
            return bytes(stop - start)
        found = (self.base.read if keep else self.base.read_uncached)(start, end - start)
        return bytes(found) + bytes(stop - end) if stop > end or not isinstance(found, bytes) else found


def data_ranges(fd: Fd, size: int) -> list[tuple[int, int]]:
    """Return the ranges of a file, in bytes, that are not holes."""
    found = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd.number, position, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        position = os.lseek(fd.number, start, os.SEEK_HOLE)
        found.append((start, min(position, size)))
    return found
