"""Linux calls that Python lacks, through ctypes to the C library, and what the system says about the machine."""

import contextlib
import ctypes
import os
import struct
import threading
from pathlib import Path

from qatqfs.store.system.fd import Fd

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


def yield_to_others() -> None:
    """Lower the priority of the calling thread, below that of threads that a program waits for."""
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
