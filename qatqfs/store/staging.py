"""Staging entries: where written bytes live until they are a container.

An entry is two files in ``BACKING/.qatqfs/staging``: ``ID.data``, which holds the logical file's bytes at their
logical offsets, and ``ID.log`` (:mod:`qatqfs.store.staginglog`), which says what they mean. A third,
``ID.new``, is the container that a commit is writing; it means nothing until it is renamed away.

Order of events: the data file is created first and the log dropped first, so a data file without a log is
garbage. Application data goes in only after a VALID record covers what lies below it. The logical size and
mtime are the data file's own.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator

from qatqfs.store import staginglog
from qatqfs.store.backingio import BackingIO
from qatqfs.store.staginglog import Base, LogState, LogWriter
from qatqfs.store.sysfile import Fd, Identity

_DATA, _LOG, _NEW, _RELOG = b".data", b".log", b".new", b".relog"


class StagingArea:
    """The directory that holds the entries of one store.

    Args:
        directory: open descriptor of ``.qatqfs/staging``.
        io: makes the changes.
    """

    def __init__(self, directory: Fd, io: BackingIO) -> None:
        self.directory = directory
        self.io = io
        self.boot_id = staginglog.current_boot_id()

    def entry_ids(self) -> list[bytes]:
        """List the entries that have a log, in no particular order; raises OSError."""
        suffix = _LOG.decode()
        return [os.fsencode(n)[: -len(_LOG)] for n in os.listdir(self.directory.number) if n.endswith(suffix)]

    def sweep(self) -> None:
        """Remove what no log accounts for: half-made entries and containers that never got their name."""
        names = {os.fsencode(name) for name in os.listdir(self.directory.number)}
        for name in names:
            stem, dot, ending = name.rpartition(b".")
            kind = dot + ending
            if kind in (_NEW, _RELOG) or (kind == _DATA and stem + _LOG not in names):
                self.remove(name)

    def create(self) -> "StagingEntry":
        """Make an empty entry with an empty log; raises OSError (ENOSPC, EROFS ...)."""
        entry_id = uuid.uuid4().hex.encode("ascii")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        data = self.io.open(self.directory.number, entry_id + _DATA, flags)
        try:
            log = self.io.open(self.directory.number, entry_id + _LOG, flags)
        except OSError:
            self.remove(entry_id + _DATA)
            raise
        return StagingEntry(self, entry_id, data, log, LogWriter(self.io, log, self.boot_id))

    @contextlib.contextmanager
    def temporary_file(self, mode: int) -> Iterator[Fd]:
        """Make an empty file whose name is gone at the end of the block; raises OSError."""
        name = uuid.uuid4().hex.encode("ascii") + _NEW
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        opened = self.io.open(self.directory.number, name, flags, mode)
        try:
            yield opened
        finally:
            self.remove(name)

    def load(self, entry_id: bytes) -> tuple["StagingEntry", LogState] | None:
        """Reattach an entry that an earlier daemon left.

        After a power cut the data file is cut to the size of its last SYNC and the log written anew.

        Returns:
            The entry and what its log says, or ``None`` when nothing in it counts (the caller discards it).

        Raises:
            OSError: the files cannot be read.
        """
        where = self.directory.number
        log = Fd(os.open(entry_id + _LOG, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=where))
        state = staginglog.replay(os.pread(log.number, os.fstat(log.number).st_size, 0), self.boot_id)
        if state.base is None:
            return None
        try:
            data = Fd(os.open(entry_id + _DATA, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=where))
        except FileNotFoundError:
            return None
        writer = LogWriter(self.io, log, self.boot_id, sequence=state.next_sequence, offset=state.good_length)
        entry = StagingEntry(self, entry_id, data, log, writer)
        entry.low_size = state.low_size
        if not state.current_boot:
            if state.synced_size is None:
                return None
            self.io.ftruncate(data, state.synced_size)
            self.io.set_times(data, None, state.synced_mtime_ns)
            entry.rewrite_log(state)
        entry.synced = state.synced_size is not None
        return entry, state

    def remove(self, name: bytes) -> None:
        """Remove a file of the area if it is there; raises OSError for anything but its absence."""
        with contextlib.suppress(FileNotFoundError):
            self.io.unlink(self.directory.number, name)

    def discard(self, entry_id: bytes) -> None:
        """Remove an entry, log first; raises OSError."""
        for ending in (_LOG, _DATA, _NEW):
            self.remove(entry_id + ending)


class StagingEntry:
    """One file's uncommitted content.

    The inode's content lock (:class:`qatqfs.store.node.Node`) protects the data file against two writers;
    the log has a lock of its own, because renames and unlinks append to it without the content lock.

    Attributes:
        data: descriptor of the data file, valid as long as anyone holds it, also after :meth:`drop`.
        low_size: lowest logical size since the base in bytes, ``None`` when it never shrank.
        synced: a SYNC record was written, so the entry survives a power cut and its commit has to as well.
    """

    def __init__(self, area: StagingArea, entry_id: bytes, data: Fd, log: Fd, writer: LogWriter) -> None:
        self.area = area
        self.entry_id = entry_id
        self.data = data
        self.low_size: int | None = None
        self.synced = False
        self._log_fd = log
        self._writer = writer
        self._log_lock = threading.Lock()

    @property
    def new_name(self) -> bytes:
        """Name, in the staging directory, of the container that a commit writes."""
        return self.entry_id + _NEW

    @property
    def size(self) -> int:
        """The logical size in bytes."""
        return os.fstat(self.data.number).st_size

    @property
    def mtime_ns(self) -> int:
        """The logical modification time in nanoseconds."""
        return os.fstat(self.data.number).st_mtime_ns

    def begin(self, base: Base, path: bytes) -> None:
        """Write the log's first records; raises OSError."""
        with self._log_lock:
            self._writer.base(base)
            self._writer.path(path)

    def log_valid(self, first: int, count: int) -> None:
        """Record that chunks are held by the data file; raises OSError."""
        with self._log_lock:
            self._writer.valid(first, count)

    def log_path(self, path: bytes) -> None:
        """Record where the file is about to be; raises OSError."""
        with self._log_lock:
            self._writer.path(path)

    def log_unlink(self) -> None:
        """Record that the last name is about to go; raises OSError."""
        with self._log_lock:
            self._writer.unlink()

    def log_intent(self, identity: Identity) -> None:
        """Record the container about to replace the base, durably if the entry is; raises OSError."""
        with self._log_lock:
            self._writer.intent(identity)
            if self.synced:
                self.area.io.fdatasync(self._log_fd)

    def rewrite_log(self, state: LogState) -> None:
        """Replace the log by one of the running boot that says the same, durably; raises OSError."""
        temporary = self.entry_id + _RELOG
        where = self.area.directory.number
        self.area.remove(temporary)
        log = self.area.io.open(where, temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
        writer = LogWriter(self.area.io, log, self.area.boot_id)
        assert state.base is not None
        writer.base(state.base)
        for path in state.paths:
            writer.path(path)
        for first, stop in state.valid:
            writer.valid(first, stop - first)
        if state.low_size is not None:
            writer.size(self.size, state.low_size)
        for identity in state.intents:
            writer.intent(identity)
        if state.unlinked:
            writer.unlink()
        self.area.io.fdatasync(self.data)
        writer.sync(self.size, self.mtime_ns)
        self.area.io.fdatasync(log)
        self.area.io.rename(where, temporary, where, self.entry_id + _LOG)
        self.area.io.fsync_directory(where)
        self._log_fd, self._writer = log, writer

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write application data at a logical offset; returns the bytes written. Raises OSError."""
        return self.area.io.pwrite_all(self.data, data, offset)

    def truncate(self, size: int) -> None:
        """Set the logical size in bytes, zeros where it grows; sets the mtime. Raises OSError."""
        low = size if self.low_size is None else min(size, self.low_size)
        with self._log_lock:
            self._writer.size(size, low)
        self.low_size = low
        self.area.io.ftruncate(self.data, size)

    def sync(self) -> None:
        """Make what was written so far survive a power cut; raises OSError."""
        st = os.fstat(self.data.number)
        self.area.io.fdatasync(self.data)
        with self._log_lock:
            self._writer.sync(st.st_size, st.st_mtime_ns)
            self.area.io.fdatasync(self._log_fd)
        if not self.synced:
            self.area.io.fsync_directory(self.area.directory.number)
            self.synced = True

    def drop(self) -> None:
        """Remove the entry's files; who holds the data descriptor can still read it. Raises OSError."""
        self.area.discard(self.entry_id)
