"""What the store needs of the system beyond :mod:`os`: owned descriptors, statx, renameat2, exact pread.

Nothing here knows of containers. Calls that Python lacks go through ctypes to the C library.
"""

import contextlib
import ctypes
import errno
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_SIZE = 256
_STATX_BTIME_OFFSET = 80
_UTIME_OMIT = (1 << 30) - 2
_NANOSECONDS = 1_000_000_000

RENAME_NOREPLACE = 1
"""renameat2(2): fail with EEXIST when the new name exists."""
RENAME_EXCHANGE = 2
"""renameat2(2): swap the two names."""

_BACKGROUND_NICENESS = 5
_BALLOON_REPORTING = 5  # feature bit VIRTIO_BALLOON_F_PAGE_REPORTING (virtio 1.2, section 5.5.3)
_READ_ATTEMPTS = 3
_RETRY_PAUSE_S = 0.02


class Fd:
    """A file descriptor that closes itself when the last reference to it goes.

    A reader keeps the object, so a descriptor number is never reused under a running pread, whoever
    replaces or drops the file meanwhile.
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
        """A path that names the open file itself, for calls that take no descriptor (O_PATH included)."""
        return f"/proc/self/fd/{self.number}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which container (or raw file) a staging entry builds on, or is about to become.

    An inode number alone says nothing: ext4 gives a freed one to the next file it creates. The device is not
    part of it: entries reach only files on BACKING's own device, whose number may change over a reboot.

    Attributes:
        ino: st_ino.
        btime_ns: birth time from statx(2) in nanoseconds, 0 where the filesystem has none.
        size: stored size in bytes.
        head: the file's first 32 bytes (a container's header, aggregate checksum included), zero-padded.
    """

    ino: int
    btime_ns: int
    size: int
    head: bytes

    _LAYOUT = struct.Struct("<QQQ32s")

    def pack(self) -> bytes:
        """Return the 56 bytes that a log record holds."""
        return self._LAYOUT.pack(self.ino, self.btime_ns, self.size, self.head)

    @classmethod
    def unpack(cls, data: bytes) -> "Identity":
        """Read what :meth:`pack` wrote; struct.error on another length."""
        return cls(*cls._LAYOUT.unpack(data))

    @classmethod
    def of(cls, fd: int) -> "Identity":
        """Read the identity of an open regular file (needs read permission on ``fd``)."""
        st = os.fstat(fd)
        return cls(st.st_ino, birth_time_ns(fd), st.st_size, os.pread(fd, 32, 0).ljust(32, b"\0"))

    def is_same_inode(self, fd: int) -> bool:
        """Whether an open file is the one that had this identity, whatever has been written to it since."""
        return os.fstat(fd).st_ino == self.ino and birth_time_ns(fd) == self.btime_ns

    PACKED_SIZE = _LAYOUT.size


def fail(path: bytes | None = None) -> OSError:
    """Return the OSError of a C library call that failed just now in this thread."""
    number = ctypes.get_errno()
    name = os.fsdecode(path) if path is not None else None
    return OSError(number, os.strerror(number), name)


def birth_time_ns(fd: int) -> int:
    """Return the birth time of an open file in nanoseconds since the epoch, 0 when unknown (statx(2))."""
    buf = ctypes.create_string_buffer(_STATX_SIZE)
    if libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, buf) != 0:
        return 0
    (mask,) = struct.unpack_from("=I", buf.raw, 0)
    if not mask & _STATX_BTIME:
        return 0
    seconds, nanoseconds = struct.unpack_from("=qI", buf.raw, _STATX_BTIME_OFFSET)
    return max(0, int(seconds) * _NANOSECONDS + int(nanoseconds))


def renameat2(src_dir: int, src: bytes, dst_dir: int, dst: bytes, flags: int) -> None:
    """Rename with RENAME_NOREPLACE or RENAME_EXCHANGE (renameat2(2)); raises OSError."""
    if libc.renameat2(src_dir, src, dst_dir, dst, ctypes.c_uint(flags)) != 0:
        raise fail(dst)


def set_times(fd: Fd, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set the access and modification time in nanoseconds; ``None`` leaves one alone (utimensat(2)).

    Raises:
        OSError: as utimensat does.
    """
    spec = (ctypes.c_long * 4)()
    for i, value in enumerate((atime_ns, mtime_ns)):
        if value is None:
            spec[2 * i], spec[2 * i + 1] = 0, _UTIME_OMIT
        else:
            spec[2 * i], spec[2 * i + 1] = divmod(value, _NANOSECONDS)
    if libc.utimensat(_AT_FDCWD, fd.proc_path.encode(), spec, 0) != 0:
        raise fail()


def pread_exact(fd: int, size: int, offset: int) -> bytes:
    """Read up to ``size`` bytes at ``offset``; shorter only at end of file.

    An EIO is tried again twice: a passing fault of the disk must not count as damage.

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


def yield_to_others() -> None:
    """Let the calling thread step back for threads that somebody waits for; without effect where nobody else runs."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)


def host_takes_free_memory(drivers: Path = Path("/sys/bus/virtio/drivers")) -> bool:
    """Whether this is a virtual machine whose host takes back memory that is free (free page reporting).

    Args:
        drivers: where the kernel lists the devices of virtio drivers.
    """
    for features in drivers.glob("virtio_balloon/virtio*/features"):
        with contextlib.suppress(OSError):
            if features.read_text()[_BALLOON_REPORTING : _BALLOON_REPORTING + 1] == "1":
                return True
    return False


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
    """Open a directory, for listing and fsync, that is open as an O_PATH descriptor; raises OSError.

    Not as ``.`` below itself, which takes the right to search it, and that need not come with the right to list it.
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
