"""Staging entries: where written bytes live until they are in a container."""

import contextlib
import os
import threading

from qatqfs.store.reading.container import ContainerFile, Retired
from qatqfs.store.staging.area import DATA, LOG, StagingArea
from qatqfs.store.staging.datafile import DataFile
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.leftover import map_of
from qatqfs.store.staging.log import EntryLog, Mark
from qatqfs.store.staging.mtime import LogicalMtime
from qatqfs.store.staging.records import LogState, LogWriter
from qatqfs.store.staging.reservation import Reservation
from qatqfs.store.staging.sequential import SequentialRun
from qatqfs.store.staging.snapshot import Aside, Snapshot
from qatqfs.store.staging.view import ChunkMap, View, chunks_of
from qatqfs.store.system.descriptors import to_stay_open
from qatqfs.store.system.files import Fd, Identity


def create_entry(area: StagingArea) -> "StagingEntry":
    """Make an empty entry with an empty log; raises OSError (ENOSPC, EROFS ...)."""
    entry_id = area.new_id()
    data = area.open_exclusively(entry_id + DATA)
    try:
        to_stay_open(data)
        log = area.open_exclusively(entry_id + LOG)
    except OSError:
        area.abandon(entry_id + DATA)
        raise
    return StagingEntry(area, entry_id, data, log, LogWriter(area.io, log, area.boot_id))


