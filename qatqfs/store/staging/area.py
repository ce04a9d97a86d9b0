"""The directory of staging entries: the files that an entry consists of, by name.

An entry is two files in ``BACKING/.qatqfs/staging``: ``ID.data``, which holds bytes of the logical file at their
logical offsets, and ``ID.log`` (:mod:`qatqfs.store.staging.records`), which says what they mean.

Other files come and go. These mean nothing to a later daemon:

* ``ID-N.new`` is a draft, a container in the making.
* ``N.pre`` is content that a commit has still to read. Its name goes at once, and the file stays open.
* ``ID.relog`` is about to replace the log.

These do:

* ``ID.redo`` is the redo file: a finished container that is being copied into a file with several names
  (:mod:`qatqfs.store.commit.in_place`).
* ``INO-BTIME-OCTAL.mode`` says which mode a file has that is opened against its mode
  (:mod:`qatqfs.store.names.own_files`).

The data file is created first and removed first. So an entry that is half made or half removed is an empty data file,
or a log alone. A data file with content but without a readable log is neither. It is never removed, but moved to
lost+found as it is, and so is a redo file.

Abandoning a file never fails. A file that cannot be removed is noted, and removal is tried again: before the next
commit, before a writer gets ENOSPC, when the store is closed, and when it is opened.
"""

import contextlib
import itertools
import logging
import os
import threading
import uuid
from collections.abc import Iterator

from qatqfs.store.paths import SUFFIX
from qatqfs.store.staging import records
from qatqfs.store.staging.space import SpaceLedger
from qatqfs.store.staging.view import data_ranges
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)

