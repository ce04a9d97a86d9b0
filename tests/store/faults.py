"""Backing I/O that fails, stops, or loses power: what tests give to a store in place of the real one.

A **step** is one system call that changes something. :class:`FaultyIO` counts steps and lets a test do something
at each. After a simulated kill every further step fails the same way, in whatever thread, so that nothing that
a cleanup handler does reaches the disk: as after SIGKILL.

:class:`PowerIO` also knows what a disk may hold when the power goes. Its model is harsher than any one
filesystem: of content, metadata and names that were not made durable each part may be there or not, on its own.

* Content: of each write since the last fsync each 4 KiB block, and of each change of size, on its own.
* Names: each change on its own, but a change that builds on a lost one is lost too. A rename is one change.
* Metadata (mode, owner, xattrs, mtime): as at the last fsync (not fdatasync), or as it is now.

The loss is played on the very inodes, so their numbers and birth times stay true; what lost its last name is kept
in a directory aside for that.
"""

import contextlib
import errno
import os
import random
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qatqfs.store.system.backing import OPERATIONS, BackingIO
from qatqfs.store.system.files import Fd

BLOCK = 4096
_MAKES_DURABLE = ("fsync", "fdatasync", "fsync_directory", "syncfs")


class Killed(BaseException):
    """The process is gone."""


class FaultyIO(BackingIO):
    """Counts steps and calls ``before`` and ``after`` around each.

    Attributes:
        steps: the names of the steps so far.
        before: called with the step's number, name and arguments; may raise.
        after: the same, when the step is done.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.before: Callable[[int, str, tuple], None] = lambda number, name, args: None
        self.after: Callable[[int, str, tuple], None] = lambda number, name, args: None
        self.dead = False
        self._step_lock = threading.RLock()

    def die(self) -> None:
        self.dead = True
        raise Killed

    def perform(self, name: str, args: tuple) -> Any:
        """Do a step for real; what only makes durable is left out, for no test really cuts the power."""
        return None if name in _MAKES_DURABLE else getattr(BackingIO, name)(self, *args)

    def step(self, name: str, args: tuple) -> Any:
        with self._step_lock:
            if self.dead:
                raise Killed
            number = len(self.steps)
            self.steps.append(name)
            self.before(number, name, args)
            result = self.perform(name, args)
            self.after(number, name, args)
            return result

    def pwritev(self, fd: Fd, buffers: Sequence[bytes], offset: int, *, uncached: bool = False) -> int:
        """One write like any other, which may be torn anywhere."""
        return self.pwrite(fd, b"".join(buffers), offset)

    def kill_before(self, step: int) -> None:
        """Die when this step is about to be taken."""

        def check(number: int, name: str, args: tuple) -> None:
            if number == step:
                self.die()

        self.before = check

    def kill_in(self, step: int) -> None:
        """Die in the middle of this step: a write of which the first half is done."""

        def check(number: int, name: str, args: tuple) -> None:
            if number == step:
                if name == "pwrite":
                    fd, data, offset = args
                    half = memoryview(data).cast("B")[: len(data) // 2]
                    if len(half):
                        self.perform("pwrite", (fd, half, offset))
                self.die()

        self.before = check

    def fail(self, error: int, *names: str, when: Callable[[tuple], bool] = lambda args: True) -> None:
        """Let all steps of these names fail with an errno from now on."""

        def check(number: int, name: str, args: tuple) -> None:
            if name in names and when(args):
                raise OSError(error, os.strerror(error))

        self.before = check

    def heal(self) -> None:
        """Let everything work again."""
        self.before = lambda number, name, args: None


def _method(name: str) -> Callable[..., Any]:
    def method(self: FaultyIO, *args: Any) -> Any:
        return self.step(name, args)

    return method


for _name in OPERATIONS:
    setattr(FaultyIO, _name, _method(_name))


@dataclass
class _Content:
    """What is known of one inode."""

    durable: bytes
    metadata: tuple
    pending: list[tuple] = field(default_factory=list)


Name = tuple[int, bytes]
"""A directory's inode number and a name in it."""


@dataclass(eq=False)
class _Change:
    """One change of names that is not durable: what each name meant before and means after it."""

    before: dict[Name, int | None]
    after: dict[Name, int | None]

    def depends_on(self, lost: "_Change") -> bool:
        inodes = {i for i in (*self.before.values(), *self.after.values()) if i is not None}
        others = {i for i in (*lost.before.values(), *lost.after.values()) if i is not None}
        directories = {directory for directory, _ in self.before}
        return bool(self.before.keys() & lost.before.keys()) or bool((inodes | directories) & others)


