"""Content: open flags, appending, truncating, holes, mappings, locks and extended attributes."""

import concurrent.futures
import contextlib
import errno
import fcntl
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounted import drop_page_cache, mounted
from sidebyside import SideBySide, outcome

pytestmark = pytest.mark.fuse

PAGE = mmap.PAGESIZE
DATA = bytes(range(256)) * 1024  # four chunks of 64 KiB


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# -- opening ---------------------------------------------------------------------------------------------

COMBINATIONS = [
    "O_RDONLY", "O_WRONLY", "O_RDWR", "O_WRONLY|O_APPEND", "O_RDWR|O_APPEND|O_CREAT", "O_WRONLY|O_TRUNC",
    "O_RDONLY|O_TRUNC", "O_WRONLY|O_CREAT", "O_WRONLY|O_CREAT|O_EXCL", "O_RDWR|O_CREAT|O_TRUNC", "O_RDONLY|O_DIRECTORY",
    "O_RDONLY|O_NOFOLLOW", "O_PATH", "O_PATH|O_NOFOLLOW", "O_RDONLY|O_NOATIME", "O_RDWR|O_SYNC", "O_RDONLY|O_CREAT",
    "O_RDONLY|O_NONBLOCK", "O_RDONLY|O_CREAT|O_EXCL|O_NOFOLLOW", "O_WRONLY|O_DIRECTORY",
]  # fmt: skip


@pytest.mark.parametrize("flags", COMBINATIONS)
def test_opening_anything_with_any_flags(pair: SideBySide, flags: str) -> None:
    value = 0
    for name in flags.split("|"):
        value |= getattr(os, name)

    def attempt(path: Path) -> object:
        with opened(path, value) as fd:
            found = [os.fstat(fd).st_size if path.is_file() else None, os.get_inheritable(fd)]
            found.append(outcome(lambda _: os.read(fd, 4), path))
            found.append(outcome(lambda _: os.write(fd, b"new"), path))
            found.append(outcome(lambda _: os.lseek(fd, 0, os.SEEK_CUR) if path.is_file() else None, path))
        return found

    def work(directory: Path) -> object:
        (directory / "file").write_bytes(b"content")
        (directory / "directory").mkdir()
        (directory / "link").symlink_to("file")
        (directory / "dangling").symlink_to("made")
        pair.mount.sync()
        names = ("file", "directory", "link", "dangling", "absent", "absent/x", "file/x")
        found = [outcome(lambda d, name=name: attempt(d / name), directory) for name in names]
        return found, {p.name: p.read_bytes() for p in sorted(directory.iterdir()) if p.is_file()}

    pair.both(work)


def test_of_many_processes_that_create_a_name_exclusively_one_succeeds(pair: SideBySide) -> None:
    code = """
import os, sys
won = 0
for i in range(50):
    try:
        os.close(os.open(f"{sys.argv[1]}/{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        won += 1
    except FileExistsError:
        pass
print(won)
"""
    racers = [python(code, pair.here) for _ in range(4)]
    assert sum(int(racer.communicate()[0]) for racer in racers) == 50


def test_appends_of_several_processes_are_all_there_and_whole(pair: SideBySide) -> None:
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for i in range(200):
    assert os.write(fd, f"{sys.argv[2]} {i:4}\\n".encode().ljust(5000, b".") + b"\\n") == 5001