class StagingEntry:
    """One file's uncommitted content: some chunks in a data file, the rest still the base's.

    The node's content lock (:class:`qatqfs.store.names.node.Node`) protects everything but the log. Readers take no
    lock. They take the view (map and base together), read, and read again if a commit replaced the view meanwhile.

    Attributes:
        data: descriptor of the data file. It is valid as long as anything refers to it, also after :meth:`abandon`.
        time: the logical mtime, which is nearly always the data file's.
        log: of the entry. It has its own lock, because renames and unlinks append to it without the content lock.
        reservation: the space that the container of this content may take.
        sequential: how far a sequential writer has got.
        snapshot: what a commit under way encodes, ``None`` without one. It is told of every change first.
        draft: the container in the making, ``None`` without one. Only :meth:`exchange_draft` changes it.
        in_doubt: the content may be torn, so it becomes a container in lost+found and nothing else.
    """

    def __init__(self, area: StagingArea, entry_id: bytes, data: Fd, log: Fd, writer: LogWriter) -> None:
        self.area = area
        self.entry_id = entry_id
        self.data = data
        self.log = EntryLog(area, entry_id, log, writer)
        self.time = LogicalMtime(area.io, data, self.log)
        self._data_file = DataFile(area.io, data, self.log)
        self.reservation = Reservation(area, entry_id, self.log)
        self.sequential = SequentialRun()
        self.snapshot: Snapshot | None = None
        self.draft: Draft | None = None
        self.in_doubt = False
        self._draft_lock = threading.Lock()
        self._io = area.io
        self._view = View(ChunkMap(1, 0), None)
        self._low_unlogged = False

    # -- state -----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The logical size in bytes."""
        return os.fstat(self.data.number).st_size

    @property
    def mtime_ns(self) -> int:
        """The logical modification time in nanoseconds."""
        return self.time.stat()[1]

    @property
    def view(self) -> View:
        """The chunk map and the base, which change together."""
        return self._view

    @property
    def chunk_size(self) -> int:
        """Bytes of a chunk, here and in the log."""
        return self._view.chunks.chunk_size

    def begin(
        self,
        identity: Identity,
        chunk_size: int,
        base: ContainerFile | None,
        path: bytes,
        mtime_ns: int,
        *,
        several_names: bool = False,
    ) -> None:
        """Build on a container: set the data file's size and time, and write the log's first records.

        Until the last of these records, VALID, is written, the entry counts for nothing.

        Args:
            identity: of the container.
            chunk_size: bytes of a chunk.
            base: the container, ``None`` if none of its content is wanted.
            path: a logical path of the file.
            mtime_ns: modification time of the file in nanoseconds.
            several_names: the file has other names, too.

        Raises:
            OSError: as :meth:`write`.
        """
        length = base.length if base is not None else 0
        self._view = View(ChunkMap(chunk_size, length), base)
        if length:
            self._io.ftruncate(self.data, length)
        self._io.set_times(self.data, None, mtime_ns)
        self.reservation.grow(self._view.chunks, length, copies=base.stored_size if base is not None else 0)
        self.log.begin(identity, self._view.chunks, path, several_names=several_names)

    def attach(self, state: LogState, at: int, base: ContainerFile | None, path: bytes, *, redo: bool = False) -> None:
        """Build on a container again, after a restart of the daemon.

        Args:
            state: what the log says.
            at: which container it is: 0 for that of the BASE record, n for that of the n-th INTENT.
            base: the container, ``None`` when it is gone.
            path: logical path of the file.
            redo: the container is the redo file.

        Raises:
            OSError: as :meth:`write`.
        """
        self.log.adopt(state, at, path, redo=redo)
        size = self.size
        chunks = map_of(state, at, base, self.data, size)
        self._low_unlogged = base is not None and chunks.base_length < base.length
        self._view = View(chunks, base)
        self.reservation.replace(chunks, size, base.stored_size if base is not None else 0)

    # -- log -------------------------------------------------------------------------------------------

    def announce_unlink(self) -> None:
        """Log that the last name is about to go; raises OSError."""
        self.log.unlink()
        self.reservation.waive()

    def renew_log(self) -> None:
        """Write the log of an earlier boot anew, or, on a full disk, before the next change; raises OSError."""
        self.log.renew(self._view.chunks, self._low, self.data)

    @property
    def _low(self) -> int | None:
        """The lowest size since the base, in bytes, if the base has content after it."""
        chunks, base = self._view.chunks, self._view.base
        return chunks.base_length if base is not None and chunks.base_length < base.length else None

    # -- content ---------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes of a range, cut only at the end of the file.

        Raises:
            OSError: EIO when content of the base is damaged, or what reading reported.
        """
        while True:
            view = self._view
            try:
                data = view.read(self.data, offset, min(size, max(0, self.size - offset)))
            except Retired:
                if self._view is view:
                    raise
                continue
            if self._view is view:
                return data

    def is_ready(self, offset: int, size: int) -> bool:
        """Whether a range can be written without copying or waiting for the disk; content lock held."""
        if self.log.is_old:
            return False
        chunks = self._view.chunks
        first, stop = offset // chunks.chunk_size, chunks_of(offset + size, chunks.chunk_size)
        if chunks.any_from_base(first, stop):
            return False
        return self.snapshot is None or not self.snapshot.concerns(first, stop)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write application data at a logical offset; return the bytes written. Content lock held.

        :mod:`qatqfs.store.staging.datafile` has the order of its steps.

        Raises:
            OSError: ENOSPC when the file's container would not fit, before anything is written; EIO when content to
                be copied up is damaged; or what the disk reported.
        """
        end = offset + len(data)
        if end == offset:
            return 0
        chunks = self._view.chunks
        first, stop = offset // chunks.chunk_size, chunks_of(end, chunks.chunk_size)
        self._update_log()
        size = self.size
        self.reservation.grow(chunks, max(size, end), range(first, stop), writing=len(data))
        self._announce(first, stop, offset)
        written = self._data_file.write(self._view, size, data, offset)
        if not chunks.base_chunks:
            self.sequential.wrote(offset, written)
        return written

    def truncate(self, size: int) -> None:
        """Set the logical size in bytes, zeros where it grows; content lock held. Raises OSError."""
        self._update_log()
        before = self.size
        chunks = self._view.chunks
        if size > before:
            self.reservation.grow(chunks, size)
        if self.snapshot is not None and size < self.snapshot.size:
            self.snapshot.cancelled = True
        if (draft := self.draft) is not None:
            draft.note_change(min(size, before) // chunks.chunk_size, chunks_of(before, chunks.chunk_size))
        self._io.ftruncate(self.data, size)
        # A kill before the SIZE record does no harm: recovery takes a data file that is smaller for a low.
        self._low_unlogged = size < chunks.base_length
        chunks.cut(size)
        self.sequential.cut(size)
        self.reservation.shrink(chunks, size)
        if self._low_unlogged:
            self._log_low()

    def _update_log(self) -> None:
        """Write what the log has to say before anything else changes."""
        self.time.restore()
        if self.log.is_old:
            self.log.write_anew(self._view.chunks, self._low, self.data)
        if self._low_unlogged:
            self._log_low()

    def _log_low(self) -> None:
        self.log.low(self.size, self._view.chunks.base_length)
        self._low_unlogged = False

    def _announce(self, first: int, stop: int, offset: int) -> None:
        """Tell the snapshot and the draft, which read without the lock, that chunks are about to change."""
        if self.snapshot is not None:
            self.snapshot.before_change(first, stop, offset)
        if (draft := self.draft) is not None:  # an unlink may take it away at any time
            draft.note_change(first, stop)

    def fsync(self, *, for_program: bool = False) -> None:
        """Make what was written so far durable; content lock held.

        Args:
            for_program: a program called fsync(2), so an earlier failure that no program has heard of is raised, too.

        Raises:
            OSError: the disk failed.
        """
        self._update_log()
        if self.log.is_long:
            self.log.write_anew(self._view.chunks, self._low, self.data)
        self.log.fsync(self.data, for_program=for_program)

    def mark(self) -> Mark:
        """Begin to make what was written so far durable, without waiting for the disk; content lock held.

        :meth:`qatqfs.store.staging.log.EntryLog.mark` says which steps have to follow. Raises OSError.
        """
        self._update_log()
        return self.log.mark(self.data)

    # -- commit ----------------------------------------------------------------------------------------

    def freeze(self) -> "Snapshot":
        """Begin a commit of the content as it is now; content lock held. Raises OSError."""
        self.time.restore()
        self.snapshot = Snapshot(
            self._view, self.data, self.size, lambda: Aside(self.area.open_unnamed(), self._io.pwrite_all)
        )
        return self.snapshot

    def cancel_commit(self) -> None:
        """Cancel a commit under way, if there is one."""
        snapshot = self.snapshot
        if snapshot is not None:
            snapshot.cancelled = True

    def thaw(self) -> None:
        """End a commit that succeeded or failed; content lock held."""
        self.snapshot = None

    def exchange_draft(self, draft: Draft | None) -> Draft | None:
        """Replace the draft by another one or by none.

        Threads that make drafts hold the content lock for this. A thread that removes the file's last name takes its
        draft away without that lock, so the exchange has a lock of its own.

        Returns:
            The previous draft, which the caller has to abandon or to use.
        """
        with self._draft_lock:
            before, self.draft = self.draft, draft
            self.reservation.written(draft.size if draft is not None else 0)
        return before

    def abandon_draft(self) -> None:
        """Remove the draft, if there is one; never fails."""
        lost = self.exchange_draft(None)
        if lost is not None:
            lost.abandon()

    def rewind_draft(self, draft: Draft, chunk: int) -> None:
        """Cut the draft before a chunk; content lock held. Raises OSError."""
        self.reservation.written(draft.size_before(chunk))
        draft.rewind(chunk)

    def map_over(self, length: int) -> ChunkMap:
        """Return a map over a container of the snapshot's content, in which the chunks changed since are held."""
        assert self.snapshot is not None
        chunks = ChunkMap(self.chunk_size, length)
        size = self.size
        for changed in self.snapshot.changed.runs(0, chunks.base_chunks):
            for first, stop in self._view.chunks.runs(*changed):  # not all of them, if a write failed
                chunks.hold(first, stop)
        for first, stop in self._view.chunks.runs(chunks.base_chunks, chunks_of(size, self.chunk_size)):
            chunks.hold(first, stop)
        return chunks

    def rebase(
        self, chunks: ChunkMap, base: ContainerFile, identity: Identity, *, redone_into: Identity | None = None
    ) -> None:
        """Build on the container that a commit has put in place; content lock held.

        Args:
            chunks: the map over the container.
            base: the container.
            identity: of the container.
            redone_into: the inode that the container, a redo file, is about to be copied into.
        """
        self.log.rebased(identity, redone_into)
        self.sequential.stop()  # not all of the content is in the data file from now on
        self._view = View(chunks, base)
        self.reservation.replace(chunks, self.size, base.stored_size)

    def release_space(self) -> None:
        """Give back the space of chunks that are the base's by now, if the disk allows it; content lock held."""
        holes = list(self._view.chunks.runs_from_base())
        if holes:
            with contextlib.suppress(OSError), self.time.unmoved():  # nothing depends on it
                for first, stop in holes:
                    self._io.punch(self.data, first * self.chunk_size, (stop - first) * self.chunk_size)

    def abandon(self) -> None:
        """Remove the entry's files, now or later; never fails."""
        self.abandon_draft()
        self.area.abandon_entry(self.entry_id)
