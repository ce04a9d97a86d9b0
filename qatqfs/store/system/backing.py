"""Every change that a store makes below BACKING, one method for each system call.

No other code of the store changes files, names or metadata. So a test can replace this object
(:class:`qatqfs.store.Store` takes one) by its own, which fails a call, does half of it, stops everything before or
after it, or keeps a record from which it plays a loss of power. Reads do not use it.

Directories are open descriptors (O_PATH is enough), names are ``bytes``. Every method raises :class:`OSError` as
its system call does.
"""

import ctypes
import errno
import os
import re
from collections.abc import Sequence

from qatqfs.store.system.calls import fail, host_takes_free_memory, libc, renameat2, set_times
from qatqfs.store.system.fd import Fd, open_listing

Buffer = bytes | bytearray | memoryview

_PUNCH_HOLE_KEEP_SIZE = 3  # fallocate(2): FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE

_CANNOT_COPY = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL)
_CANNOT_DROP = (
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EPERM,
)  # from the filesystem, or a seccomp filter
_COPY_BYTES = 1 << 20
_copy_file_range = getattr(os, "copy_file_range", None)  # missing in a Python that was built for an old C library
_MOST_BUFFERS = 64  # more are joined first; the system takes 1,024 at a time
_SYNC_FILE_RANGE_WRITE = 2  # sync_file_range(2)
_RWF_DONTCACHE = 0x80  # pwritev2(2)


def drops_safely(release: str) -> bool:
    """Whether uncached writes are safe with a kernel of this release (uname(2)).

    They came with Linux 6.14. Until 6.16 a page that was written again before it was on disk could be dropped.
    """
    return tuple(map(int, re.findall(r"\d+", release)[:2])) >= (6, 16)


HOST_TAKES_MEMORY = host_takes_free_memory()
"""Whether fresh memory is expensive here. The kernel caches a large write in large blocks of memory. The host takes
back large free blocks, and each fault on one costs several microseconds for 4 KiB, more than the rest of the write. So
large writes are made in pieces there; the kernel caches these in small blocks, which it keeps at hand."""
_SMALL_PIECE_BYTES = 32 << 10  # eight pages, the most that Linux keeps lists of for each processor

CAN_DROP = drops_safely(os.uname().release)
"""Whether the kernel can write uncached. A filesystem may still refuse to."""

OPERATIONS = (
    *("open", "pwrite", "ftruncate", "copy_range", "punch", "fsync", "fdatasync", "fsync_directory", "syncfs"),
    *("link", "link_open", "unlink", "rmdir", "rename", "mkdir", "symlink", "mknod"),
    *("chmod", "chown", "chown_symlink", "set_times", "setxattr", "removexattr"),
)
"""The methods that are one system call each. The other changing methods call these, or are a form of ``pwrite``."""