"""
    path = pair.here / "log"
    writers = [python(code, path, name) for name in "abcd"]
    while any(writer.poll() is None for writer in writers):
        pair.mount.sync()
    assert all(writer.wait() == 0 for writer in writers)
    lines = [line.strip(b".") for line in path.read_bytes().splitlines() if line.strip(b".")]
    assert path.stat().st_size == 4 * 200 * 5001
    for name in "abcd":
        mine = [line for line in lines if line.startswith(name.encode())]
        assert mine == [b"%s %4d" % (name.encode(), i) for i in range(200)]


def test_a_write_at_a_position_to_a_file_open_for_appending_appends(pair: SideBySide) -> None:
    def work(directory: Path) -> bytes:  # as Linux does, against POSIX
        with opened(directory / "x", os.O_RDWR | os.O_CREAT | os.O_APPEND) as fd:
            os.write(fd, b"content")
            os.pwrite(fd, b"more", 0)
        return (directory / "x").read_bytes()

    pair.both(work)


def test_truncating_when_opening_leaves_other_descriptors_an_empty_file(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "x").write_bytes(DATA)
        pair.mount.sync()
        with opened(directory / "x", os.O_RDWR) as fd:
            before = os.pread(fd, 10, 0)
            os.close(os.open(directory / "x", os.O_WRONLY | os.O_TRUNC))
            found = [before, os.pread(fd, 10, 0), os.fstat(fd).st_size]
            os.pwrite(fd, b"x", 100)
            return [*found, (directory / "x").read_bytes()]

    pair.both(work)


# -- sizes and holes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
@pytest.mark.parametrize("by_path", [False, True], ids=["ftruncate", "truncate"])
def test_truncating_both_ways_shows_zeros_where_the_file_grew(pair: SideBySide, by_path: bool, committed: bool) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        found = []
        with opened(path, os.O_RDWR) as fd:
            for size in (100_001, 200_000, 65_536, 65_535, 300_000, 0, 70_000, 70_000, 1):
                if committed:
                    pair.mount.sync()
                os.truncate(path if by_path else fd, size)
                found.append((os.fstat(fd).st_size, path.read_bytes() == os.pread(fd, 1 << 20, 0), path.read_bytes()))
        return found

    pair.both(work)


def test_errors_of_truncating_and_seeking(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "x").write_bytes(b"content")
        (directory / "d").mkdir()
        with opened(directory / "x", os.O_RDONLY) as fd:
            return [
                outcome(lambda _: os.ftruncate(fd, 3), directory),
                outcome(lambda d: os.truncate(d / "x", -1), directory),
                outcome(lambda d: os.truncate(d / "d", 0), directory),
                outcome(lambda d: os.truncate(d / "absent", 0), directory),
                outcome(lambda _: os.lseek(fd, -1, os.SEEK_SET), directory),
                outcome(lambda _: os.lseek(fd, 3, os.SEEK_END), directory),
                outcome(lambda _: os.pread(fd, 10, 7), directory),
                outcome(lambda _: os.pread(fd, 10, 6), directory),
                outcome(lambda _: os.write(fd, b"x"), directory),
            ]

    pair.both(work)


def test_a_sparse_file_reads_as_zeros_and_takes_little_room(pair: SideBySide) -> None:
    size = 64 << 20

    def work(directory: Path) -> object:
        with opened(directory / "x", os.O_RDWR | os.O_CREAT) as fd:
            os.ftruncate(fd, size)
            os.pwrite(fd, b"middle", size // 2)
            os.pwrite(fd, b"end", size + 5)
        pair.mount.sync()
        content = (directory / "x").read_bytes()
        return len(content), content.count(0), content.find(b"middle"), content[-3:]

    pair.both(work)
    assert (pair.here / "x").stat().st_blocks * 512 < size // 50
    assert pair.mount.stored(f"{pair.here.name}/x").stat().st_size < size // 50


def test_seeking_for_data_and_holes_finds_one_piece_of_data(pair: SideBySide) -> None:
    # pyfuse3 has no lseek: the kernel says what is always true, that everything up to the end is data.
    with opened(pair.here / "x", os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b"x", 1 << 20)
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5
        assert os.lseek(fd, 5, os.SEEK_HOLE) == (1 << 20) + 1
        with pytest.raises(OSError, match="No such device") as error:
            os.lseek(fd, 1 << 21, os.SEEK_DATA)
        assert error.value.errno == errno.ENXIO


@pytest.mark.parametrize("offset", [0, 4096, 65536 - 4096, 1 << 20])
def test_direct_input_and_output_by_the_page(pair: SideBySide, offset: int) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        pair.mount.sync()
        buffer = mmap.mmap(-1, 4 * PAGE)
        buffer[:] = b"direct!!" * (4 * PAGE // 8)
        with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
            written = os.pwritev(fd, [buffer], offset)
            into = mmap.mmap(-1, 8 * PAGE)
            read = os.preadv(fd, [into], offset)
        return written, read, into[:], path.read_bytes()

    pair.both(work)


# -- mappings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
def test_stores_through_a_shared_mapping_are_seen_by_readers_and_kept(pair: SideBySide, committed: bool) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        if committed:
            pair.mount.sync()
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[10:15] = b"first"
            found = [path.read_bytes()[:20], os.pread(file.fileno(), 20, 0)]
            mapped.flush()
            pair.mount.sync()
            mapped[PAGE * 20 : PAGE * 20 + 6] = b"second"
            os.pwrite(file.fileno(), b"third", 30)
            found.append(mapped[:40])
            mapped.flush()
        pair.mount.sync()
        return [*found, path.read_bytes()]

    pair.both(work)


def test_stores_after_close_and_before_exit_without_msync_are_kept(pair: SideBySide) -> None:
    code = """
