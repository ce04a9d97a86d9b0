"""What goes wrong below or inside the daemon gives the caller an errno; the mount lives, nothing outside changes."""

import concurrent.futures
import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyfuse3
import pytest
import trio
from mounted import QATQFS, Mounted, drop_page_cache, errno_of, mounted

from qatqfs.mount.adapter import handler, notification

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a filesystem of its own")

# -- handlers that raise ---------------------------------------------------------------------------------


class Handlers:
    """Handlers that raise what they are told to."""

    async def note_failure(self, request: str, arguments: object, err: OSError) -> None:
        assert request == "fail" and arguments == (err,)

    @handler
    async def fail(self, error: BaseException) -> int:
        raise error

    @handler
    async def succeed(self, value: int) -> int:
        return value

    @notification
    async def notify(self, error: BaseException) -> None:
        raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (FileNotFoundError(errno.ENOENT, "absent"), errno.ENOENT),
        (OSError(errno.EMFILE, "the daemon's are used up, not the caller's"), errno.ENFILE),
        (OSError("no errno"), errno.EIO),
        (MemoryError(), errno.ENOMEM),
        (ValueError("a bug"), errno.EIO),
        (KeyError("a bug"), errno.EIO),
        (AssertionError(), errno.EIO),
        (RecursionError(), errno.EIO),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a bug"), errno.EIO),
        (StopIteration(), errno.EIO),
        (pyfuse3.FUSEError(errno.ESTALE), errno.ESTALE),
        (ExceptionGroup("several", [ValueError()]), errno.EIO),
    ],
    ids=repr,
)
def test_only_an_errno_leaves_a_handler(error: Exception, expected: int) -> None:
    with pytest.raises(pyfuse3.FUSEError) as raised:
        trio.run(Handlers().fail, error)
    assert raised.value.errno == expected


def test_nothing_leaves_a_handler_that_nobody_waits_for() -> None:
    # An errno would have nobody to go to: pyfuse3 lets it out of its main loop.
    for error in (ValueError("a bug"), OSError(errno.EIO, "disk"), pyfuse3.FUSEError(errno.EIO)):
        trio.run(Handlers().notify, error)


def test_what_stops_the_daemon_is_not_caught() -> None:
    for error in (KeyboardInterrupt(), SystemExit(1)):
        with pytest.raises(type(error)):
            trio.run(Handlers().fail, error)
    assert trio.run(Handlers().succeed, 5) == 5


BROKEN = """
import sys
from qatqfs.mount.inodes import InodeTable
from qatqfs.store import Store
from qatqfs.store.names.handle import Handle
from qatqfs.store.names.node import Node

def broken(*args, **kwargs):
    raise RuntimeError("broken on purpose")

def broken_for(original, names=(b"broken",)):
    def call(self, path, *args, **kwargs):
        if any(name in arg for name in names for arg in (path, *args) if isinstance(arg, bytes)):
            raise RuntimeError("broken on purpose")
        return original(self, path, *args, **kwargs)
    return call

Store.readlink = Store.listxattr = Store.statvfs = Store.symlink = broken
Store.mkdir, Store.unlink, Store.rename = map(broken_for, (Store.mkdir, Store.unlink, Store.rename))
Handle.fsync = broken
InodeTable.forget = broken
Node.read = broken
Node.read_cached = lambda self, offset, size: None
from qatqfs.cli.main import main
sys.exit(main())
"""


def test_a_handler_that_raises_anything_fails_that_call_and_the_mount_lives(tmp_path: Path) -> None:
    with mounted(tmp_path, program=[sys.executable, "-c", BROKEN]) as mount:
        (mount.path / "x").write_bytes(b"content")
        (mount.backing / "link").symlink_to("x")
        with (mount.path / "x").open("r+b", buffering=0) as file:
            for _ in range(3):
                assert errno_of(os.readlink, mount.path / "link") == "EIO"
                assert errno_of(os.listxattr, mount.path / "x") == "EIO"
                assert errno_of(os.statvfs, mount.path) == "EIO"
                assert errno_of(os.symlink, "x", mount.path / "s") == "EIO"
                assert errno_of(os.mkdir, mount.path / "broken") == "EIO"
                assert errno_of(os.rename, mount.path / "x", mount.path / "broken") == "EIO"
                assert errno_of(os.fsync, file.fileno()) == "EIO"
                drop_page_cache()  # makes the kernel forget inodes, which nobody waits for
                assert errno_of(os.pread, file.fileno(), 5, 0) == "EIO"
                assert sorted(os.listdir(mount.path)) == ["link", "x"]
        (mount.path / "y").write_bytes(b"the mount lives")
        assert (mount.path / "y").stat().st_size == 15
        assert "broken on purpose" in mount.log_text()
        assert "Traceback" in mount.log_text()


