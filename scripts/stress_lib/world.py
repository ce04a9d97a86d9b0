"""Operations in one directory: names are relative to it, open files are slots.

An operation is a list of a name and simple arguments, so that a trace of them can be written down as JSON and
replayed. Its outcome is what a program can see of it: a value, or the name of an errno. The same operations in two
directories on filesystems that behave alike have the same outcomes.
"""

import contextlib
import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qatqfs.mount import control
from qatqfs.store.system.calls import RENAME_EXCHANGE, renameat2

Operation = list[Any]
Outcome = list[Any]

_LONG_AGO_S = 1_500_000_000  # times that operations set are before it, all others are "now"
_PAGE = mmap.PAGESIZE


def pattern(seed: int, size: int) -> bytes:
    """Return bytes that differ for every seed: some compress well, some badly, some are zeros."""
    if seed % 7 == 0:
        return bytes(size)
    block = hashlib.shake_128(seed.to_bytes(8, "little")).digest(257 if seed % 2 else 4099)
    return (block * (size // len(block) + 1))[:size]


def digest(data: bytes) -> str:
    """Return a short name of content, with its length."""
    return f"{len(data)}:{hashlib.blake2b(data, digest_size=8).hexdigest()}"


class World:
    """A directory and the files that are open in it.

    Args:
        root: an existing directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.slots: dict[int, int] = {}

    def apply(self, operation: Operation) -> Outcome:
        """Do an operation; returns ``["ok", value]`` or ``["error", errno's name]``."""
        name, *arguments = operation
        work: Callable[..., Any] = getattr(self, f"do_{name}")
        try:
            return ["ok", work(*arguments)]
        except OSError as err:
            return ["error", errno.errorcode[err.errno or errno.EIO]]

    def close_all(self) -> None:
        """Close every slot, whatever close(2) says."""
        for slot in list(self.slots):
            with contextlib.suppress(OSError):
                os.close(self.slots.pop(slot))

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def _fd(self, slot: int) -> int:
        try:
            return self.slots[slot]
        except KeyError:
            raise OSError(errno.EBADF, "empty slot") from None

    # -- open files ------------------------------------------------------------------------------------

    def do_open(self, slot: int, name: str, flags: int, mode: int) -> str | None:
        fd = os.open(self._path(name), flags, mode)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            return "directory"
        if slot in self.slots:
            os.close(self.slots.pop(slot))
        self.slots[slot] = fd
        return None

    def do_close(self, slot: int) -> None:
        fd = self._fd(slot)
        del self.slots[slot]
        os.close(fd)

    def do_read(self, slot: int, size: int) -> str:
        return digest(os.read(self._fd(slot), size))

    def do_pread(self, slot: int, size: int, offset: int) -> str:
        return digest(os.pread(self._fd(slot), size, offset))

    def do_write(self, slot: int, seed: int, size: int) -> int:
        return os.write(self._fd(slot), pattern(seed, size))

    def do_pwrite(self, slot: int, seed: int, size: int, offset: int) -> int:
        return os.pwrite(self._fd(slot), pattern(seed, size), offset)

    def do_lseek(self, slot: int, offset: int, whence: int) -> int:
        return os.lseek(self._fd(slot), offset, whence)

    def do_ftruncate(self, slot: int, size: int) -> None:
        os.ftruncate(self._fd(slot), size)

    def do_fsync(self, slot: int) -> None:
        os.fsync(self._fd(slot))

    def do_fstat(self, slot: int) -> Any:
        return _shown(os.fstat(self._fd(slot)))

    def do_fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self._fd(slot), mode)

    def do_forget_pages(self, slot: int) -> None:
        """Make the next read come from the filesystem and not from the page cache."""
        os.fsync(self._fd(slot))
        os.posix_fadvise(self._fd(slot), 0, 0, os.POSIX_FADV_DONTNEED)

    def do_map_store(self, slot: int, seed: int, size: int, offset: int, sync: bool) -> int:
        """Store through a shared mapping, in a process of its own: a daemon that dies means SIGBUS."""
        fd = self._fd(slot)
        length = os.fstat(fd).st_size
        stop = min(offset + size, length)
        if offset >= stop:
            return 0

        def work() -> None:
            mapped = mmap.mmap(fd, length)
            mapped[offset:stop] = pattern(seed, stop - offset)
            if sync:
                mapped.flush()

        _in_a_child(work)
        return stop - offset

    def do_map_load(self, slot: int, size: int, offset: int) -> str:
        fd = self._fd(slot)
        length = os.fstat(fd).st_size
        if offset >= length:
            return digest(b"")
        readable, writable = os.pipe()
        with os.fdopen(readable, "rb") as found:
            try:

                def work() -> None:
                    with mmap.mmap(fd, length, prot=mmap.PROT_READ) as mapped:
                        os.write(writable, digest(mapped[offset : offset + size]).encode())

                _in_a_child(work)
            finally:
                os.close(writable)
            return found.read().decode()

    # -- names -----------------------------------------------------------------------------------------

    def do_truncate(self, name: str, size: int) -> None:
        os.truncate(self._path(name), size)

    def do_rename(self, name: str, new_name: str) -> None:
        os.rename(self._path(name), self._path(new_name))

    def do_rename2(self, name: str, new_name: str, flags: int) -> None:
        if flags == RENAME_EXCHANGE and self._is_file(name) != self._is_file(new_name):
            return  # a container and something else cannot change places in one step; documented
        fd = os.open(self.root, os.O_PATH)
        try:
            renameat2(fd, name.encode(), fd, new_name.encode(), flags)
        finally:
            os.close(fd)

    def _is_file(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.lstat(self._path(name)).st_mode)
        except FileNotFoundError:  # no other error: the daemon may have been killed, and then nothing was answered
            return False

    def do_link(self, name: str, new_name: str) -> None:
        os.link(self._path(name), self._path(new_name), follow_symlinks=False)

    def do_unlink(self, name: str) -> None:
        os.unlink(self._path(name))

    def do_mkdir(self, name: str, mode: int) -> None:
        os.mkdir(self._path(name), mode)

    def do_rmdir(self, name: str) -> None:
        os.rmdir(self._path(name))

    def do_symlink(self, target: str, name: str) -> None:
        os.symlink(target, self._path(name))

    def do_readlink(self, name: str) -> str:
        return os.readlink(self._path(name))

    def do_readdir(self, name: str) -> list[str]:
        return sorted(os.listdir(self._path(name)))

    # -- attributes ------------------------------------------------------------------------------------

    def do_stat(self, name: str) -> Any:
        return _shown(os.lstat(self._path(name)))

    def do_chmod(self, name: str, mode: int) -> None:
        os.chmod(self._path(name), mode)

    def do_utime(self, name: str, atime_s: int, mtime_s: int) -> None:
        os.utime(self._path(name), ns=(atime_s * 10**9 + 1, mtime_s * 10**9 + 2))

    def do_setxattr(self, name: str, key: str, seed: int, size: int, flags: int) -> None:
        os.setxattr(self._path(name), key, pattern(seed, size), flags)

    def do_getxattr(self, name: str, key: str) -> str:
        return digest(os.getxattr(self._path(name), key))

    def do_listxattr(self, name: str) -> list[str]:
        return sorted(os.listxattr(self._path(name)))

    def do_removexattr(self, name: str, key: str) -> None:
        os.removexattr(self._path(name), key)

    def do_commit(self) -> None:
        """Put what was written into containers; nothing where there are none."""

    # -- everything ------------------------------------------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        """Return the content of every regular file in the directory that we may read by its path."""
        found = {}
        for path in self.root.rglob("*"):
            with contextlib.suppress(PermissionError):
                if stat.S_ISREG(path.lstat().st_mode):
                    found[str(path.relative_to(self.root))] = path.read_bytes()
        return found

    def snapshot(self) -> dict[str, Any]:
        """Return everything in the directory: path to attributes, xattrs and the digest of the content.

        Or to the name of an errno where we may not look at it.
        """
        found: dict[str, Any] = {}
        for above, directories, files in os.walk(self.root):
            for name in sorted(directories) + sorted(files):
                path = os.path.join(above, name)
                try:
                    found[os.path.relpath(path, self.root)] = describe(path)
                except PermissionError as err:
                    found[os.path.relpath(path, self.root)] = errno.errorcode[err.errno]
        return found


class MountedWorld(World):
    """A directory in a mount."""

    def do_commit(self) -> None:
        control.request_sync(self.root)


def describe(path: str) -> dict[str, Any]:
    """Return what a program can see of a file; times only where they were set. Raises OSError."""
    st = os.lstat(path)
    about = {"stat": _shown(st)}
    if stat.S_ISLNK(st.st_mode):
        about["target"] = os.readlink(path)
        return about
    about["xattrs"] = {key: digest(os.getxattr(path, key)) for key in sorted(os.listxattr(path))}
    if stat.S_ISREG(st.st_mode):
        about["content"] = digest(Path(path).read_bytes())
    return about


def _shown(st: os.stat_result) -> list[Any]:
    is_directory = stat.S_ISDIR(st.st_mode)
    mtime = st.st_mtime_ns if st.st_mtime < _LONG_AGO_S and not is_directory else "now"
    return [oct(st.st_mode), st.st_nlink, st.st_uid, st.st_gid, None if is_directory else st.st_size, mtime]


def _in_a_child(work: Callable[[], None]) -> None:
    """Do work in a process of its own, which ends without tidying up; raises OSError if it fails."""
    child = os.fork()
    if child == 0:
        number = 0
        try:
            work()
        except OSError as err:
            number = err.errno or errno.EIO
        except ValueError:
            number = errno.EINVAL
        finally:
            os._exit(number)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise OSError(errno.EIO, f"signal {-code}")
    if code:
        raise OSError(code, os.strerror(code))