class PowerIO(FaultyIO):
    """Keeps a record from which :meth:`lose_power` makes what a disk may hold.

    Args:
        backing: the directory; everything in it counts as durable at first.
        aside: a directory on the same filesystem for inodes without a name.
    """

    def __init__(self, backing: Path, aside: Path) -> None:
        super().__init__()
        self._aside = aside
        self._device = backing.stat().st_dev
        self._contents: dict[int, _Content] = {}
        self._names: dict[Name, int] = {}
        self._directories: dict[int, int] = {}  # inode number to descriptor
        self._changes: list[_Change] = []
        for path in [backing, *backing.rglob("*")]:
            st = path.lstat()
            if path != backing:
                self._names[path.parent.stat().st_ino, os.fsencode(path.name)] = st.st_ino
            if stat.S_ISDIR(st.st_mode):
                self._know_directory(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            else:
                self._know(path)
        self._kept: dict[int, Path] = {}

    def close(self) -> None:
        for fd in self._directories.values():
            os.close(fd)

    # -- what is known ---------------------------------------------------------------------------------

    def _know_directory(self, fd: int) -> None:
        number = os.fstat(fd).st_ino
        if number in self._directories:
            os.close(self._directories[number])
        self._directories[number] = fd

    def _know(self, path: Path | str) -> None:
        st = os.stat(path, follow_symlinks=False)
        content = _read(path) if stat.S_ISREG(st.st_mode) else b""
        self._contents[st.st_ino] = _Content(content, _metadata(path))

    def _lookup(self, directory: int, name: bytes) -> int | None:
        return self._names.get((os.fstat(directory).st_ino, name))

    def _keep(self, number: int | None) -> None:
        """Give an inode that may lose its last name one more, aside."""
        if number is None or number in self._kept or number in self._directories:
            return
        for (directory, name), there in self._names.items():
            if there == number:
                self._kept[number] = self._aside / str(number)
                os.link(name, self._kept[number], src_dir_fd=self._directories[directory], follow_symlinks=False)
                return

    # -- the record ------------------------------------------------------------------------------------

    def perform(self, name: str, args: tuple) -> Any:
        recorder = getattr(self, f"_record_{name}", None)
        if recorder is None:
            return super().perform(name, args)
        return recorder(*args)

    def _real(self, name: str, *args: Any) -> Any:
        return getattr(BackingIO, name)(self, *args)

    def _change(self, before: dict[Name, int | None], after: dict[Name, int | None]) -> None:
        self._changes.append(_Change(before, after))
        for name, number in after.items():
            if number is None:
                self._names.pop(name, None)
            else:
                self._names[name] = number

    def _record_open(self, directory: int, name: bytes, flags: int, mode: int = 0o600) -> Fd:
        known = self._lookup(directory, name) if flags & os.O_TMPFILE != os.O_TMPFILE else None
        fd = self._real("open", directory, name, flags, mode)
        number = os.fstat(fd.number).st_ino
        if known == number:
            if flags & os.O_TRUNC:
                self._contents[number].pending.append(("size", 0))
            return fd
        self._contents[number] = _Content(b"", _metadata(fd.proc_path))
        if flags & os.O_TMPFILE != os.O_TMPFILE:
            key = (os.fstat(directory).st_ino, name)
            self._change({key: None}, {key: number})
        return fd

    def _record_pwrite(self, fd: Fd, data: Any, offset: int) -> int:
        done = self._real("pwrite", fd, data, offset)
        part = bytes(memoryview(data).cast("B")[:done])
        self._content(fd).pending.append(("data", offset, part))
        return done

    def _record_copy_range(self, source: Fd, offset: int, target: Fd, target_offset: int, size: int) -> int:
        done = self._real("copy_range", source, offset, target, target_offset, size)
        self._content(target).pending.append(("data", target_offset, os.pread(target.number, done, target_offset)))
        return done

    def _record_ftruncate(self, fd: Fd, size: int) -> None:
        self._real("ftruncate", fd, size)
        self._content(fd).pending.append(("size", size))

    def _record_punch(self, fd: Fd, offset: int, size: int) -> None:
        self._real("punch", fd, offset, size)
        end = min(offset + size, os.fstat(fd.number).st_size)
        self._content(fd).pending.append(("data", offset, bytes(max(0, end - offset))))

    def _content(self, fd: Fd) -> _Content:
        return self._contents[os.fstat(fd.number).st_ino]

    def _record_fdatasync(self, fd: Fd) -> None:
        content = self._content(fd)
        content.durable = _read(fd.proc_path)
        content.pending.clear()

    def _record_fsync(self, fd: Fd) -> None:
        self._record_fdatasync(fd)
        self._content(fd).metadata = _metadata(fd.proc_path)

    def _record_fsync_directory(self, directory: int) -> None:
        number = os.fstat(directory).st_ino
        self._changes = [change for change in self._changes if not any(key[0] == number for key in change.after)]

    def _record_syncfs(self, fd: Fd) -> None:
        self._changes.clear()
        for number, content in self._contents.items():
            path = self._path_of(number)
            if path is not None and stat.S_ISREG(os.lstat(path).st_mode):
                content.durable, content.metadata = _read(path), _metadata(path)
                content.pending.clear()

    def _record_link(self, source_directory: int, source: bytes, directory: int, name: bytes) -> None:
        self._real("link", source_directory, source, directory, name)
        key = (os.fstat(directory).st_ino, name)
        self._change({key: None}, {key: self._lookup(source_directory, source)})

    def _record_link_open(self, fd: Fd, directory: int, name: bytes) -> None:
        self._real("link_open", fd, directory, name)
        key = (os.fstat(directory).st_ino, name)
        self._change({key: None}, {key: os.fstat(fd.number).st_ino})

    def _record_unlink(self, directory: int, name: bytes) -> None:
        number = self._lookup(directory, name)
        self._keep(number)
        self._real("unlink", directory, name)
        key = (os.fstat(directory).st_ino, name)
        self._change({key: number}, {key: None})

    def _record_rename(self, source_directory: int, source: bytes, directory: int, name: bytes, flags: int = 0) -> None:
        moved, replaced = self._lookup(source_directory, source), self._lookup(directory, name)
        if not flags:
            self._keep(replaced)
        self._real("rename", source_directory, source, directory, name, flags)
        old, new = (os.fstat(source_directory).st_ino, source), (os.fstat(directory).st_ino, name)
        self._change({old: moved, new: replaced}, {old: replaced if flags else None, new: moved})

    def _record_mkdir(self, directory: int, name: bytes, mode: int) -> None:
        self._real("mkdir", directory, name, mode)
        self._know_directory(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory))
        number = os.stat(name, dir_fd=directory).st_ino
        key = (os.fstat(directory).st_ino, name)
        self._change({key: None}, {key: number})

    # -- the loss --------------------------------------------------------------------------------------

    def lose_power(self, seed: int) -> None:
        """Let the disk hold what it may hold; the store must not be used any more."""
        self.dead = True
        rng = random.Random(seed)
        keep = rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])  # a cut right after, or long after what was written
        self._lose_names(rng, keep)
        for number, content in self._contents.items():
            path = self._path_of(number)
            if path is not None:
                _settle(path, content, rng, keep)
        self.close()

    def _lose_names(self, rng: random.Random, keep: float) -> None:
        lost: list[_Change] = []
        for change in self._changes:
            if rng.random() >= keep or any(change.depends_on(other) for other in lost):
                lost.append(change)
        for number in {n for change in lost for n in (*change.before.values(), *change.after.values())}:
            self._keep(number)
        for change in reversed(lost):
            for key in change.before:
                self._set_name(key, change.before[key])

    def _set_name(self, key: Name, number: int | None) -> None:
        directory, name = key
        fd = self._directories[directory]
        there = self._names.pop(key, None)
        if there is not None and there in self._directories:
            os.rmdir(name, dir_fd=fd)
        elif there is not None:
            os.unlink(name, dir_fd=fd)
        if number is not None:
            os.link(self._kept[number], name, dst_dir_fd=fd, follow_symlinks=False)
            self._names[key] = number

    def _path_of(self, number: int) -> str | None:
        for (directory, name), there in self._names.items():
            if there == number:
                return f"/proc/self/fd/{self._directories[directory]}/{os.fsdecode(name)}"
        return None

    def forget_aside(self) -> None:
        """Remove the extra names, so that link counts are true again."""
        for path in self._kept.values():
            path.unlink()