# -- a disk that fails -----------------------------------------------------------------------------------


@contextlib.contextmanager
def loop_filesystem(base: Path) -> Iterator[Path]:
    """A small ext4 of its own, which becomes read-only on errors."""
    image, path = base / "image", base / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    path.mkdir()
    subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fail_filesystem(path: Path) -> None:
    """Make ext4 believe that it found an error on disk."""
    st = path.stat()
    device = os.path.realpath(f"/sys/dev/block/{os.major(st.st_dev)}:{os.minor(st.st_dev)}")
    Path(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error").write_text("test\n")
    assert errno_of((path / "probe").touch) == "EROFS"


@root_only
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4 (Debian package e2fsprogs)")
def test_a_disk_that_becomes_read_only_gives_erofs_and_what_was_synced_stays(tmp_path: Path) -> None:
    with loop_filesystem(tmp_path) as disk:
        backing = disk / "backing"
        with mounted(tmp_path, backing=backing) as mount:
            (mount.path / "committed").write_bytes(b"committed" * 1000)
            mount.sync()
            os.sync()
            file = (mount.path / "dirty").open("wb", buffering=0)
            file.write(b"synced" * 1000)
            os.fsync(file.fileno())
            fail_filesystem(disk)
            attempts: dict[str, Callable[[], object]] = {
                "create": lambda: (mount.path / "new").write_bytes(b"x"),
                "write": lambda: file.write(b"more"),
                "truncate": lambda: os.truncate(mount.path / "committed", 5),
                "mkdir": lambda: (mount.path / "d").mkdir(),
                "unlink": lambda: (mount.path / "committed").unlink(),
                "rename": lambda: (mount.path / "committed").rename(mount.path / "other"),
                "chmod": lambda: (mount.path / "committed").chmod(0o600),
                "setxattr": lambda: os.setxattr(mount.path / "committed", "user.x", b"1"),
                "utime": lambda: os.utime(mount.path / "committed", ns=(1, 2)),
                "symlink": lambda: (mount.path / "s").symlink_to("x"),
                "sync": mount.sync,
            }
            found = {name: errno_of(attempt) for name, attempt in attempts.items()}
            assert found == dict.fromkeys(attempts, "EROFS")
            synced = subprocess.run([*QATQFS, "sync", mount.path], capture_output=True, text=True, check=False)
            assert synced.returncode == 2
            assert synced.stderr.startswith("qatqfs: dirty: could not be committed and stays in staging: ")
            assert (mount.path / "committed").read_bytes() == b"committed" * 1000
            assert (mount.path / "dirty").read_bytes() == b"synced" * 1000
            assert sorted(os.listdir(mount.path)) == ["committed", "dirty"]
            with contextlib.suppress(OSError):
                file.close()
            mount.kill()
    subprocess.run(["e2fsck", "-fy", tmp_path / "image"], check=False, capture_output=True)
    (tmp_path / "disk").rmdir()
    shutil.move(tmp_path / "image", tmp_path / "kept")
    (tmp_path / "disk").mkdir()
    subprocess.run(["mount", "-o", "loop", tmp_path / "kept", tmp_path / "disk"], check=True)
    try:
        with mounted(tmp_path, backing=tmp_path / "disk" / "backing") as mount:
            assert (mount.path / "committed").read_bytes() == b"committed" * 1000
            assert (mount.path / "dirty").read_bytes() == b"synced" * 1000
    finally:
        subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


# -- symlinks put into BACKING ---------------------------------------------------------------------------


def contents(top: Path) -> dict[str, object]:
    return {
        str(path.relative_to(top)): (
            oct(path.lstat().st_mode),
            path.lstat().st_mtime_ns,
            path.is_file() and path.read_bytes(),
        )
        for path in sorted(top.rglob("*"))
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that has nothing to do with the mount, with a container and a plain file in it."""
    path = tmp_path / "outside"
    (path / "sub").mkdir(parents=True)
    with mounted(tmp_path, backing=tmp_path / "elsewhere") as mount:
        (mount.path / "secret").write_bytes(b"secret")
    for name in ("x.qatc", "secret.qatc", "sub/x.qatc"):
        shutil.copy(tmp_path / "elsewhere" / "secret.qatc", path / name)
    (path / "secret").write_bytes(b"secret")
    (path / "raw").write_bytes(b"secret")
    return path


CALLS: dict[str, Callable[[Path], object]] = {
    "read": lambda p: p.read_bytes(),
    "overwrite": lambda p: p.write_bytes(b"overwritten"),
    "append": lambda p: p.open("ab", buffering=0).write(b"appended"),
    "truncate": lambda p: os.truncate(p, 3),
    "unlink": lambda p: p.unlink(),
    "rename": lambda p: p.rename(p.with_name("renamed")),
    "chmod": lambda p: p.chmod(0o600),
    "utime": lambda p: os.utime(p, ns=(1, 2)),
    "setxattr": lambda p: os.setxattr(p, "user.x", b"1"),
    "create beside": lambda p: p.with_name("new").write_bytes(b"new"),
    "mkdir beside": lambda p: p.with_name("d").mkdir(),
    "list": lambda p: os.listdir(p.parent),
    "symlink beside": lambda p: p.with_name("s").symlink_to("x"),
    "rename over": lambda p: p.with_name("raw").rename(p),
}


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_directory_replaced_by_a_symlink_leads_the_daemon_nowhere(tmp_path: Path, outside: Path, below: str) -> None:
    before = contents(outside)
    with mounted(tmp_path) as mount:
        for name, call in CALLS.items():
            directory = mount.path / name
            (directory / "sub").mkdir(parents=True)
            for path in (directory / "x", directory / "raw", directory / "sub" / "x"):
                path.write_bytes(b"content")
            mount.sync()
            # Through a descriptor the directory is what it was: by name the kernel would see the symlink and follow
            # it for the caller, with the caller's rights and without the daemon.
            held = os.open(directory / below, os.O_PATH)
            (mount.backing / name).rename(tmp_path / name)
            (mount.backing / name).symlink_to(outside)
            found = outcome(call, Path(f"/proc/self/fd/{held}/x"))
            os.close(held)
            assert contents(outside) == before, name
            assert found in ("ENOTDIR", "ENOENT", "ESTALE", "EIO", []), name
        (mount.path / "probe").write_bytes(b"the mount lives")


def outcome(call: Callable[[Path], object], path: Path) -> object:
    try:
        return call(path)
    except OSError as err:
        return errno.errorcode[err.errno or errno.EIO]


@pytest.mark.parametrize("by_descriptor", [False, True], ids=["by name", "by descriptor"])
def test_a_file_replaced_by_a_symlink_is_not_followed(tmp_path: Path, outside: Path, by_descriptor: bool) -> None:
    before = contents(outside)
    on_content = ("read", "overwrite", "append", "truncate", "chmod", "utime", "setxattr")
    with mounted(tmp_path) as mount:
        for name in on_content if by_descriptor else CALLS:
            (mount.backing / name).mkdir()
            (mount.backing / name / "raw").write_bytes(b"content")
            (mount.path / name / "x").write_bytes(b"content")
            mount.sync()
            held = [(mount.path / name / path).open("rb", buffering=0) for path in ("x", "raw")]
            for stored in ("x.qatc", "raw"):
                (mount.backing / name / stored).unlink()
                (mount.backing / name / stored).symlink_to(outside / stored)
            paths = [mount.path / name / "x"]
            if by_descriptor:
                paths = [Path(f"/proc/self/fd/{file.fileno()}") for file in held]
            for path in paths:
                assert b"secret" not in str(outcome(CALLS[name], path)).encode(), name
            for file in held:
                file.close()
            assert contents(outside) == before, name


@pytest.mark.parametrize("what", [".qatqfs", ".qatqfs/staging", ".qatqfs/lost+found", ".qatqfs/log", ".qatqfs/lock"])
def test_the_private_directory_is_never_reached_through_a_symlink(tmp_path: Path, what: str) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(b"content")
        (mount.path / "x").read_bytes()
    (tmp_path / "outside").mkdir()
    for name in ("staging", "lost+found"):
        (tmp_path / "outside" / name).mkdir()
    for name in ("log", "lock", "format"):
        (tmp_path / "outside" / name).write_bytes(b"")
    target = mount.backing / what
    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    target.symlink_to(tmp_path / "outside" / ("" if what == ".qatqfs" else os.path.basename(what)))
    before = contents(tmp_path / "outside")
    command = [sys.executable, "-m", "qatqfs.cli", "mount", str(mount.backing), str(mount.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    try:
        assert contents(tmp_path / "outside") == before
        assert result.returncode != 0
        assert result.stderr.count("\n") == 1
    finally:
        if result.returncode == 0:
            subprocess.run([*command[:3], "umount", str(mount.path)], check=True, timeout=60)


# -- files changed behind the mount ----------------------------------------------------------------------


def test_a_raw_file_changed_behind_the_mount_is_seen_at_the_next_open(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        raw = mount.backing / "raw"
        for content in (b"one", b"two", b"a longer one"):
            raw.write_bytes(content)
            assert (mount.path / "raw").read_bytes() == content


def test_a_file_that_appears_and_disappears_in_backing_is_noticed(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        assert errno_of((mount.path / "new").stat) == "ENOENT"
        (mount.path / "x").write_bytes(b"content")
        mount.sync()
        shutil.copy(mount.stored("x"), mount.stored("copy"))
        assert sorted(os.listdir(mount.path)) == ["copy", "x"]
        assert (mount.path / "copy").read_bytes() == b"content"
        mount.stored("x").unlink()
        assert os.listdir(mount.path) == ["copy"]
        assert errno_of((mount.path / "x").read_bytes) == "ENOENT"


def test_renaming_over_a_directory_that_is_gone_from_backing_works(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "gone").mkdir()
        (mount.path / "d").mkdir()
        (mount.path / "d" / "x").write_bytes(b"content")
        (mount.backing / "gone").rmdir()
        (mount.path / "d").rename(mount.path / "gone")
        assert (mount.path / "gone" / "x").read_bytes() == b"content"


def is_alive(mount: Mounted) -> bool:
    return mount.process is not None and mount.process.poll() is None


def test_a_backing_directory_that_is_removed_gives_errors_and_no_crash(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(b"content")
        mount.sync()
        with (mount.path / "x").open("rb") as file:
            shutil.rmtree(mount.backing)
            assert errno_of((mount.path / "y").write_bytes, b"x") in ("ENOENT", "EPERM")
            assert os.listdir(mount.path) == []
            assert file.read() == b"content"
        assert is_alive(mount)
        mount.kill()


OUT_OF_MEMORY = """
import sys
from qatqfs.codec import Container

def fail(*args, **kwargs):
    raise MemoryError

Container.read_chunks = fail
from qatqfs.cli.main import main
sys.exit(main())
"""


def test_a_daemon_whose_read_ahead_runs_out_of_memory_serves_every_reader_and_ends_on_sigterm(tmp_path: Path) -> None:
    content = os.urandom(1 << 20)
    with mounted(tmp_path, "--chunk-size", "4K", program=[sys.executable, "-c", OUT_OF_MEMORY]) as mount:
        (mount.path / "x").write_bytes(content)
        mount.sync()
        drop_page_cache()
        with concurrent.futures.ThreadPoolExecutor(4) as readers:
            found = [readers.submit((mount.path / "x").read_bytes) for _ in range(4)]
            assert all(each.result(60) == content for each in found)
        assert mount.process is not None
        mount.process.terminate()
        assert mount.process.wait(30) == 0
