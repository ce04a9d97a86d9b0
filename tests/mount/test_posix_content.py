"""Content: open flags, appending, truncating, holes, direct input and output."""

import concurrent.futures
import errno
import mmap
import os
import time
from pathlib import Path

import pytest
from mounted import mounted
from sidebyside import SideBySide, opened, outcome, python

pytestmark = pytest.mark.fuse

PAGE = mmap.PAGESIZE
DATA = bytes(range(256)) * 1024  # four chunks of 64 KiB


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


def test_readers_of_a_file_that_is_being_overwritten_see_what_was_written_and_never_zeros(pair: SideBySide) -> None:
    # As elsewhere a read may see a part of a write that is under way, but nothing that nobody has written.
    path = pair.here / "x"
    block = 4096
    path.write_bytes(b"\1" * (64 * block))
    pair.mount.sync()
    until = time.monotonic() + 2

    def read() -> bool:
        with opened(path, os.O_RDONLY) as fd:
            while time.monotonic() < until:
                for i in range(64):
                    data = os.pread(fd, block, i * block)
                    if len(data) != block or 0 in data:
                        return False
        return True

    def write() -> None:
        with opened(path, os.O_WRONLY) as fd:
            value = 1
            while time.monotonic() < until:
                value = value % 255 + 1
                for i in range(64):
                    os.pwrite(fd, bytes([value]) * block, i * block)

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        pool.submit(write).result()
        assert all(reader.result() for reader in readers)


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
