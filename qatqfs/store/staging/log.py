"""The log of one staging entry while it is in use.

The log has a lock of its own, because renames and unlinks append to it without the content lock. It remembers what it
last said about names. So a log that grew long, or is of an earlier boot, can be written anew in a few records.
"""

import errno
import os
import threading
from dataclasses import dataclass

from qatqfs.store.staging.area import LOG, RELOG, StagingArea
from qatqfs.store.staging.records import OPEN_END, Base, LogState, LogWriter
from qatqfs.store.staging.view import ChunkMap
from qatqfs.store.system.files import Fd, Identity

_LONG_LOG = 1 << 20
"""Bytes from which a sync writes the log anew."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What an entry was at one moment. Once the data file is durable as it was then, the log can say so.

    Attributes:
        log: how often the log had been written anew.
        records: number of records in the log.
        size: of the data file in bytes.
        mtime_ns: of the data file in nanoseconds.
    """

    log: int
    records: int
    size: int
    mtime_ns: int


class EntryLog:
    """The log of one entry. Every method that writes raises OSError.

    Args:
        area: where the log is.
        entry_id: of the entry.
        log: the file.
        writer: appends to the file.

    Attributes:
        unlinked: the log says that the last name of the file went.
        durable: the log has a SYNC record, or is about to get one. The entry survives a loss of power then, so its
            commit has to as well.
        is_old: the log is of an earlier boot and has to be written anew before the content changes.
        base_identity: of the container that the entry builds on.
    """

    def __init__(self, area: StagingArea, entry_id: bytes, log: Fd, writer: LogWriter) -> None:
        self.unlinked = False
        self.durable = False
        self.is_old = False
        self._unheard: int | None = None  # errno of a failure of which no program knows yet
        self.base_identity: Identity | None = None
        self._area = area
        self._io = area.io
        self._entry_id = entry_id
        self._fd = log
        self._writer = writer
        self._lock = threading.Lock()
        self._path = b""
        self._anywhere = False
        self._redone_into: Identity | None = None
        self._times_renewed = 0
        self._covered = 0  # records that a SYNC covers
        self._named = False  # the log's and the data file's name are durable

    def begin(self, identity: Identity, chunks: ChunkMap, path: bytes, *, several_names: bool) -> None:
        """Write the first records. Until the last of them is written, the entry counts for nothing.

        Args:
            identity: of the container that the entry builds on.
            chunks: the map over the container.
            path: a logical path of the file.
            several_names: the file has other names, too.
        """
        self.base_identity, self._path, self._anywhere = identity, path, several_names
        with self._lock:
            self._writer.base(Base(identity, chunks.chunk_size))
            self._writer.path(path)
            if several_names:
                self._writer.path(b"")
            self._writer.valid(chunks.base_chunks, OPEN_END)

    def adopt(self, state: LogState, at: int, path: bytes, *, redo: bool) -> None:
        """Go on with the log of an earlier daemon. The arguments are those of ``StagingEntry.attach``."""
        assert state.base is not None
        self.base_identity = state.intents[at - 1] if at else state.base.identity
        self._redone_into = state.base.identity if redo else None
        self._path, self._anywhere, self.unlinked = path, b"" in state.paths, state.unlinked

    def rebased(self, identity: Identity, redone_into: Identity | None) -> None:
        """Note that the container that the last INTENT named is in place."""
        self.base_identity, self._redone_into = identity, redone_into

    # -- records ---------------------------------------------------------------------------------------

    def path(self, path: bytes) -> None:
        """Record where the file is about to be; ``b""`` means anywhere, because it has several names."""
        with self._lock:
            self._writer.path(path)
            if path:
                self._path = path
            else:
                self._anywhere = True

    def unlink(self) -> None:
        """Record that the last name is about to go."""
        with self._lock:
            self._writer.unlink()
            self.unlinked = True

    def done(self) -> None:
        """Record that a container with all of the content is in place."""
        with self._lock:
            self._writer.done()

    def valid(self, first: int, count: int) -> None:
        """Record that the data file has ``count`` chunks from ``first`` on."""
        with self._lock:
            self._writer.valid(first, count)

    def keep_mtime(self, mtime_ns: int | None) -> None:
        """Record the logical mtime where the data file's own differs; ``None``: the data file's own is right again."""
        with self._lock:
            self._writer.time(mtime_ns)

    def low(self, size: int, low: int) -> None:
        """Record the logical size and the lowest size since the base, in bytes."""
        with self._lock:
            self._writer.size(size, low)

    def intent(self, identity: Identity) -> None:
        """Record the container about to replace the base, durably if the entry is durable."""
        with self._lock:
            self._writer.intent(identity)
            if self.durable:
                self._io.fdatasync(self._fd)

    def partial_intent(self, identity: Identity, chunks: ChunkMap, data: Fd) -> None:
        """Record the container about to replace the base, and the chunks that are newer than it.

        Args:
            identity: of the container.
            chunks: the map over the container.
            data: the data file.
        """
        if self.durable:
            self.fsync_data(data)
        st = os.fstat(data.number)
        with self._lock:
            self._writer.intent(identity)
            self._held(chunks)
            if self.durable:
                self._log_sync(st)
                self._io.fdatasync(self._fd)

    def held(self, chunks: ChunkMap) -> None:
        """Record again which chunks are held, because the container that an INTENT named did not come."""
        with self._lock:
            self._held(chunks)

    def _held(self, chunks: ChunkMap) -> None:
        for first, stop in chunks.runs(0, chunks.base_chunks):
            self._writer.valid(first, stop - first)
        self._writer.valid(chunks.base_chunks, OPEN_END)

    def fsync_data(self, data: Fd) -> None:
        """Make the data file durable, although no program asked for it.

        Raises:
            OSError: the disk failed. The next :meth:`fsync` for a program raises it again, because the kernel
                reports such a failure only once, and a program that calls fsync(2) has to hear of it.
        """
        try:
            self._io.fdatasync(data)
        except OSError as err:
            self._unheard = err.errno
            raise

    def fsync(self, data: Fd, *, for_program: bool = False) -> None:
        """Make data file and log durable.

        Args:
            data: the data file.
            for_program: a program called fsync(2), so an earlier failure of which no program knows is raised, too.
        """
        st = os.fstat(data.number)
        if for_program:
            if self._unheard is not None:
                unheard, self._unheard = self._unheard, None
                raise OSError(unheard, os.strerror(unheard))
            self._io.fdatasync(data)
        else:
            self.fsync_data(data)
        with self._lock:
            self._log_sync(st)
            self._io.fdatasync(self._fd)
        self.make_name_durable()
        self.durable = True

    def _log_sync(self, st: os.stat_result) -> None:
        self._writer.sync(st.st_size, st.st_mtime_ns)
        self._covered = self._writer.count

    def make_name_durable(self) -> None:
        """Make the entry's name durable, so that recovery finds the entry after a loss of power."""
        if not self._named:
            self._io.fsync_directory(self._area.directory.number)
            self._named = True

    # -- making it durable while a writer goes on ------------------------------------------------------

    def mark(self, data: Fd) -> Mark:
        """Note what the entry is now, as the first step of making it durable. The content lock is held, briefly.

        The next steps need no lock: :meth:`fsync_data`, :meth:`log_durable`, :meth:`make_durable`.
        """
        with self._lock:
            st = os.fstat(data.number)
            self.durable = True
            return Mark(self._times_renewed, self._writer.count, st.st_size, st.st_mtime_ns)

    def log_durable(self, mark: Mark) -> bool:
        """Record that the data file is durable as it was at a mark; return whether that was new."""
        with self._lock:
            if mark.log != self._times_renewed or mark.records < self._covered:
                return False  # more has been made durable since
            self._writer.sync_covering(mark.size, mark.mtime_ns, mark.records)
            self._covered = mark.records
            return True

    def make_durable(self) -> None:
        """Make the log and the entry's name durable."""
        self._io.fdatasync(self._fd)
        self.make_name_durable()

    # -- writing it anew -------------------------------------------------------------------------------

    @property
    def is_long(self) -> bool:
        """Whether the log is long enough to be worth writing anew."""
        return self._writer.length > _LONG_LOG

    def renew(self, chunks: ChunkMap, low: int | None, data: Fd) -> None:
        """As :meth:`write_anew`, for a log of an earlier boot; on a full disk the next change does it."""
        self.is_old = True
        try:
            self.write_anew(chunks, low, data)
        except OSError as err:
            if err.errno != errno.ENOSPC:
                raise

    def write_anew(self, chunks: ChunkMap, low: int | None, data: Fd) -> None:
        """Replace the log, durably, by one of the running boot that says the same in few records.

        Args:
            chunks: the map now.
            low: the lowest size since the base in bytes, if the base has content after it.
            data: the data file.
        """
        assert self.base_identity is not None
        temporary = self._entry_id + RELOG
        where = self._area.directory.number
        with self._lock:
            self._area.remove(temporary)
            log = self._area.open_exclusively(temporary)
            previous, self._writer = self._writer, LogWriter(self._io, log, self._area.boot_id)
            try:
                self._write_all(chunks, low, data)
                self._io.fdatasync(log)
                self._io.rename(where, temporary, where, self._entry_id + LOG)
            except BaseException:
                self._writer = previous
                raise
            self._fd = log
            self.is_old = False
            self._times_renewed += 1
            self._covered = self._writer.count
            self._io.fsync_directory(where)
            self.durable = self._named = True

    def _write_all(self, chunks: ChunkMap, low: int | None, data: Fd) -> None:
        assert self.base_identity is not None
        st = os.fstat(data.number)
        self._writer.base(Base(self._redone_into or self.base_identity, chunks.chunk_size))
        self._writer.path(self._path)
        if self._redone_into is not None:
            self._writer.intent(self.base_identity)
        if self._anywhere:
            self._writer.path(b"")
        self._held(chunks)
        if low is not None:
            self._writer.size(st.st_size, low)
        if self.unlinked:
            self._writer.unlink()
        self._io.fdatasync(data)
        self._writer.sync(st.st_size, st.st_mtime_ns)
