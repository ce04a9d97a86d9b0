"""What one entry reserves for the container that it is going to be."""

from qatqfs.store.staging.area import StagingArea
from qatqfs.store.staging.log import EntryLog
from qatqfs.store.staging.space import worst_case
from qatqfs.store.staging.view import ChunkMap, chunks_of


class Reservation:
    """The part of a store's :class:`~qatqfs.store.staging.space.SpaceLedger` that belongs to one entry.

    An entry reserves the most bytes that encoding its held chunks can take. Chunks from the base are copied as they
    are, and the ledger accounts for them separately. The node's content lock protects all changes except
    :meth:`waive` and :meth:`written`, which may come at any time.

    Args:
        area: of the entry.
        entry_id: of the entry.
        log: of the entry. Once it says that the file has no name left, :meth:`grow` reserves nothing.
    """

    def __init__(self, area: StagingArea, entry_id: bytes, log: EntryLog) -> None:
        self._area = area
        self._space = area.space
        self._entry_id = entry_id
        self._log = log

    def grow(
        self, chunks: ChunkMap, size: int, newly_held: range = range(0), *, writing: int = 0, copies: int | None = None
    ) -> None:
        """Reserve what a file takes once it has a size and holds some more chunks.

        Args:
            chunks: its map so far.
            size: of the content in bytes.
            newly_held: chunks that are going to be held, whether they are already or not.
            writing: bytes about to be written to the data file.
            copies: bytes of the base that a commit copies, if they changed.

        Raises:
            OSError: ENOSPC, and nothing has changed.
        """
        worst = _worst(chunks, size, chunks.missing(newly_held.start, newly_held.stop))
        if self._log.unlinked:
            worst = 0  # it is never going to be a container
        try:
            self._space.reserve(self._entry_id, worst, writing, copies=copies)
        except OSError:
            if not self._area.retry_abandoned():
                raise
            self._space.reserve(self._entry_id, worst, writing, copies=copies)

    def shrink(self, chunks: ChunkMap, size: int) -> None:
        """Give back what a file does not take any more; never fails."""
        self._space.lower(self._entry_id, _worst(chunks, size))

    def replace(self, chunks: ChunkMap, size: int, copies: int) -> None:
        """Reserve what a file takes that exists already, whether or not there is room for it; never fails.

        Args:
            chunks: its map.
            size: of the content in bytes.
            copies: bytes of the base that a commit copies.
        """
        self._space.charge(self._entry_id, _worst(chunks, size), copies)

    def waive(self) -> None:
        """Give back all of it, because no container is going to be made of the entry; never fails."""
        self._space.lower(self._entry_id, 0)

    def begin_anew(self) -> bool:
        """Reserve all of the container again, beside what is on disk of it; return whether there is room for that.

        See :meth:`~qatqfs.store.staging.space.SpaceLedger.begin_anew`.
        """
        return self._space.begin_anew(self._entry_id)

    def written(self, size: int) -> None:
        """Note how many bytes of the container are on disk; never fails.

        See :meth:`~qatqfs.store.staging.space.SpaceLedger.written`.
        """
        self._space.written(self._entry_id, size)


def _worst(chunks: ChunkMap, size: int, more: int = 0) -> int:
    """Return the most bytes that a container of the held chunks, and of so many more, takes."""
    return worst_case(chunks.held_bytes(size, more), chunks_of(size, chunks.chunk_size))
