"""Write to an entry's data file, and note what it holds, in an order that a kill at any step cannot break.

The steps of a write are, in this order:

1. Each chunk of the base that the write changes in part is copied up and logged VALID.
2. The application's data is written.
3. The base's chunks that the write covers whole are logged VALID. Until then they are the base's.

So after a kill each chunk shows its old bytes or its new ones. The logical size and mtime are the data file's own, so
the log needs no record of each change.
"""

from qatqfs.store.staging.log import EntryLog
from qatqfs.store.staging.space import no_space
from qatqfs.store.staging.view import View, chunks_of
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd


class DataFile:
    """The data file of one entry, as writers see it. The node's content lock is held for every call.

    Args:
        io: makes the changes.
        fd: the file.
        log: of the entry.
    """

    def __init__(self, io: BackingIO, fd: Fd, log: EntryLog) -> None:
        self._io = io
        self._fd = fd
        self._log = log

    def write(self, view: View, size: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write bytes at a logical offset and note in map and log what is held now.

        Args:
            view: of the entry; its map changes.
            size: of the content in bytes before the write.
            data: at least one byte.
            offset: logical offset in bytes.

        Returns:
            The bytes written, which are fewer when the disk is full.

        Raises:
            OSError: EIO when content to be copied up is damaged, or what the disk reported.
        """
        chunks, end = view.chunks, offset + len(data)
        first, stop = offset // chunks.chunk_size, chunks_of(end, chunks.chunk_size)
        covered = self._copy_up_for(view, size, offset, end)
        chunks.hold(max(first, chunks.base_chunks), max(stop, chunks.base_chunks))
        written = self._io.pwrite_all(self._fd, data, offset)
        if covered is not None:
            written = self._hold_covered(view, covered, offset, written, len(data))
        return written

    def _copy_up_for(self, view: View, size: int, offset: int, end: int) -> tuple[int, int] | None:
        """Copy up the base's chunks that a write changes in part; return the range of those that it covers whole."""
        chunks = view.chunks
        chunk_size = chunks.chunk_size
        first, stop = offset // chunk_size, chunks_of(end, chunk_size)
        if not chunks.any_from_base(first, stop):
            return None
        # A chunk of which the base has only a part counts as changed in part: copying is cheaper than a second rule.
        first_covered = chunks_of(offset, chunk_size)
        stop_covered = max(first_covered, min(end // chunk_size, chunks.base_length // chunk_size))
        for chunk in (*range(first, min(first_covered, stop)), *range(max(stop_covered, first), stop)):
            if chunks.is_from_base(chunk):
                self._copy_up(view, size, chunk)
        return (first_covered, stop_covered) if chunks.any_from_base(first_covered, stop_covered) else None

    def _copy_up(self, view: View, size: int, chunk: int) -> None:
        """Put a chunk of the base into the data file, zeros included, because stale bytes may lie there."""
        chunks = view.chunks
        start = chunk * chunks.chunk_size
        stop = min(start + chunks.chunk_size, max(size, chunks.base_length))
        content = view.read_base(start, stop)
        if self._io.pwrite_all(self._fd, content, start) != len(content):
            raise no_space()
        self._log.valid(chunk, 1)
        chunks.hold(chunk, chunk + 1)

    def _hold_covered(self, view: View, covered: tuple[int, int], offset: int, written: int, wanted: int) -> int:
        """Log the chunks that a write covered; return how many of its bytes count."""
        first, stop = covered
        chunk_size = view.chunks.chunk_size
        if written < wanted:
            done = (offset + written) // chunk_size
            if done < stop:  # the rest of the chunk is not there, so it stays the base's
                stop = max(first, done)
                written = min(written, max(stop * chunk_size - offset, 0))
                if written == 0:
                    raise no_space()
        if first < stop:
            self._log.valid(first, stop - first)
            view.chunks.hold(first, stop)
        return written