DATA, LOG, NEW, RELOG, PRE, REDO = b".data", b".log", b".new", b".relog", b".pre", b".redo"
MODE = b".mode"
FILES_OF_ENTRY = 2
"""Data file and log: what an entry has while it is in use."""
NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOATIME
_ORDER = (DATA, REDO, LOG)  # of removal: the log says until the end that the others are not needed
_EXCLUSIVE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class StagingArea:
    """The directory that holds the entries of one store.

    Args:
        directory: open descriptor of ``.qatqfs/staging``.
        lost_and_found: of ``.qatqfs/lost+found``.
        io: makes the changes.

    Attributes:
        directory: see above.
        lost_and_found: see above.
        io: see above.
        space: what the entries have reserved.
        boot_id: of the running boot.
    """

    def __init__(self, directory: Fd, lost_and_found: Fd, io: BackingIO) -> None:
        self.directory = directory
        self.lost_and_found = lost_and_found
        self.io = io
        self.space = SpaceLedger(directory)
        self.boot_id = records.current_boot_id()
        self._abandoned: dict[bytes, Fd | None] = {}  # by name, with the file if it has still to be emptied
        self._abandoned_lock = threading.Lock()

    def entry_ids(self) -> list[bytes]:
        """List the entries that have a log, in no particular order; raises OSError."""
        suffix = LOG.decode()
        return [os.fsencode(n)[: -len(LOG)] for n in os.listdir(self.directory.number) if n.endswith(suffix)]

    def names_with(self, ending: bytes) -> list[bytes]:
        """List the files whose names have this ending; raises OSError."""
        return [name for name in map(os.fsencode, os.listdir(self.directory.number)) if name.endswith(ending)]

    def remove_leftovers(self) -> int:
        """Remove half-made files: entries without content, and containers that never got their name.

        Returns:
            How many files without a log were moved to lost+found. A file that cannot be moved stays.

        Raises:
            OSError: the directory cannot be read.
        """
        kept = 0
        names = {os.fsencode(name) for name in os.listdir(self.directory.number)}
        for name in names:
            stem, dot, ending = name.rpartition(b".")
            kind = dot + ending
            if kind in (NEW, RELOG, PRE):
                self.abandon(name)
            elif kind in (DATA, REDO) and stem + LOG not in names:
                try:
                    kept += self.keep(name, "has no log")
                except OSError as err:
                    log.error("staging file %s has no log and stays: %s", os.fsdecode(name), str(err))
        return kept

    def keep(self, name: bytes, why: str) -> bool:
        """Move a file to lost+found as it is if it has content, else remove it; return whether it was moved.

        Args:
            name: of the file.
            why: what is wrong with it, for the log.

        Raises:
            OSError: it cannot be read or moved.
        """
        found = self._with_content(name)
        if found is None:
            self.abandon(name)
            return False
        self.io.fsync(found)
        kept_as = self.free_lost_name(name + (SUFFIX if name.endswith(REDO) else b""))
        self._move(name, kept_as)
        log.error(
            "staging file %s of %d bytes %s; it is kept in lost+found as %s",
            os.fsdecode(name),
            os.fstat(found.number).st_size,
            why,
            os.fsdecode(kept_as),
        )
        return True

    def _with_content(self, name: bytes) -> Fd | None:
        """Open a file if it has content; raises OSError."""
        try:
            found = Fd(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.directory.number))
        except FileNotFoundError:
            return None
        return found if data_ranges(found, os.fstat(found.number).st_size) else None

    def keep_entry(self, entry_id: bytes, why: str) -> bool:
        """As :meth:`keep`, for all files of an entry whose data file or redo file has content."""
        contents = [entry_id + ending for ending in (DATA, REDO) if self._with_content(entry_id + ending) is not None]
        if not contents:
            self.abandon_entry(entry_id)
            return False
        self._move(entry_id + LOG, self.free_lost_name(entry_id + LOG))  # first: files without a log are kept, too
        for name in contents:
            self.keep(name, why)
        return True

    def _move(self, name: bytes, kept_as: bytes) -> None:
        self.io.rename(self.directory.number, name, self.lost_and_found.number, kept_as)
        self.io.fsync_directory(self.lost_and_found.number)

    def free_lost_name(self, name: bytes) -> bytes:
        """Return a name that is free in lost+found: this one, or one with a number before its last ending."""
        stem, dot, ending = name.rpartition(b".")
        candidates = (b"%s-%d%s%s" % (stem, number, dot, ending) for number in itertools.count(2))
        for candidate in itertools.chain([name], candidates):
            try:
                os.stat(candidate, dir_fd=self.lost_and_found.number, follow_symlinks=False)
            except FileNotFoundError:
                return candidate
        raise AssertionError("unreachable")  # some number is free

    def open_exclusively(self, name: bytes, mode: int = 0o600) -> Fd:
        """Create a file that does not exist yet; raises OSError (ENOSPC, EROFS ...)."""
        return self.io.open(self.directory.number, name, _EXCLUSIVE, mode)

    def open_new(self, name: bytes) -> Fd:
        """Create an empty file, or empty the file of that name; raises OSError."""
        return self.io.open(self.directory.number, name, NEW_FLAGS)

    def open_unnamed(self) -> Fd:
        """Create a file without a name, which goes with its last descriptor; raises OSError."""
        name = self.new_id() + PRE
        with self.room_for(1):
            opened = self.open_exclusively(name)
        self.abandon(name)
        return opened

    @contextlib.contextmanager
    def room_for(self, count: int, *, later: int = 0) -> Iterator[None]:
        """As :meth:`SpaceLedger.new_files`, but if there is no room, first try to remove abandoned files."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.space.new_files(count, later=later))
            except OSError:
                if not self.retry_abandoned():
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
        """Return an unused name for an entry."""
        return uuid.uuid4().hex.encode("ascii")

    @contextlib.contextmanager
    def temporary_file(self, mode: int) -> Iterator[tuple[Fd, bytes]]:
        """Create an empty file and yield it with its name, which goes at the end of the block; raises OSError."""
        name = self.new_id() + NEW
        opened = self.open_exclusively(name, mode)
        try:
            yield opened, name
        finally:
            self.abandon(name)

    def remove(self, name: bytes) -> None:
        """Remove a file of the area if it exists; raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self.io.unlink(self.directory.number, name)

    def abandon(self, name: bytes, fd: Fd | None = None) -> None:
        """Remove a file that is no longer needed, now or, if that fails, later; never fails.

        Args:
            name: of the file, which is not used again.
            fd: the file, to give back its space at once, even while it is open or its name cannot be removed.
        """
        failure = self._try_to_remove(name, fd)
        if failure is not None:
            log.warning("staging file %s cannot be removed yet: %s", shown_path(name), failure)

    def _try_to_remove(self, name: bytes, fd: Fd | None) -> str | None:
        """Return what went wrong, if anything, as text. The error itself would keep the callers' frames alive."""
        failure = None
        if fd is not None and self._leads_to(name, fd):
            try:
                self.io.ftruncate(fd, 0)
                fd = None
            except OSError as err:  # its space goes with the name, then
                failure = describe(err)
        try:
            self.remove(name)
        except OSError as err:
            with self._abandoned_lock:
                self._abandoned[name] = fd
            return failure or describe(err)
        return None

    def _leads_to(self, name: bytes, fd: Fd) -> bool:
        """Whether a file still has its name here. A draft that got another name is a user's file by now."""
        try:
            there = os.stat(name, dir_fd=self.directory.number, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(fd.number))

    def retry_abandoned(self) -> bool:
        """Try again to remove abandoned files; return whether any of them is gone. Never fails."""
        if not self._abandoned:
            return False
        with self._abandoned_lock:
            waiting, self._abandoned = self._abandoned, {}
        stuck: set[bytes] = set()
        gone = False
        for name, fd in waiting.items():
            stem = name.rpartition(b".")[0]
            if stem in stuck:  # an entry's log stays as long as its data file
                with self._abandoned_lock:
                    self._abandoned[name] = fd
            elif self._try_to_remove(name, fd) is None:
                gone = True
            else:
                stuck.add(stem)
        return gone

    def abandon_entry(self, entry_id: bytes) -> None:
        """Remove an entry as :meth:`discard` does, now or, if that fails, later; never fails."""
        names = [entry_id + ending for ending in _ORDER]
        while names and (failure := self._try_to_remove(names[0], None)) is None:
            del names[0]
        if names:  # the later ones have to stay until the first is gone
            log.warning("staging file %s cannot be removed yet: %s", os.fsdecode(names[0]), failure)
            with self._abandoned_lock:
                self._abandoned.update(dict.fromkeys(names))
        self.space.release(entry_id)

    def discard(self, entry_id: bytes) -> None:
        """Remove an entry, its log last, and give back what it had reserved; raises OSError."""
        try:
            for ending in _ORDER:
                self.remove(entry_id + ending)
        finally:
            self.space.release(entry_id)
