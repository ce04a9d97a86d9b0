"""The store's own directory, ``BACKING/.qatqfs``: format stamp, lock, staging and lost+found.

Mode 0700 and never visible in the mount. A read-only store creates and locks nothing.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

from qatqfs.store.errors import StoreError, StoreInUse
from qatqfs.store.holder import Holder, State, read_holder
from qatqfs.store.paths import PRIVATE_DIR, SUFFIX
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd

log = logging.getLogger(__name__)

FORMAT_LINE = b"qatqfs backing directory, format 1\n"
"""What ``.qatqfs/format`` holds; any other content is a version this code does not know."""

_FORMAT, LOCK, STAGING, LOST_AND_FOUND = b"format", b"lock", b"staging", b"lost+found"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLOCK_LINE = re.compile(r"FLOCK +ADVISORY +WRITE +(?P<pid>\d+) +(?P<what>\S+)")  # proc_locks(5)
_CANNOT_LOCK_DIRECTORIES = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def _make_directory(io: BackingIO, parent: Fd, name: bytes) -> Fd:
    try:
        io.mkdir(parent.number, name, 0o700)
        io.fsync_directory(parent.number)
    except FileExistsError:
        pass
    return Fd(os.open(name, _DIRECTORY, dir_fd=parent.number))


def _check_format(directory: Fd) -> bool:
    """Whether a format stamp is there; raises StoreError if this version does not know it."""
    try:
        fd = Fd(os.open(_FORMAT, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory.number))
    except FileNotFoundError:
        return False
    found = os.read(fd.number, 200)
    if found != FORMAT_LINE:
        line = found.split(b"\n", 1)[0].decode("utf-8", "replace")
        raise StoreError(f"BACKING has a format this version of qatqfs does not know: {line!r}")
    return True


def _stamp(io: BackingIO, directory: Fd) -> None:
    temporary = _FORMAT + b".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = io.open(directory.number, temporary, flags)
    io.pwrite_all(fd, FORMAT_LINE, 0)
    io.fsync(fd)
    io.rename(directory.number, temporary, directory.number, _FORMAT)
    io.fsync_directory(directory.number)


def _locker(directory: Fd) -> str:
    """Return `` by process N`` for the process that has locked a directory, nothing if the system does not tell."""
    st = os.fstat(directory.number)
    name = f"{os.major(st.st_dev):02x}:{os.minor(st.st_dev):02x}:{st.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            match = _FLOCK_LINE.search(line)
            if match is not None and match["what"] == name:
                return f" by process {match['pid']}"
    return ""


def _leads_to(directory: Fd, name: bytes, fd: Fd) -> bool:
    """Whether a name in a directory still leads to an open file."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory.number, follow_symlinks=False), os.fstat(fd.number))
    except FileNotFoundError:
        return False


