"""Times: of the last write, to the nanosecond, and changed by nothing but what changes them elsewhere."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mounted import Mounted, mounted
from sidebyside import SideBySide

pytestmark = pytest.mark.fuse

LONG_AGO_NS = 1_000_000_001_123_456_789
KERNEL_BELIEVES_S = 1.1  # a little longer than the kernel may answer stat from its own memory


def times(path: Path) -> tuple[int, int, int]:
    st = path.lstat()
    return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns


def changed_by(path: Path, change: Callable[[], object], watched: Path | None = None) -> tuple[bool, bool, bool]:
    """Which of atime, mtime and ctime a change changes; all three are long ago or old before."""
    watched = watched or path
    time.sleep(0.02)  # beyond the granularity of the kernel's clock
    before = times(watched)
    change()
    after = times(watched)
    assert after[2] >= before[2]
    return before[0] != after[0], before[1] != after[1], before[2] != after[2]


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda p: p.write_bytes(b"new content"),
    "append": lambda p: p.open("ab").write(b"more"),
    "shorten": lambda p: os.truncate(p, 1),
    "lengthen": lambda p: os.truncate(p, 100_000),
    "open and truncate": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)),
    "open": lambda p: os.close(os.open(p, os.O_RDWR)),
    "chmod": lambda p: os.chmod(p, 0o600),
    "chown": lambda p: os.chown(p, os.geteuid(), os.getegid()),
    "setxattr": lambda p: os.setxattr(p, "user.x", b"1"),
    "rename": lambda p: (p.rename(p.with_name("y")), p.with_name("y").rename(p)),
    "utime": lambda p: os.utime(p, ns=(5, 7)),
    "utime of now": lambda p: os.utime(p),
    "stat": lambda p: p.stat(),
}


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
@pytest.mark.parametrize("name", CHANGES)
def test_changes_change_the_times_that_they_change_elsewhere(pair: SideBySide, name: str, committed: bool) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(b"content")
        if committed:
            pair.mount.sync()
        return changed_by(path, lambda: CHANGES[name](path))

    pair.both(work)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: (d / "new").touch(),
        lambda d: (d / "d").mkdir(),
        lambda d: (d / "x").unlink(),
        lambda d: (d / "x").rename(d / "y"),
        lambda d: (d / "x").write_bytes(b"other content"),
        lambda d: os.listdir(d),
        lambda d: os.symlink("target", d / "s"),
    ],
)
def test_a_directorys_times_change_with_its_names(pair: SideBySide, change: Callable[[Path], object]) -> None:
    def work(directory: Path) -> object:
        (directory / "sub").mkdir()
        (directory / "sub" / "x").write_bytes(b"content")
        pair.mount.sync()
        os.utime(directory / "sub", ns=(LONG_AGO_NS, LONG_AGO_NS))
        _, mtime, ctime = changed_by(directory / "sub", lambda: change(directory / "sub"))
        return mtime, ctime

    pair.both(work)


def test_a_commit_does_not_change_the_times_of_the_directory(pair: SideBySide) -> None:
    (pair.here / "x").write_bytes(b"content")
    pair.mount.sync()
    (pair.here / "x").write_bytes(b"other content")
    before = times(pair.here)[:2]
    pair.mount.sync()
    time.sleep(KERNEL_BELIEVES_S)
    assert times(pair.here)[:2] == before


def test_reading_changes_no_time(pair: SideBySide) -> None:
    path = pair.here / "x"
    path.write_bytes(b"content")
    pair.mount.sync()
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    before = times(path)
    assert path.read_bytes() == b"content"
    time.sleep(KERNEL_BELIEVES_S)
    assert times(path) == before


def test_the_mtime_is_the_last_writes_before_during_and_after_the_commit(pair: SideBySide) -> None:
    path = pair.here / "x"
    path.write_bytes(os.urandom(8 << 20))
    written = path.stat().st_mtime_ns
    assert abs(written - time.time_ns()) < 60 * 10**9
    seen = set()
    committed = threading.Event()

    def watch() -> None:
        while not committed.is_set():
            fd = os.open(path, os.O_RDONLY)
            seen.add(os.fstat(fd).st_mtime_ns)
            os.close(fd)
            seen.add(path.stat().st_mtime_ns)

    watcher = threading.Thread(target=watch)
    watcher.start()
    pair.mount.sync()
    time.sleep(KERNEL_BELIEVES_S)
    committed.set()
    watcher.join()
    assert seen == {written}
    assert pair.mount.stored(f"{pair.here.name}/x").stat().st_mtime_ns == written


def test_the_mtime_survives_a_remount_and_a_kill(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        path = mount.path / "x"
        path.write_bytes(b"content" * 1000)
        written = path.stat().st_mtime_ns
        mount.kill()
        mount.start()
        assert path.stat().st_mtime_ns == written
        mount.remount()
        assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
def test_utimens_sets_nanoseconds_and_each_time_alone(pair: SideBySide, committed: bool) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(b"content")
        found = []
        if committed:
            pair.mount.sync()
        for atime_ns, mtime_ns in ((LONG_AGO_NS, LONG_AGO_NS + 1), (0, 1), (2**33 * 10**9 + 1, 2**33 * 10**9)):
            os.utime(path, ns=(atime_ns, mtime_ns))
            found.append(times(path)[:2])
        for atime, mtime in (("OMIT", 5), (6, "OMIT"), ("OMIT", "OMIT")):
            utimens(path, atime, mtime)
            found.append(times(path)[:2])
        pair.mount.sync()
        return [*found, times(path)[:2]]

    pair.both(work)


def utimens(path: Path, atime_ns: int | str, mtime_ns: int | str) -> None:
    """utimensat(2) with UTIME_OMIT, which os.utime does not have."""
    import ctypes

    omit = (1 << 30) - 2
    spec = (ctypes.c_long * 4)()
    for i, value in enumerate((atime_ns, mtime_ns)):
        spec[2 * i], spec[2 * i + 1] = (0, omit) if value == "OMIT" else divmod(int(value), 10**9)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.utimensat(-100, os.fsencode(path), spec, 0):
        raise OSError(ctypes.get_errno(), "utimensat")


def test_times_of_directories_symlinks_and_special_files_can_be_set(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "d").mkdir()
        (directory / "s").symlink_to("target")
        os.mkfifo(directory / "f")
        for name in ("d", "s", "f"):
            os.utime(directory / name, ns=(LONG_AGO_NS, LONG_AGO_NS + 7), follow_symlinks=False)
        return [times(directory / name)[:2] for name in ("d", "s", "f")]

    pair.both(work)


def test_a_time_that_was_set_stays_when_the_file_is_open_for_writing_and_closed(pair: SideBySide) -> None:
    # tar and rsync set the time before or after the last close; a store through a mapping may still be under way.
    def work(directory: Path) -> object:
        with (directory / "x").open("wb", buffering=0) as file:
            file.write(b"content")
            os.utime(file.fileno(), ns=(LONG_AGO_NS, LONG_AGO_NS))
        pair.mount.sync()
        return times(directory / "x")[:2]

    assert pair.both(work) == (LONG_AGO_NS, LONG_AGO_NS)


def test_the_ctime_of_a_file_does_not_change_when_it_is_committed(posix_mount: Mounted, pair: SideBySide) -> None:
    # tar complains of a file whose ctime changes while it reads it.
    path = pair.here / "x"
    path.write_bytes(b"content" * 1000)
    os.chmod(path, 0o600)
    before = times(path)
    posix_mount.sync()
    time.sleep(KERNEL_BELIEVES_S)
    assert times(path) == before
    os.chmod(path, 0o644)
    assert times(path)[2] > before[2]
