"""The store's own directory, ``BACKING/.qatqfs``: format stamp, lock, staging and lost+found.

Mode 0700 and never visible in the mount. A read-only store creates and locks nothing.
"""

import contextlib
import fcntl
import os
import stat

from qatqfs.store.backingio import BackingIO
from qatqfs.store.errors import StoreError
from qatqfs.store.names import PRIVATE_DIR, SUFFIX
from qatqfs.store.sysfile import Fd

FORMAT_LINE = b"qatqfs backing directory, format 1\n"
"""What ``.qatqfs/format`` holds; any other content is a version this code does not know."""

_FORMAT, _LOCK, STAGING, LOST_AND_FOUND = b"format", b"lock", b"staging", b"lost+found"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _make_directory(io: BackingIO, parent: Fd, name: bytes) -> Fd:
    try:
        io.mkdir(parent.number, name, 0o700)
        io.fsync_directory(parent.number)
    except FileExistsError:
        pass
    return Fd(os.open(name, _DIRECTORY, dir_fd=parent.number))


def _check_format(directory: Fd) -> bool:
    """Whether a format stamp is there; raises StoreError when it is not ours."""
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


class PrivateArea:
    """The open ``.qatqfs`` of a read-write store, locked until :meth:`close`.

    Args:
        root: open descriptor of BACKING.
        io: makes the changes.

    Raises:
        StoreError: another process has it open for writing, or the format is unknown.
        OSError: it cannot be created or opened.
    """

    def __init__(self, root: Fd, io: BackingIO) -> None:
        self._io = io
        self._directory = _make_directory(io, root, PRIVATE_DIR)
        self._lock = self._take_lock()
        if not _check_format(self._directory):
            _stamp(io, self._directory)
        self.staging = _make_directory(io, self._directory, STAGING)
        self.lost_and_found = _make_directory(io, self._directory, LOST_AND_FOUND)

    def _take_lock(self) -> Fd:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = self._io.open(self._directory.number, _LOCK, flags)
        try:
            fcntl.flock(fd.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd.number, 20).decode("ascii", "replace").strip()
            by = f" by process {holder}" if holder.isdigit() else ""
            raise StoreError(f"BACKING is already in use for writing{by} (a second mount may be --read-only)") from None
        self._write_holder(fd)
        return fd

    def _write_holder(self, fd: Fd) -> None:
        with contextlib.suppress(OSError):  # on a full disk; the lock holds without it
            self._io.ftruncate(fd, 0)
            self._io.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Release the lock."""
        try:
            self._io.ftruncate(self._lock, 0)
        finally:
            fcntl.flock(self._lock.number, fcntl.LOCK_UN)


def waiting_files(root: Fd) -> int:
    """Count the staging entries of a BACKING that is opened read-only; they are not visible in it.

    Raises:
        StoreError: the format is unknown.
        OSError: it cannot be read.
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