def _read(path: Path | str) -> bytes:
    """A file's content, read without a trace: a new access time would make a commit copy metadata once more."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOATIME)) as stream:
        return stream.read()


def _metadata(path: Path | str) -> tuple:
    st = os.stat(path)
    xattrs = tuple((name, os.getxattr(path, name)) for name in os.listxattr(path))
    return stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, xattrs


def _settle(path: str, content: _Content, rng: random.Random, keep: float) -> None:
    """Make a file what the disk may hold of it."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    metadata = _metadata(path) if rng.random() < keep else content.metadata
    data = bytearray(content.durable)
    for kind, *rest in content.pending:
        if kind == "size":
            if rng.random() < keep:
                (size,) = rest
                del data[size:]
                data.extend(bytes(size - len(data)))
            continue
        offset, part = rest
        position = offset
        while position < offset + len(part):
            end = min((position // BLOCK + 1) * BLOCK, offset + len(part))
            if rng.random() < keep:
                data.extend(bytes(max(0, end - len(data))))
                data[position:end] = part[position - offset : end - offset]
            position = end
    with open(path, "r+b") as stream:
        stream.write(data)
        stream.truncate(len(data))
    mode, uid, gid, mtime_ns, xattrs = metadata
    os.chown(path, uid, gid)
    os.chmod(path, mode)
    for name in os.listxattr(path):
        os.removexattr(path, name)
    for name, value in xattrs:
        os.setxattr(path, name, value)
    os.utime(path, ns=(mtime_ns, mtime_ns))


class QuietIO(BackingIO):
    """The real thing without waiting for the disk."""

    def fsync(self, fd: object) -> None:
        pass

    def fdatasync(self, fd: object) -> None:
        pass

    def fsync_directory(self, directory: int) -> None:
        pass

    def syncfs(self, fd: object) -> None:
        pass


def abandon(store: Any, io: FaultyIO) -> None:
    """Get rid of a store whose process was killed: its threads end, its lock goes, its disk stays as it is."""
    io.dead = True
    with contextlib.suppress(Killed, OSError):
        store.close(commit=False)


ENOSPC, EIO = errno.ENOSPC, errno.EIO
