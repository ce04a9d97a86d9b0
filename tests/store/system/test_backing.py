"""Every change below BACKING goes through one object, which tests can make fail."""

import ast
import errno
import os
from pathlib import Path

import pytest
from faults import FaultyIO
from helpers import noise
from mounted import errno_of

import qatqfs.store
from qatqfs.store import Store, StoreOptions
from qatqfs.store.system import backing as backingio
from qatqfs.store.system.backing import OPERATIONS, BackingIO
from qatqfs.store.system.files import Fd, host_takes_free_memory

CHANGING = {
    *("pwrite", "pwritev", "write", "writev", "ftruncate", "truncate", "rename", "replace", "renames", "link"),
    *("unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs", "mkfifo", "mknod", "symlink", "fsync"),
    *("fdatasync", "sync", "chmod", "fchmod", "chown", "fchown", "lchown", "setxattr", "removexattr", "utime"),
    *("copy_file_range", "sendfile", "posix_fallocate"),
}
STORE = Path(qatqfs.store.__file__).parent
ALLOWED = {"system/backing.py": CHANGING, "system/files.py": {"fsync"}}  # fsync_directory there is for the command line


@pytest.mark.parametrize("path", sorted(STORE.rglob("*.py")), ids=lambda p: str(p.relative_to(STORE)))
def test_nothing_but_the_backing_io_changes_anything(path: Path) -> None:
    called = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
    }
    assert called & CHANGING <= ALLOWED.get(str(path.relative_to(STORE)), set())


def test_every_public_method_is_an_operation_or_made_of_them() -> None:
    public = {name for name in vars(BackingIO) if not name.startswith("_")}
    assert public - set(OPERATIONS) == {"pwrite_all", "pwritev", "write_back"}


@pytest.mark.parametrize("count", [0, 1, 2, 64, 65, 3000])
def test_several_buffers_are_written_one_behind_another(tmp_path: Path, count: int) -> None:
    fd = Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))
    os.pwrite(fd.number, b"before", 0)
    buffers = [bytes([i % 251]) * (i % 7) for i in range(count)]
    assert BackingIO().pwritev(fd, buffers, 6) == sum(map(len, buffers))
    BackingIO().write_back(fd, 0, 1 << 20)  # hurries, and changes nothing
    assert (tmp_path / "x").read_bytes() == b"before" + b"".join(buffers)


REFUSALS = [OSError(number, "refused") for number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM)]


@pytest.mark.parametrize("refusal", [None, *REFUSALS, NotImplementedError("pwritev2")], ids=repr)
def test_an_uncached_write_is_a_write_whatever_the_system_can(
    tmp_path: Path, refusal: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))
    real, flags_seen = os.pwritev, []

    def pwritev(number: int, buffers: list, offset: int, flags: int = 0) -> int:
        flags_seen.append(flags)
        if flags and refusal is not None:
            raise refusal
        return real(number, buffers, offset, 0)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(backingio, "CAN_DROP", True)
    assert BackingIO().pwritev(fd, [b"abc", b"def"], 2, uncached=True) == 6
    assert os.pread(fd.number, 100, 0) == b"\0\0abcdef"
    assert flags_seen == ([0x80] if refusal is None else [0x80, 0])


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_what_the_disk_says_to_an_uncached_write_is_reported(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))

    def pwritev(fd: int, buffers: list, offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(number, os.strerror(number))
        return len(b"".join(buffers))

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(backingio, "CAN_DROP", True)
    assert errno_of(BackingIO().pwritev, fd, [b"abc"], 0, uncached=True) == errno.errorcode[number]


def test_no_uncached_write_is_tried_where_it_may_lose_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))
    monkeypatch.setattr(backingio, "CAN_DROP", False)
    monkeypatch.setattr(os, "pwritev", lambda number, buffers, offset: len(b"".join(buffers)))
    assert BackingIO().pwritev(fd, [b"abc"], 0, uncached=True) == 3


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.15.9-arch1", False), ("6.16.0", True), ("6.18.44-fc-v669", True), ("7.0", True), ("5.10.0-28-amd64", False)],
)
def test_which_kernels_write_uncached(release: str, expected: bool) -> None:
    assert backingio.drops_safely(release) is expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [(None, False), ("", False), ("01100", False), ("011000", False), ("011001", True), ("0" * 5 + "1" * 60, True)],
)
def test_whether_the_host_takes_free_memory(tmp_path: Path, features: str | None, expected: bool) -> None:
    if features is not None:
        device = tmp_path / "virtio_balloon" / "virtio3"
        device.mkdir(parents=True)
        (device / "features").write_text(features + "\n")
        (tmp_path / "virtio_balloon" / "module").mkdir()
    assert host_takes_free_memory(tmp_path) is expected


@pytest.mark.parametrize("dear", [False, True])
def test_a_large_write_is_made_in_pieces_only_where_memory_is_dear(
    tmp_path: Path, dear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backingio, "HOST_TAKES_MEMORY", dear)
    fd, io, data = Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)), FaultyIO(), noise(100_000)
    assert io.pwrite_all(fd, b"", 0) == 0
    written = []
    io.before = lambda number, name, args: written.append((args[2], len(args[1])))
    assert io.pwrite_all(fd, data, 10) == len(data)
    assert os.pread(fd.number, 1 << 20, 10) == data
    whole = 32 << 10
    pieces = [(10, whole - 10), (whole, whole), (2 * whole, whole), (3 * whole, 100_010 - 3 * whole)]
    assert written == (pieces if dear else [(10, 100_000)])  # each in whole pages but for the ends


def test_a_write_in_pieces_that_fails_in_the_middle_says_how_much_went_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backingio, "HOST_TAKES_MEMORY", True)
    fd, io, data = Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)), FaultyIO(), noise(100_000)
    io.fail(errno.ENOSPC, "pwrite", when=lambda args: args[2] >= 65_536)
    assert io.pwrite_all(fd, data, 0) == 65_536
    assert os.pread(fd.number, 1 << 20, 0) == data[:65_536]
    assert errno_of(io.pwrite_all, fd, data, 65_536) == "ENOSPC"


def test_a_step_can_fail_and_the_next_succeed(backing: Path) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(idle_seconds=3600.0), io=io) as store:
        io.fail(errno.EIO, "mkdir")
        assert errno_of(store.mkdir, b"d") == "EIO"
        io.heal()
        store.mkdir(b"d")
    assert (backing / "d").is_dir()


def test_bytes_are_copied_where_the_kernel_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    (tmp_path / "a").write_bytes(b"0123456789")
    source = Fd(os.open(tmp_path / "a", os.O_RDONLY))
    target = Fd(os.open(tmp_path / "b", os.O_RDWR | os.O_CREAT))
    assert BackingIO().copy_range(source, 2, target, 1, 5) == 5
    assert (tmp_path / "b").read_bytes() == b"\x0023456"


def test_a_punched_hole_reads_as_zeros_and_keeps_the_size(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x" * 20_000)
    fd = Fd(os.open(path, os.O_RDWR))
    backingio.BackingIO().punch(fd, 4096, 8192)
    assert path.read_bytes() == b"x" * 4096 + bytes(8192) + b"x" * (20_000 - 4096 - 8192)