class PrivateArea:
    """The open ``.qatqfs`` of a read-write store, locked until :meth:`close`.

    Args:
        root: open descriptor of BACKING.
        io: makes the changes.

    Raises:
        StoreInUse: another process has it open for writing.
        StoreError: another process has locked BACKING, or the format is unknown.
        OSError: it cannot be created or opened.
    """

    def __init__(self, root: Fd, io: BackingIO) -> None:
        self._io = io
        self._root = root
        self._holder = Holder(os.getpid())
        self._warned = False
        self._directory = _make_directory(io, root, PRIVATE_DIR)
        self._lock = self._take_lock()
        if not _check_format(self._directory):
            _stamp(io, self._directory)
        self.staging = _make_directory(io, self._directory, STAGING)
        self.lost_and_found = _make_directory(io, self._directory, LOST_AND_FOUND)

    def _take_lock(self) -> Fd:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = self._io.open(self._directory.number, LOCK, flags)
        try:
            fcntl.flock(fd.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreInUse(read_holder(fd.number)) from None
        self._lock_root()
        self._write_holder(fd, self._holder)
        return fd

    def _write_holder(self, fd: Fd, holder: Holder) -> None:
        line = holder.to_bytes()
        with contextlib.suppress(OSError):  # on a full disk; the lock holds without it
            self._io.pwrite(fd, line, 0)  # over the old text, so that readers find no time without any
            self._io.ftruncate(fd, len(line))

    def _lock_root(self) -> None:
        """Lock BACKING itself as well: the lock file can be removed or replaced while a daemon runs, BACKING cannot.

        Network filesystems lock directories for this machine alone, if at all. There the lock file has to do.
        """
        try:
            fcntl.flock(self._root.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"BACKING is locked{_locker(self._root)}, and its .qatqfs/lock is not: that file was removed under"
                " a running daemon, or another program has locked the directory (flock)"
            ) from None
        except OSError as err:
            if err.errno not in _CANNOT_LOCK_DIRECTORIES:
                raise

    def check_in_place(self) -> None:
        """Check that this directory is still the ``.qatqfs`` of BACKING; a missing lock file is only a warning.

        Raises:
            OSError: ESTALE, it was removed, renamed or replaced.
        """
        if not _leads_to(self._root, PRIVATE_DIR, self._directory):
            text = (
                "BACKING/.qatqfs was removed or replaced while it was in use: nothing more can be written, mount again"
            )
            log.error("%s", text)
            raise OSError(errno.ESTALE, text)
        if not self._warned and not _leads_to(self._directory, LOCK, self._lock):
            self._warned = True
            log.warning("BACKING/.qatqfs/lock was removed or replaced; others are kept out all the same")

    def serves(self, mountpoint: str, device: str) -> None:
        """Tell others where this process shows the directory; see :class:`qatqfs.store.holder.Holder`."""
        self._holder = replace(self._holder, mountpoint=mountpoint, device=device)
        self._write_holder(self._lock, self._holder)

    def stops(self) -> None:
        """Tell others that this process is on its way out."""
        self._holder = replace(self._holder, state=State.STOPPING)
        self._write_holder(self._lock, self._holder)

    def close(self, *, left: int = 0, error: str | None = None) -> None:
        """Release the lock, and leave the result in the lock file.

        Args:
            left: files that are still in staging.
            error: what went wrong, ``None`` if nothing did.
        """
        self._holder = replace(self._holder, state=State.ENDED, left=left, error=error)
        fcntl.flock(self._root.number, fcntl.LOCK_UN)  # before the lock file: a process that waits takes both
        try:
            self._write_holder(self._lock, self._holder)
        finally:
            fcntl.flock(self._lock.number, fcntl.LOCK_UN)


def waiting_files(root: Fd) -> int:
    """Count the staging entries of a BACKING that is opened read-only; they are not visible in it.

    Raises:
        StoreError: the format is unknown.
        OSError: it cannot be read; EACCES if it is another user's.
    """
    return len(list_private(root, STAGING, b".log"))


def lost_files(root: Fd) -> list[str]:
    """List the containers in lost+found, and data files that no log accounts for; raises as :func:`waiting_files`."""
    found = (name for ending in (SUFFIX, b".data") for name in list_private(root, LOST_AND_FOUND, ending))
    return sorted(map(os.fsdecode, found))


def list_private(root: Fd, directory: bytes, ending: bytes) -> list[bytes]:
    """List the names with this ending in a directory of ``.qatqfs``, none if it is not there.

    Raises:
        StoreError: the format is unknown.
        OSError: it cannot be read.
    """
    try:
        private = Fd(os.open(PRIVATE_DIR, _DIRECTORY, dir_fd=root.number))
        _check_format(private)
        fd = Fd(os.open(directory, _DIRECTORY, dir_fd=private.number))
    except FileNotFoundError:
        return []
    return [name for name in map(os.fsencode, os.listdir(fd.number)) if name.endswith(ending)]


def open_backing(path: str | os.PathLike[str]) -> Fd:
    """Open the directory that is to be BACKING.

    Raises:
        StoreError: there is none, it is no directory, or it may not be read.
    """
    try:
        fd = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise StoreError(f"backing directory {os.fspath(path)!r} does not exist") from None
    except NotADirectoryError:
        raise StoreError(f"{os.fspath(path)!r} is not a directory") from None
    except OSError as err:
        raise StoreError(f"cannot open backing directory {os.fspath(path)!r}: {err.strerror}") from None
    if not stat.S_ISDIR(os.fstat(fd.number).st_mode):
        raise StoreError(f"{os.fspath(path)!r} is not a directory")
    return fd