import mmap, os, sys
file = open(sys.argv[1], "r+b")
mapped = mmap.mmap(file.fileno(), 0)
file.close()
mapped[70_000:70_005] = b"store"
sys.stdout.write("ready"), sys.stdout.flush()
sys.stdin.read(1)
mapped[100_000:100_004] = b"exit"
os._exit(0)
"""

    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        pair.mount.sync()
        writer = python(code, path)
        assert writer.stdout is not None
        assert writer.stdout.read(5) == "ready"
        pair.mount.sync()
        writer.communicate("x")
        assert writer.returncode == 0
        pair.mount.sync()
        drop_page_cache()
        return path.read_bytes()

    assert pair.both(work) == DATA[:70_000] + b"store" + DATA[70_005:100_000] + b"exit" + DATA[100_004:]


def test_stores_through_a_private_mapping_are_not(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        pair.mount.sync()
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
            mapped[10:15] = b"first"
            os.pwrite(file.fileno(), b"second", 2 * PAGE)
            return mapped[10:15], mapped[2 * PAGE : 2 * PAGE + 6], path.read_bytes()

    pair.both(work)


def test_a_mapping_of_a_deleted_file_goes_on(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        pair.mount.sync()
        with path.open("r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        path.unlink()
        mapped[5:10] = b"store"
        mapped.flush()
        pair.mount.sync()
        drop_page_cache()
        found = mapped[:]
        mapped.close()
        return found, os.listdir(directory)

    pair.both(work)


def test_a_mapped_file_that_grows_and_shrinks(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            os.ftruncate(fd, 10 * PAGE)
            with mmap.mmap(fd, 10 * PAGE) as mapped:
                mapped[9 * PAGE : 9 * PAGE + 3] = b"end"
                os.ftruncate(fd, 5 * PAGE + 100)
                mapped[5 * PAGE + 90 : 5 * PAGE + 100] = b"x" * 10
                os.ftruncate(fd, 10 * PAGE)
                found = [mapped[5 * PAGE : 6 * PAGE], mapped[9 * PAGE : 9 * PAGE + 3]]
        pair.mount.sync()
        drop_page_cache()
        return [*found, path.read_bytes()]

    pair.both(work)


# -- locks -----------------------------------------------------------------------------------------------

LOCKS: dict[str, str] = {
    "flock": "fcntl.flock(fd, {kind} | fcntl.LOCK_NB)",
    "lockf": "fcntl.lockf(fd, {kind} | fcntl.LOCK_NB, 10, 5)",
}


@pytest.mark.parametrize("ours", ["LOCK_EX", "LOCK_SH", "LOCK_UN"])
@pytest.mark.parametrize("theirs", ["LOCK_EX", "LOCK_SH"])
@pytest.mark.parametrize("how", LOCKS)
def test_locks_exclude_other_processes(pair: SideBySide, how: str, ours: str, theirs: str) -> None:
    code = f"""
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    {LOCKS[how].format(kind="fcntl." + theirs)}
    print("locked")
except OSError as err:
    print(type(err).__name__)
"""

    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        with opened(path, os.O_RDWR) as fd:
            fcntl.flock(fd, getattr(fcntl, ours)) if how == "flock" else fcntl.lockf(fd, getattr(fcntl, ours), 10, 10)
            first = python(code, path).communicate()[0]
        return first, python(code, path).communicate()[0]

    assert pair.both(work)[1] == "locked\n"


def test_a_lock_outlives_a_commit_and_ends_with_the_process(pair: SideBySide) -> None:
    code = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("x", flush=True)
time.sleep(60)
"""
    path = pair.here / "x"
    path.write_bytes(DATA)
    holder = python(code, path)
    assert holder.stdout is not None
    assert holder.stdout.read(1) == "x"
    with path.open("r+b", buffering=0) as file:
        file.write(b"changed")
        pair.mount.sync()
        with pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.communicate()
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- extended attributes ---------------------------------------------------------------------------------


