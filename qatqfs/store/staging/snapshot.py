"""The content of a dirty file at one moment, for a commit to encode while writers go on.

Nothing is copied in advance. Before a writer changes a chunk that the commit has not read yet, it saves the chunk in
a file aside. After the commit has read a chunk, it checks whether the chunk was saved meanwhile, and takes the saved
one if so. So neither waits for the other, and a container is always the content of one moment.

Growing needs nothing saved, because the snapshot ends where the file ended. Shrinking cancels the snapshot.
"""

import errno
from collections.abc import Callable

from qatqfs.store.staging.view import ChunkMap, View, chunks_of
from qatqfs.store.system.files import Fd, pread_exact
from qatqfs.wording import describe


class SnapshotLost(OSError):
    """The content of a snapshot is no longer available."""


class Snapshot:
    """The content of an entry at one moment.

    Writers call with the node's content lock held. Any number of threads may :meth:`read` without it. Both sides share
    flags, a byte for each chunk, which each side sets before the other relies on them.

    Args:
        view: of the entry.
        data: its data file.
        size: of the content in bytes.
        open_aside: creates the file aside when it is needed.

    Attributes:
        size: see above.
        changed: a map in which the chunks written to since are held.
        cancelled: the content is no longer available.
        why_cancelled: the error that is the reason, ``None`` if the file was cut.
    """

    def __init__(self, view: View, data: Fd, size: int, open_aside: "Callable[[], Aside]") -> None:
        self.size = size
        self.changed = ChunkMap(view.chunks.chunk_size, 0)
        self.cancelled = False
        self.why_cancelled: str | None = None
        self._view = View(view.chunks.copy(), view.base)
        self._data = data
        self._open_aside = open_aside
        self._aside: Aside | None = None
        self._count = chunks_of(size, view.chunks.chunk_size)
        self._read_already = bytearray(self._count)
        self._saved = bytearray(self._count)

    @property
    def chunk_size(self) -> int:
        """Bytes of a chunk."""
        return self._view.chunks.chunk_size

    @property
    def view(self) -> View:
        """The chunk map and the base as they were."""
        return self._view

    def is_unmodified(self, chunk: int) -> bool:
        """Whether a chunk is the base's, byte for byte and in length."""
        chunks = self._view.chunks
        stop = min((chunk + 1) * chunks.chunk_size, self.size)
        base = self._view.base
        if base is None or not chunks.is_from_base(chunk) or stop > chunks.base_length:
            return False
        return stop == min((chunk + 1) * chunks.chunk_size, base.length)

    def is_hole(self, chunk: int) -> bool:
        """Whether a chunk is in neither the data file nor the base, so that it is zeros."""
        return not self._view.chunks.holds(chunk) and not self._view.chunks.is_from_base(chunk)

    def concerns(self, first: int, stop: int) -> bool:
        """Whether a change of chunks has to save any of them first; content lock held."""
        return any(self._has_to_save(chunk) for chunk in range(first, min(stop, self._count)))

    def _has_to_save(self, chunk: int) -> bool:
        return not (self._read_already[chunk] or self._saved[chunk]) and self._view.chunks.holds(chunk)

    def before_change(self, first: int, stop: int, offset: int) -> None:
        """Note that chunks are about to be written to from a byte offset on; content lock held."""
        stop = min(stop, self._count)
        if first >= stop:
            return
        if offset < self.size and not self.cancelled:
            try:
                for chunk in range(first, stop):
                    if self._has_to_save(chunk):
                        self._save(chunk)
            except OSError as err:  # the commit suffers from it, not the writer
                self.why_cancelled = describe(err)
                self.cancelled = True
        self.changed.hold(first, stop)

    def _save(self, chunk: int) -> None:
        start = chunk * self.chunk_size
        content = pread_exact(self._data.number, min(self.chunk_size, self.size - start), start)
        if self._aside is None:
            self._aside = self._open_aside()
        self._aside.write(content, start)
        self._saved[chunk] = 1

    def read(self, start: int, stop: int, *, final: bool = True) -> memoryview:
        """Return the bytes of a range of the snapshot.

        Args:
            start: offset in bytes.
            stop: where the range ends, in the snapshot.
            final: the range is not read again, so it need not be saved any more.

        Raises:
            OSError: EIO when content of the base is damaged, or what reading reported.
            SnapshotLost: the file was cut.
        """
        chunk_size = self.chunk_size
        first, end = start // chunk_size, chunks_of(stop, chunk_size)
        if self._view.chunks.all_held(first, end):
            found = memoryview(pread_exact(self._data.number, stop - start, start))
            if any(self._saved[first:end]):
                found = self._replace_saved(found, start, stop)
        else:
            found = self._read_pieces(start, stop)
        if len(found) != stop - start:
            raise SnapshotLost("the file was cut")
        for chunk in range(chunks_of(start, chunk_size), end if final else 0):
            if (chunk + 1) * chunk_size <= stop or stop == self.size:
                self._read_already[chunk] = 1
        return found

    def _read_pieces(self, start: int, stop: int) -> memoryview:
        chunks = self._view.chunks
        parts: list[bytes | memoryview] = []
        for chunk in range(start // chunks.chunk_size, chunks_of(stop, chunks.chunk_size)):
            begin, end = max(start, chunk * chunks.chunk_size), min(stop, (chunk + 1) * chunks.chunk_size)
            if chunks.is_from_base(chunk):
                parts.append(self._view.read_base(begin, end))
            elif chunks.holds(chunk):
                part = memoryview(pread_exact(self._data.number, end - begin, begin))
                parts.append(self._replace_saved(part, begin, end) if self._saved[chunk] else part)
            else:
                parts.append(bytes(end - begin))
        return memoryview(b"".join(parts))

    def _replace_saved(self, found: memoryview, start: int, stop: int) -> memoryview:
        """Replace chunks that may have changed while they were read by the saved ones."""
        assert self._aside is not None
        content = bytearray(stop - start)
        content[: len(found)] = found
        for chunk in range(start // self.chunk_size, chunks_of(stop, self.chunk_size)):
            if self._saved[chunk]:
                begin, end = max(start, chunk * self.chunk_size), min(stop, (chunk + 1) * self.chunk_size)
                content[begin - start : end - start] = self._aside.read(begin, end)
        return memoryview(content)


class Aside:
    """The file aside, which holds saved chunks.

    Args:
        fd: open for reading and writing, empty.
        write: writes a buffer to it at an offset and returns how much of it was written, or raises OSError.
    """

    def __init__(self, fd: Fd, write: Callable[[Fd, bytes, int], int]) -> None:
        self._fd = fd
        self._write = write

    def write(self, content: bytes, offset: int) -> None:
        """Write all of a buffer; raises OSError, ENOSPC when only a part could be written."""
        done = self._write(self._fd, content, offset)
        if done != len(content):
            raise OSError(errno.ENOSPC, "no space for what a commit has still to read")

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range; raises OSError."""
        return pread_exact(self._fd.number, stop - start, start)
