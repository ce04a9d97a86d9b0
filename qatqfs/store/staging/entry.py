"""Staging entries: where written bytes live until they are a container.

Order of events in a write: what has to be copied up, VALID, application data, reply; for chunks that it covers
whole, application data, VALID, reply. The logical size and mtime are the data file's own, so no record of each
change is needed.
"""

import contextlib
import errno
import os
import threading

from qatqfs.store.reading.container import ContainerFile, Retired
from qatqfs.store.staging.area import DATA, LOG, StagingArea
from qatqfs.store.staging.chunkmap import ChunkMap, chunks_of
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.leftover import map_of
from qatqfs.store.staging.log import EntryLog, Mark
from qatqfs.store.staging.mtime import StagedTime
from qatqfs.store.staging.records import LogState, LogWriter
from qatqfs.store.staging.snapshot import Aside, Snapshot
from qatqfs.store.staging.space import worst_case
from qatqfs.store.staging.view import View
from qatqfs.store.system.descriptors import to_stay_open
from qatqfs.store.system.fd import Fd
from qatqfs.store.system.identity import Identity


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
    """One file's uncommitted content: some chunks in a data file, the rest still those of the container below.

    The inode's content lock (:class:`qatqfs.store.names.node.Node`) protects everything but the log. Readers take no
    lock: they look at the view (map and base together), read, and read again if a commit put another view in its
    place meanwhile.

    Attributes:
        data: descriptor of the data file, valid as long as anyone holds it, also after :meth:`drop`.
        time: the logical mtime, which is nearly always the data file's.
        log: of the entry; its own lock protects it, for renames and unlinks append to it without the content lock.
        snapshot: what a commit under way encodes, ``None`` without one; told of every change first.
        draft: the container that is being made of this content, as far as it is, ``None`` if none is; changed by
            :meth:`exchange_draft` only.
        sequential_end: where a writer that began an empty file at offset 0 and never left a gap has got to, in bytes.
        ahead_end: how far of that somebody was told to encode ahead.
        in_doubt: it may be torn, so it becomes a container in lost+found and nothing else.
    """

    def __init__(self, area: StagingArea, entry_id: bytes, data: Fd, log: Fd, writer: LogWriter) -> None:
        self.area = area
        self.entry_id = entry_id
        self.data = data
        self.log = EntryLog(area, entry_id, log, writer)
        self.time = StagedTime(area.io, data, self.log)
        self.snapshot: Snapshot | None = None
        self.draft: Draft | None = None
        self.sequential_end = 0
        self.ahead_end = 0
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

        Until the last of them, VALID, is written the entry counts for nothing.

        Args:
            identity: of the container.
            chunk_size: bytes of a chunk.
            base: the container, ``None`` if nothing of it is wanted.
            path: a logical path of the file.
            mtime_ns: its modification time.
            several_names: it has other names, too.

        Raises:
            OSError: as writing does.
        """
        length = base.length if base is not None else 0
        self._view = View(ChunkMap(chunk_size, length), base)
        if length:
            self._io.ftruncate(self.data, length)
        self._io.set_times(self.data, None, mtime_ns)
        self._reserve(length, copies=base.stored_size if base is not None else 0)
        self.log.begin(identity, self._view.chunks, path, several_names=several_names)

    def attach(self, state: LogState, at: int, base: ContainerFile | None, path: bytes, *, redo: bool = False) -> None:
        """Build on a container again after an earlier daemon.

        Args:
            state: what the log says.
            at: which container it is: 0 the base, n the one of the n-th INTENT.
            base: the container, ``None`` when it is gone.
            path: where it is.
            redo: it is the redo file.

        Raises:
            OSError: as writing does.
        """
        self.log.adopt(state, at, path, redo=redo)
        size = self.size
        chunks = map_of(state, at, base, self.data, size)
        self._low_unlogged = base is not None and chunks.base_length < base.length
        self._view = View(chunks, base)
        copies = base.stored_size if base is not None else 0
        worst = worst_case(chunks.held_bytes(size), chunks_of(size, chunks.chunk_size))
        self.area.space.charge(self.entry_id, worst, copies)

    # -- log -------------------------------------------------------------------------------------------

    def announce_unlink(self) -> None:
        """Log that the last name is about to go; raises OSError."""
        self.log.unlink()
        self.area.space.lower(self.entry_id, 0)  # it is never going to be a container

    def renew_log(self) -> None:
        """Write the log of an earlier boot anew, on a full disk before the next change; raises OSError."""
        self.log.renew(self._view.chunks, self._low, self.data)

    @property
    def _low(self) -> int | None:
        """The lowest size since the base in bytes, if the base has content behind it."""
        chunks, base = self._view.chunks, self._view.base
        return chunks.base_length if base is not None and chunks.base_length < base.length else None

    # -- content ---------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes of a range, cut only at the end of the file.

        Raises:
            OSError: EIO when content of the base is corrupt, or what reading reported.
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
        """Whether writing a range takes no copying, and nothing has to be made durable first; content lock held."""
        if self.log.is_old:
            return False
        chunks = self._view.chunks
        first, stop = offset // chunks.chunk_size, chunks_of(offset + size, chunks.chunk_size)
        return not chunks.any_below(first, stop) and (self.snapshot is None or not self.snapshot.concerns(first, stop))

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write application data at a logical offset; returns the bytes written. Content lock held.

        Chunks that are below and written in part are copied up and logged VALID first. Those that are written
        whole are logged afterwards: until then the base has them, so a torn write shows the old bytes or the new.

        Raises:
            OSError: ENOSPC before anything is written when its container would not fit, EIO when content to be
                copied up is corrupt, or what the disk reported.
        """
        end = offset + len(data)
        if end == offset:
            return 0
        chunks = self._view.chunks
        chunk_size = chunks.chunk_size
        first, stop = offset // chunk_size, chunks_of(end, chunk_size)
        self._settle_log()
        size = self.size
        self._reserve(max(size, end), first, stop, writing=len(data))
        self._announce(first, stop, offset)
        covered = self._copy_up_for(offset, end, size)
        chunks.hold(max(first, chunks.base_chunks), max(stop, chunks.base_chunks))
        written = self._io.pwrite_all(self.data, data, offset)
        if covered is not None:
            written = self._hold_covered(covered, offset, written, len(data))
        if offset == self.sequential_end and not chunks.base_chunks:
            self.sequential_end += written
        return written

    def _copy_up_for(self, offset: int, end: int, size: int) -> tuple[int, int] | None:
        """Copy up the chunks that a write touches in part; returns the range of those it covers that are below."""
        chunks = self._view.chunks
        chunk_size = chunks.chunk_size
        first, stop = offset // chunk_size, chunks_of(end, chunk_size)
        if not chunks.any_below(first, stop):
            return None
        # A chunk with less content below than its chunk_size counts as partial: copying is cheaper than a second rule.
        first_covered = chunks_of(offset, chunk_size)
        stop_covered = max(first_covered, min(end // chunk_size, chunks.base_length // chunk_size))
        for chunk in (*range(first, min(first_covered, stop)), *range(max(stop_covered, first), stop)):
            if chunks.is_below(chunk):
                self._copy_up(chunk, size)
        return (first_covered, stop_covered) if chunks.any_below(first_covered, stop_covered) else None

    def _copy_up(self, chunk: int, size: int) -> None:
        """Put a chunk into the data file as it is, zeros included: something may lie there that never counted."""
        view = self._view
        start = chunk * self.chunk_size
        stop = min(start + self.chunk_size, max(size, view.chunks.base_length))
        content = view.read_base(start, stop)
        if self._io.pwrite_all(self.data, content, start) != len(content):
            raise no_space()
        self.log.valid(chunk, 1)
        view.chunks.hold(chunk, chunk + 1)

    def _hold_covered(self, covered: tuple[int, int], offset: int, written: int, wanted: int) -> int:
        """Log the chunks that a write covered; returns what of it counts."""
        first, stop = covered
        if written < wanted:
            done = (offset + written) // self.chunk_size
            if done < stop:  # the rest of the chunk is not there, so it stays below
                stop = max(first, done)
                written = min(written, max(stop * self.chunk_size - offset, 0))
                if written == 0:
                    raise no_space()
        if first < stop:
            self.log.valid(first, stop - first)
            self._view.chunks.hold(first, stop)
        return written

    def truncate(self, size: int) -> None:
        """Set the logical size in bytes, zeros where it grows; content lock held. Raises OSError."""
        self._settle_log()
        before = self.size
        chunks = self._view.chunks
        if size > before:
            self._reserve(size)
        if self.snapshot is not None and size < self.snapshot.size:
            self.snapshot.cancelled = True
        if (draft := self.draft) is not None:
            draft.note_change(min(size, before) // chunks.chunk_size, chunks_of(before, chunks.chunk_size))
        self._io.ftruncate(self.data, size)
        # The size itself hides what lies behind it, and recovery takes a smaller one for a low: no gap here.
        self._low_unlogged = size < chunks.base_length
        chunks.cut(size)
        self.sequential_end = min(self.sequential_end, size)
        self.ahead_end = min(self.ahead_end, size)
        self.area.space.lower(self.entry_id, worst_case(chunks.held_bytes(size), chunks_of(size, chunks.chunk_size)))
        if self._low_unlogged:
            self._log_low()

    def _settle_log(self) -> None:
        """Write what the log has to say before anything else changes."""
        self.time.settle()
        if self.log.is_old:
            self.log.write_anew(self._view.chunks, self._low, self.data)
        if self._low_unlogged:
            self._log_low()

    def _log_low(self) -> None:
        self.log.low(self.size, self._view.chunks.base_length)
        self._low_unlogged = False

    def _announce(self, first: int, stop: int, offset: int) -> None:
        """Tell who reads the content without the lock that chunks are about to change."""
        if self.snapshot is not None:
            self.snapshot.before_change(first, stop, offset)
        if (draft := self.draft) is not None:  # it may be given up at any time
            draft.note_change(first, stop)

    def _reserve(
        self, size: int, first: int = 0, stop: int = 0, *, writing: int = 0, copies: int | None = None
    ) -> None:
        chunks = self._view.chunks
        held = chunks.held_bytes(size, chunks.missing(first, stop))
        amount = worst_case(held, chunks_of(size, chunks.chunk_size))
        if self.log.unlinked:
            amount = 0  # it is never going to be a container
        space = self.area.space
        try:
            space.reserve(self.entry_id, amount, writing, copies=copies)
        except OSError:
            if not self.area.retry_abandoned():
                raise
            space.reserve(self.entry_id, amount, writing, copies=copies)

    def sync(self, *, for_program: bool = False) -> None:
        """Make what was written so far survive a power cut; content lock held.

        Args:
            for_program: a program called fsync(2), and has to hear of what failed before.

        Raises:
            OSError: the disk failed now, or for a program before.
        """
        self._settle_log()
        if self.log.is_long:
            self.log.write_anew(self._view.chunks, self._low, self.data)
        self.log.sync(self.data, for_program=for_program)

    def mark(self) -> Mark:
        """Begin to make what was written so far durable, without waiting for the disk; content lock held.

        See :meth:`qatqfs.store.staging.log.EntryLog.mark` for what has to follow. Raises OSError.
        """
        self._settle_log()
        return self.log.mark(self.data)

    # -- commit ----------------------------------------------------------------------------------------

    def freeze(self) -> "Snapshot":
        """Begin a commit of the content as it is now; content lock held. Raises OSError."""
        self.time.settle()
        self.snapshot = Snapshot(
            self._view, self.data, self.size, lambda: Aside(self.area.open_unnamed(), self._io.pwrite_all)
        )
        return self.snapshot

    def cancel_commit(self) -> None:
        """Let a commit under way come to nothing."""
        snapshot = self.snapshot
        if snapshot is not None:
            snapshot.cancelled = True

    def thaw(self) -> None:
        """End a commit, whatever became of it; content lock held."""
        self.snapshot = None

    def exchange_draft(self, draft: Draft | None) -> Draft | None:
        """Let another draft, or none, be what is to become the container.

        Whoever makes drafts holds the content lock for this. Whoever removes the file's last name takes its draft
        away without, so the exchange itself is under a lock of its own.

        Returns:
            The one before, for the caller to discard.
        """
        with self._draft_lock:
            before, self.draft = self.draft, draft
            self.area.space.written(self.entry_id, draft.size if draft is not None else 0)
        return before

    def abandon_draft(self) -> None:
        """Throw the draft away, if there is one; never fails."""
        lost = self.exchange_draft(None)
        if lost is not None:
            lost.discard()

    def rewind_draft(self, draft: Draft, chunk: int) -> None:
        """Let the draft go back to before a chunk; content lock held. Raises OSError."""
        self.area.space.written(self.entry_id, draft.size_before(chunk))
        draft.rewind(chunk)

    def map_over(self, length: int) -> ChunkMap:
        """Return the map over a container of the snapshot's content: held is what changed since."""
        assert self.snapshot is not None
        chunks = ChunkMap(self.chunk_size, length)
        size = self.size
        for changed in self.snapshot.changed.runs(0, chunks.base_chunks):
            for first, stop in self._view.chunks.runs(*changed):  # a write that failed may have changed none of them
                chunks.hold(first, stop)
        for first, stop in self._view.chunks.runs(chunks.base_chunks, chunks_of(size, self.chunk_size)):
            chunks.hold(first, stop)
        return chunks

    def rebase(
        self, chunks: ChunkMap, base: ContainerFile, identity: Identity, *, redone_into: Identity | None = None
    ) -> None:
        """Build on the container that a commit has put in place; content lock held.

        Args:
            chunks: the map over it.
            base: the container.
            identity: of it.
            redone_into: it is a redo file, about to be copied into this inode.
        """
        self.log.rebased(identity, redone_into)
        self.sequential_end = -1  # nothing is encoded ahead of what builds on a container
        self._view = View(chunks, base)
        size = self.size
        amount = worst_case(chunks.held_bytes(size), chunks_of(size, chunks.chunk_size))
        self.area.space.charge(self.entry_id, amount, base.stored_size)

    def release_space(self) -> None:
        """Give back the space of chunks that the base has by now, where that is possible; content lock held."""
        holes = list(self._view.chunks.runs_below())
        if holes:
            with contextlib.suppress(OSError), self.time.unmoved():  # nothing depends on it
                for first, stop in holes:
                    self._io.punch(self.data, first * self.chunk_size, (stop - first) * self.chunk_size)

    def drop(self) -> None:
        """Remove the entry's files; who holds the data descriptor can still read it. Raises OSError."""
        self.abandon_draft()
        self.area.discard(self.entry_id)

    def abandon(self) -> None:
        """As :meth:`drop`, but what cannot be removed is removed later; never fails."""
        self.abandon_draft()
        self.area.abandon_entry(self.entry_id)


def no_space() -> OSError:
    """Return ENOSPC."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