def test_extended_attributes_where_the_backing_filesystem_has_them(pair: SideBySide) -> None:
    calls: list[Callable[[Path], object]] = [
        lambda p: os.setxattr(p, "user.a", b"1"),
        lambda p: os.setxattr(p, "user.a", b"2", os.XATTR_CREATE),
        lambda p: os.setxattr(p, "user.b", b"2", os.XATTR_REPLACE),
        lambda p: os.setxattr(p, "user.a", b"\0\xff" * 500, os.XATTR_REPLACE),
        lambda p: os.setxattr(p, "user.empty", b""),
        lambda p: os.getxattr(p, "user.a"),
        lambda p: os.getxattr(p, "user.empty"),
        lambda p: os.getxattr(p, "user.absent"),
        lambda p: os.removexattr(p, "user.empty"),
        lambda p: os.removexattr(p, "user.absent"),
        lambda p: os.setxattr(p, "user." + "n" * 250, b"long name"),
        lambda p: os.setxattr(p, "user." + "n" * 251, b"too long"),
        lambda p: os.setxattr(p, "user.big", b"x" * 3000),
        lambda p: os.setxattr(p, "user.too-big", b"x" * 65537),
        lambda p: os.setxattr(p, "nonsense.x", b"1"),
        lambda p: os.setxattr(p, "trusted.x", b"1", follow_symlinks=False),
        lambda p: os.getxattr(p, "trusted.x", follow_symlinks=False),
        lambda p: sorted(os.listxattr(p)),
        lambda p: sorted(os.listxattr(p, follow_symlinks=False)),
    ]

    def work(directory: Path) -> object:
        (directory / "file").write_bytes(b"content")
        (directory / "directory").mkdir()
        (directory / "link").symlink_to("directory/x")
        os.mkfifo(directory / "fifo")
        names = ("file", "directory", "link", "fifo")
        found = [outcome(lambda d, n=name, c=call: c(d / n), directory) for name in names for call in calls]
        pair.mount.sync()
        return [*found, sorted(os.listxattr(directory / "file")), os.getxattr(directory / "file", "user.a")]

    pair.both(work)


def test_extended_attributes_survive_rewriting_and_renaming_over_does_not_mix_them(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        for name in ("a", "b"):
            (directory / name).write_bytes(DATA)
            os.setxattr(directory / name, f"user.{name}", name.encode())
        pair.mount.sync()
        (directory / "a").write_bytes(b"rewritten")
        pair.mount.sync()
        (directory / "b").rename(directory / "c")
        os.rename(directory / "a", directory / "c")
        return os.listxattr(directory / "c"), (directory / "c").read_bytes()

    pair.both(work)


# -- what a fresh mount shows ----------------------------------------------------------------------------


def test_everything_is_the_same_after_a_remount(tmp_path: Path) -> None:
    def shown(top: Path) -> object:
        found = []
        for path in sorted(top.iterdir()):
            st = path.lstat()
            names = os.listxattr(path, follow_symlinks=False)
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            values = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
            found.append((path.name, st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, values, content))
        return found

    with mounted(tmp_path) as mount:
        for i, mode in enumerate((0o600, 0o644, 0o4755, 0o2711)):
            path = mount.path / f"x{i}"
            path.write_bytes(DATA[: i * 50_000])
            os.setxattr(path, "user.number", b"%d" % i)
            os.chmod(path, mode)
            os.utime(path, ns=(i, 10**18 + i))
        (mount.path / "link").symlink_to("x1")
        os.mkfifo(mount.path / "fifo", 0o620)
        before = shown(mount.path)
        mount.remount()
        assert shown(mount.path) == before


def test_readers_and_a_writer_never_see_anything_but_old_or_new_blocks(pair: SideBySide) -> None:
    path = pair.here / "x"
    block = 4096
    path.write_bytes(b"\0" * (64 * block))
    pair.mount.sync()
    until = time.monotonic() + 2

    def read() -> set[bytes]:
        seen = set()
        with opened(path, os.O_RDONLY) as fd:
            while time.monotonic() < until:
                for i in range(64):
                    data = os.pread(fd, block, i * block)
                    seen.add(bytes({data[0], data[-1], data[block // 2]}) if len(data) == block else b"short")
        return seen

    def write() -> None:
        with opened(path, os.O_WRONLY) as fd:
            value = 0
            while time.monotonic() < until:
                value = (value + 1) % 256
                for i in range(64):
                    os.pwrite(fd, bytes([value]) * block, i * block)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        pool.submit(write).result()
        assert all(len(values) == 1 for reader in readers for values in reader.result())


def test_a_write_beyond_the_largest_file_is_refused(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "4") as mount:  # 2^20 chunks of four bytes
        path = mount.path / "x"
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            assert os.pwrite(fd, b"last", (4 << 20) - 4) == 4
            for attempt in (lambda: os.pwrite(fd, b"x", 4 << 20), lambda: os.ftruncate(fd, (4 << 20) + 1)):
                with pytest.raises(OSError, match="File too large"):
                    attempt()
            assert os.fstat(fd).st_size == 4 << 20
            os.ftruncate(fd, 100)
        assert path.read_bytes() == bytes(100)
