"""Staged content as it is read: some chunks from a data file, the rest from the container below."""

import os
from dataclasses import dataclass

from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.staging.chunkmap import ChunkMap, chunks_of
from qatqfs.store.system.fd import Fd, pread_exact


@dataclass(frozen=True, slots=True)
class View:
    """A chunk map and the container it is a map over.

    Attributes:
        chunks: which chunks the data file holds.
        base: the container below, ``None`` when there is none (then nothing is below).
    """

    chunks: ChunkMap
    base: ContainerFile | None

    def read(self, data: Fd, offset: int, size: int) -> bytes:
        """Return the bytes of a range, all of which lies in the file.

        Shorter only when the file was cut meanwhile.

        Raises:
            OSError: EIO when content of the base is corrupt, or what reading reported.
        """
        chunks = self.chunks
        if not chunks.any_below(offset // chunks.chunk_size, chunks_of(offset + size, chunks.chunk_size)):
            return pread_exact(data.number, size, offset)
        parts = []
        for start, stop, below in chunks.pieces(offset, offset + size):
            if below:
                parts.append(self.read_base(start, stop, keep=True))
                continue
            part = pread_exact(data.number, stop - start, start)
            parts.append(part)
            if len(part) < stop - start:
                break
        return b"".join(parts)

    def read_base(self, start: int, stop: int, *, keep: bool = False) -> bytes:
        """Return the bytes of the base in a range, zeros where it has none.

        Args:
            start: offset in the content in bytes.
            stop: where the range ends.
            keep: keep what is decoded in the cache, for the next reader.

        Raises:
            OSError: EIO when they are corrupt, or what reading reported.
        """
        end = min(stop, self.chunks.base_length)
        if self.base is None or start >= end:
            return bytes(stop - start)
        found = (self.base.read if keep else self.base.read_uncached)(start, end - start)
        return bytes(found) + bytes(stop - end) if stop > end or not isinstance(found, bytes) else found


def data_ranges(fd: Fd, size: int) -> list[tuple[int, int]]:
    """Return the ranges of a file that are no holes, in bytes."""
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
