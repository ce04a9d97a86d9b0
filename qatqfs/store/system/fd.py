"""Owned file descriptors: how the store opens directories and reads files.

Everything here is :mod:`os`; what Python lacks is in :mod:`qatqfs.store.system.calls`.
"""

import contextlib
import errno
import os
import time

_READ_ATTEMPTS = 3
_RETRY_PAUSE_S = 0.02


class Fd:
    """A file descriptor that is closed with the last reference to it.

    A reader keeps a reference. So the number is not reused during its pread, even if the file is replaced meanwhile.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        """Return the descriptor's number."""
        return self.number

    def __del__(self) -> None:
        # At interpreter exit the modules may be gone already, and the kernel closes everything anyway.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            os.close(self.number)

    @property
    def proc_path(self) -> str:
        """A path of the open file itself, for calls that take no descriptor. Works for O_PATH, too."""
        return f"/proc/self/fd/{self.number}"


def pread_exact(fd: int, size: int, offset: int) -> bytes:
    """Read up to ``size`` bytes at ``offset``; shorter only at end of file.

    A read that fails with EIO is tried again twice, because a passing fault of the disk must not count as damage.

    Raises:
        OSError: what pread(2) reported last.
    """
    for attempt in range(_READ_ATTEMPTS):
        try:
            data = os.pread(fd, size, offset)
            while len(data) < size:
                more = os.pread(fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data
        except OSError as err:
            if err.errno not in (errno.EIO, errno.EAGAIN) or attempt == _READ_ATTEMPTS - 1:
                raise
            time.sleep(_RETRY_PAUSE_S)
    raise AssertionError("unreachable")  # the last attempt returned or raised


def open_directory(root: int, parts: list[bytes]) -> int:
    """Open a directory below ``root`` for use as ``dir_fd``, following no symlink on the way.

    Raises:
        OSError: ENOENT, ENOTDIR (also for a symlink), EACCES.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(b".", flags, dir_fd=root)
    for part in parts:
        try:
            below = os.open(part, flags, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def open_listing(directory: int) -> int:
    """Open an O_PATH descriptor of a directory again, for listing and fsync; raises OSError.

    Opening ``.`` relative to it would need search permission, which may be missing where read permission is given.
    """
    return os.open(f"/proc/self/fd/{directory}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def reopen(fd: Fd, flags: int) -> Fd:
    """Open a regular file again that is open as an O_PATH descriptor or better; its atime stays, where it is ours.

    Raises:
        OSError: as open(2) does.
    """
    try:
        return Fd(os.open(fd.proc_path, flags | os.O_CLOEXEC | os.O_NOATIME))
    except OSError as err:
        if err.errno != errno.EPERM:  # O_NOATIME is for the owner and root
            raise
        return Fd(os.open(fd.proc_path, flags | os.O_CLOEXEC))


def open_entry(directory: int, name: bytes) -> Fd:
    """Open an entry of any type as an O_PATH descriptor, a symlink as itself; raises OSError."""
    return Fd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory))


def fsync_directory(directory: int) -> None:
    """Make the names in a directory durable; ``directory`` may be an O_PATH descriptor. Raises OSError."""
    fd = open_listing(directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