class BackingIO:
    """The real system calls. It has no state, so any number of threads may use one object."""

    # -- content ---------------------------------------------------------------------------------------

    def open(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> Fd:
        """Open with flags that may create (O_CREAT, O_TMPFILE)."""
        return Fd(os.open(name, flags, mode, dir_fd=directory))

    def pwrite(self, fd: Fd, data: Buffer, offset: int) -> int:
        """Write once and return how many bytes were written."""
        return os.pwrite(fd.number, data, offset)

    def pwritev(self, fd: Fd, buffers: Sequence[Buffer], offset: int, *, uncached: bool = False) -> int:
        """Write several buffers one after another in one call, and return how many bytes were written.

        Args:
            fd: the file.
            buffers: what to write.
            offset: where.
            uncached: drop it from the page cache as soon as it is on disk, where the system can.
        """
        if len(buffers) > _MOST_BUFFERS:
            buffers = [b"".join(buffers)]
        if uncached and CAN_DROP:
            try:
                return os.pwritev(fd.number, buffers, offset, _RWF_DONTCACHE)
            except NotImplementedError:  # a Python that was built for an old C library
                pass
            except OSError as err:
                if err.errno not in _CANNOT_DROP:
                    raise
        return os.pwritev(fd.number, buffers, offset)

    def write_back(self, fd: Fd, offset: int, size: int) -> None:
        """Ask the kernel to begin to write a range to disk. It does not wait, and never fails."""
        libc.sync_file_range(fd.number, ctypes.c_long(offset), ctypes.c_long(size), _SYNC_FILE_RANGE_WRITE)

    def pwrite_all(self, fd: Fd, data: Buffer, offset: int) -> int:
        """Write a buffer and return how many bytes were written.

        The write is short only if an error came after the first bytes, as with write(2). The next call reports it.
        """
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            stop = len(view)
            if HOST_TAKES_MEMORY:
                stop = done + _SMALL_PIECE_BYTES - (offset + done) % _SMALL_PIECE_BYTES
            try:
                done += self.pwrite(fd, view[done:stop], offset + done)
            except OSError:
                if done == 0:
                    raise
                break
        return done

    def ftruncate(self, fd: Fd, size: int) -> None:
        """Set the size of a file in bytes."""
        os.ftruncate(fd.number, size)

    def copy_range(self, source: Fd, offset: int, target: Fd, target_offset: int, size: int) -> int:
        """Copy bytes from one file to another in the kernel, which shares them where it can; returns how many."""
        try:
            if _copy_file_range is not None:
                return int(_copy_file_range(source.number, target.number, size, offset, target_offset))
        except OSError as err:
            if err.errno not in _CANNOT_COPY:
                raise
        return os.pwrite(target.number, os.pread(source.number, min(size, _COPY_BYTES), offset), target_offset)

    def punch(self, fd: Fd, offset: int, size: int) -> None:
        """Free the space of a range, which reads as zeros from then on."""
        if libc.fallocate(fd.number, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
            raise fail()

    def fsync(self, fd: Fd) -> None:
        """Make content and metadata of a file survive a loss of power."""
        os.fsync(fd.number)

    def fdatasync(self, fd: Fd) -> None:
        """Make content and size of a file survive a loss of power."""
        os.fdatasync(fd.number)

    def syncfs(self, fd: Fd) -> None:
        """Make everything on the filesystem that a file is on survive a loss of power."""
        if libc.syncfs(fd.number) != 0:
            raise fail()

    # -- names -----------------------------------------------------------------------------------------

    def fsync_directory(self, directory: int) -> None:
        """Make the names in a directory survive a loss of power."""
        fd = Fd(open_listing(directory))
        os.fsync(fd.number)

    def link(self, source_directory: int, source: bytes, directory: int, name: bytes) -> None:
        """Give a file another name; a symlink is not followed."""
        os.link(source, name, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)

    def link_open(self, fd: Fd, directory: int, name: bytes) -> None:
        """Give a name to an open file that may have none."""
        os.link(fd.proc_path, name, dst_dir_fd=directory, follow_symlinks=True)

    def unlink(self, directory: int, name: bytes) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=directory)

    def rmdir(self, directory: int, name: bytes) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=directory)

    def rename(self, source_directory: int, source: bytes, directory: int, name: bytes, flags: int = 0) -> None:
        """Rename, replacing, or as the flags of renameat2(2) say."""
        if flags:
            renameat2(source_directory, source, directory, name, flags)
        else:
            os.rename(source, name, src_dir_fd=source_directory, dst_dir_fd=directory)

    def mkdir(self, directory: int, name: bytes, mode: int) -> None:
        """Make a directory."""
        os.mkdir(name, mode, dir_fd=directory)

    def symlink(self, target: bytes, directory: int, name: bytes) -> None:
        """Make a symbolic link."""
        os.symlink(target, name, dir_fd=directory)

    def mknod(self, directory: int, name: bytes, mode: int, rdev: int) -> None:
        """Make a special file."""
        os.mknod(name, mode, rdev, dir_fd=directory)

    # -- metadata, of an open file of any kind (O_PATH is enough) --------------------------------------

    def chmod(self, fd: Fd, mode: int) -> None:
        """Set the permission bits."""
        os.chmod(fd.proc_path, mode)

    def chown(self, fd: Fd, uid: int, gid: int) -> None:
        """Set owner and group, -1 leaving one alone."""
        os.chown(fd.proc_path, uid, gid)

    def chown_symlink(self, directory: int, name: bytes, uid: int, gid: int) -> None:
        """Set owner and group of a symbolic link itself."""
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)

    def set_times(self, fd: Fd, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set access and modification time in nanoseconds, ``None`` leaving one alone."""
        set_times(fd, atime_ns, mtime_ns)

    def setxattr(self, fd: Fd, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        os.setxattr(fd.proc_path, name, value)

    def removexattr(self, fd: Fd, name: bytes) -> None:
        """Remove an extended attribute."""
        os.removexattr(fd.proc_path, name)
