"""The directory of staging entries: the files that an entry consists of, by name.

An entry is two files in ``BACKING/.qatqfs/staging``: ``ID.data``, which holds bytes of the logical file at their
logical offsets, and ``ID.log`` (:mod:`qatqfs.store.staginglog`), which says what they mean. Others come and go:
``ID-N.new``, a container that is being made, ``N.pre``, content that a commit has still to read (open, its name
is gone at once), ``ID.relog``, a log that is about to replace the log. They mean nothing to a later daemon.
``ID.redo`` does: a finished container that is being copied into a file with several names
(:mod:`qatqfs.store.inplace`).

``INO-BTIME-OCTAL.mode`` says which mode a file has that is opened against it (:mod:`qatqfs.store.ownfiles`).

The data file is created first and the log dropped first, so a data file without a log is garbage.

Whoever gives a file up need not care whether it can be removed: what cannot is noted and tried again, before the
next commit, before a writer is told that there is no space, when the store is closed, and when it is opened.
"""

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Iterator

from qatqfs.store import staginglog
from qatqfs.store.backingio import BackingIO
from qatqfs.store.space import SpaceLedger
from qatqfs.store.sysfile import Fd
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)

DATA, LOG, NEW, RELOG, PRE, REDO = b".data", b".log", b".new", b".relog", b".pre", b".redo"
MODE = b".mode"
FILES_OF_ENTRY = 2
"""Data file and log: what an entry has while it is in use."""
NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOATIME
_EXCLUSIVE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class StagingArea:
    """The directory that holds the entries of one store.

    Args:
        directory: open descriptor of ``.qatqfs/staging``.
        io: makes the changes.

    Attributes:
        directory: see above.
        io: see above.
        space: what the entries have reserved.
        boot_id: of the running boot.
    """

    def __init__(self, directory: Fd, io: BackingIO) -> None:
        self.directory = directory
        self.io = io
        self.space = SpaceLedger(directory)
        self.boot_id = staginglog.current_boot_id()
        self._given_up: dict[bytes, Fd | None] = {}  # by name, with what has to be emptied yet
        self._given_up_lock = threading.Lock()

    def entry_ids(self) -> list[bytes]:
        """List the entries that have a log, in no particular order; raises OSError."""
        suffix = LOG.decode()
        return [os.fsencode(n)[: -len(LOG)] for n in os.listdir(self.directory.number) if n.endswith(suffix)]

    def names_with(self, ending: bytes) -> list[bytes]:
        """List the files whose names end so; raises OSError."""
        return [name for name in map(os.fsencode, os.listdir(self.directory.number)) if name.endswith(ending)]

    def sweep(self) -> None:
        """Remove what no log accounts for: half-made entries and containers that never got their name.

        Raises:
            OSError: the directory cannot be read.
        """
        names = {os.fsencode(name) for name in os.listdir(self.directory.number)}
        for name in names:
            stem, dot, ending = name.rpartition(b".")
            kind = dot + ending
            if kind in (NEW, RELOG, PRE) or (kind in (DATA, REDO) and stem + LOG not in names):
                self.give_up(name)

    def open_exclusively(self, name: bytes, mode: int = 0o600) -> Fd:
        """Make a file that is not there yet; raises OSError (ENOSPC, EROFS ...)."""
        return self.io.open(self.directory.number, name, _EXCLUSIVE, mode)

    def open_new(self, name: bytes) -> Fd:
        """Make a file, empty even if one is there; raises OSError."""
        return self.io.open(self.directory.number, name, NEW_FLAGS)

    def open_unnamed(self) -> Fd:
        """Make a file that is gone with its last descriptor; raises OSError."""
        name = self.new_id() + PRE
        with self.room_for(1):
            opened = self.open_exclusively(name)
        self.give_up(name)
        return opened

    @contextlib.contextmanager
    def room_for(self, count: int, *, later: int = 0) -> Iterator[None]:
        """As :meth:`SpaceLedger.new_files`, after what was given up is tried again to be removed if need be."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.space.new_files(count, later=later))
            except OSError:
                if not self.clear_away():
                    raise
                stack.enter_context(self.space.new_files(count, later=later))
            yield

    def open_redo(self, entry_id: bytes) -> Fd | None:
        """Open the redo file of an entry if it has one; raises OSError."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return Fd(os.open(entry_id + REDO, flags, dir_fd=self.directory.number))
        except FileNotFoundError:
            return None

    @staticmethod
    def new_id() -> bytes:
        """Return an entry's name that nobody has."""
        return uuid.uuid4().hex.encode("ascii")

    @contextlib.contextmanager
    def temporary_file(self, mode: int) -> Iterator[tuple[Fd, bytes]]:
        """Make an empty file and yield it with its name, which is gone at the end of the block; raises OSError."""
        name = self.new_id() + NEW
        opened = self.open_exclusively(name, mode)
        try:
            yield opened, name
        finally:
            self.give_up(name)

    def remove(self, name: bytes) -> None:
        """Remove a file of the area if it is there; raises OSError for anything but its absence."""
        with contextlib.suppress(FileNotFoundError):
            self.io.unlink(self.directory.number, name)

    def give_up(self, name: bytes, fd: Fd | None = None) -> None:
        """Remove a file that nobody needs any more, now or, if that fails, later; never fails.

        Args:
            name: of the file, one that is not used again.
            fd: the file, to give its space back at once, whoever has it open and even if its name cannot go.
        """
        failure = self._try_to_remove(name, fd)
        if failure is not None:
            log.warning("staging file %s cannot be removed yet: %s", shown_path(name), failure)

    def _try_to_remove(self, name: bytes, fd: Fd | None) -> str | None:
        """Return what went wrong, as text: the error itself would refer to this frame and keep what callers hold."""
        failure = None
        if fd is not None and self._leads_to(name, fd):
            try:
                self.io.ftruncate(fd, 0)
                fd = None
            except OSError as err:  # then it goes with the name
                failure = describe(err)
        try:
            self.remove(name)
        except OSError as err:
            with self._given_up_lock:
                self._given_up[name] = fd
            return failure or describe(err)
        return None

    def _leads_to(self, name: bytes, fd: Fd) -> bool:
        """Whether a file is the area's own still, and not what got another name and is somebody's file by now."""
        try:
            there = os.stat(name, dir_fd=self.directory.number, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(fd.number))

    def clear_away(self) -> bool:
        """Try again to remove what was given up and could not be; returns whether anything is gone. Never fails."""
        if not self._given_up:
            return False
        with self._given_up_lock:
            waiting, self._given_up = self._given_up, {}
        failures = [self._try_to_remove(name, fd) for name, fd in waiting.items()]
        return None in failures

    def give_up_entry(self, entry_id: bytes) -> None:
        """As :meth:`discard`, but what cannot be removed is removed later; never fails."""
        for ending in (LOG, DATA, REDO):
            self.give_up(entry_id + ending)
        self.space.release(entry_id)

    def discard(self, entry_id: bytes) -> None:
        """Remove an entry, log first, and give back what it had reserved; raises OSError."""
        try:
            for ending in (LOG, DATA, REDO):
                self.remove(entry_id + ending)
        finally:
            self.space.release(entry_id)
