"""What programs do to files, on a real mount."""

import concurrent.futures
import errno
import itertools
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from mounted import Mounted, errno_of, mounted

pytestmark = pytest.mark.fuse

DATA = bytes(range(256)) * 4096  # 1 MiB: several chunks of 64 KiB

_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_mount(tmp_path_factory: pytest.TempPathFactory):
    with mounted(tmp_path_factory.mktemp("operations"), "--chunk-size", "64K") as mount:
        yield mount


@pytest.fixture
def top(shared_mount: Mounted) -> Path:
    """An empty directory in the mount."""
    path = shared_mount.path / f"d{next(_numbers)}"
    path.mkdir()
    return path


def test_reading_anywhere_gives_exactly_what_was_written(top: Path, shared_mount: Mounted) -> None:
    (top / "x").write_bytes(DATA)
    for committed in (False, True):
        if committed:
            shared_mount.sync()
        fd = os.open(top / "x", os.O_RDONLY)
        for offset, size in [(0, 1), (65535, 2), (1, len(DATA)), (100_000, 300_000), (len(DATA) - 1, 10)]:
            assert os.pread(fd, size, offset) == DATA[offset : offset + size]
        assert os.pread(fd, 10, len(DATA)) == b""
        os.close(fd)


def test_the_size_is_exact_after_every_write(top: Path) -> None:
    with (top / "x").open("wb", buffering=0) as file:
        for size in range(1, 50):
            file.write(b"y")
            assert os.stat(top / "x").st_size == size == os.fstat(file.fileno()).st_size


def test_a_file_may_be_renamed_and_deleted_while_it_is_open_and_dirty(top: Path, shared_mount: Mounted) -> None:
    with (top / "x").open("w+b", buffering=0) as file:
        file.write(b"one")
        (top / "x").rename(top / "y")
        file.write(b"two")
        shared_mount.sync()
        assert (top / "y").read_bytes() == b"onetwo"
        (top / "y").unlink()
        file.write(b"three")
        file.seek(0)
        assert file.read() == b"onetwothree"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert os.listdir(top) == []


def test_writing_beside_and_renaming_over_is_atomic_for_readers(top: Path) -> None:
    target = top / "state"
    target.write_bytes(b"0" * 100_000)
    stop = threading.Event()
    wrong: list[bytes] = []

    def reader() -> None:
        while not stop.is_set():
            data = target.read_bytes()
            if len(data) != 100_000 or len(set(data)) != 1:
                wrong.append(data)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(reader)
        for i in range(30):
            temporary = top / f"tmp{i}"
            temporary.write_bytes(b"%d" % (i % 10) * 100_000)
            temporary.rename(target)
        stop.set()
    assert not wrong
    assert os.listdir(top) == ["state"]


def test_many_writers_in_one_directory(top: Path) -> None:
    def work(number: int) -> None:
        path = top / f"block{number}"
        path.write_bytes(b"%03d" % number * 10_000)
        path.rename(top / f"done{number}")

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(200)))
    assert sorted(os.listdir(top)) == sorted(f"done{n}" for n in range(200))
    for number in range(200):
        assert (top / f"done{number}").read_bytes() == b"%03d" % number * 10_000


def test_committing_changes_nothing_that_stat_shows(top: Path, shared_mount: Mounted) -> None:
    path = top / "x"
    path.write_bytes(DATA)

    def shown() -> tuple[int, ...]:
        st = path.stat()
        return (st.st_ino, st.st_mode, st.st_nlink, st.st_size, st.st_mtime_ns)

    before = shown()
    shared_mount.sync()
    time.sleep(1.1)  # beyond the time that the kernel keeps attributes
    assert shown() == before
    assert 0 < path.stat().st_blocks * 512 < len(DATA)


def test_listing_shows_the_attributes_that_stat_shows(top: Path) -> None:
    for i in range(300):
        (top / f"f{i}").write_bytes(b"x" * i)
    with os.scandir(top) as entries:
        seen = {entry.name: (entry.inode(), entry.stat(follow_symlinks=False).st_size) for entry in entries}
    assert seen == {f"f{i}": ((top / f"f{i}").stat().st_ino, i) for i in range(300)}
    names = subprocess.run(["ls", "-a", top], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(names) == sorted([".", "..", *seen])


def test_what_pyfuse3_does_not_have_is_refused_or_falls_back(top: Path) -> None:
    fd = os.open(top / "x", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 20_000)
    assert os.fstat(fd).st_size == 20_000
    assert errno_of(os.open, top, os.O_TMPFILE | os.O_RDWR) == errno.errorcode[errno.EOPNOTSUPP]
    os.close(fd)


def test_a_hard_link_is_the_same_file_before_and_after_a_commit(top: Path, shared_mount: Mounted) -> None:
    (top / "x").write_bytes(b"content")
    os.link(top / "x", top / "y")
    for _ in range(2):
        one, other = (top / "x").stat(), (top / "y").stat()
        assert (one.st_ino, one.st_nlink) == (other.st_ino, other.st_nlink) == (one.st_ino, 2)
        with (top / "y").open("ab") as file:
            file.write(b"!")
        shared_mount.sync()
    assert (top / "x").read_bytes() == b"content!!"
    (top / "x").unlink()
    assert (top / "y").stat().st_nlink == 1
    assert (top / "y").read_bytes() == b"content!!"


def test_statvfs_tells_the_real_free_space_in_blocks_of_4_kib(shared_mount: Mounted) -> None:
    shown, real = os.statvfs(shared_mount.path), os.statvfs(shared_mount.backing)
    assert (shown.f_bsize, shown.f_frsize) == (4096, 4096)
    assert abs(shown.f_bavail * 4096 - real.f_bavail * real.f_frsize) < 1 << 30
    assert shown.f_namemax == real.f_namemax - 5


def test_fsync_of_files_and_directories(top: Path) -> None:
    with (top / "x").open("wb") as file:
        file.write(DATA)
        file.flush()
        os.fsync(file.fileno())
    fd = os.open(top, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    assert (top / "x").read_bytes() == DATA


def test_missing_names_and_other_users_errors(top: Path) -> None:
    assert errno_of(os.stat, top / "absent") == "ENOENT"
    assert errno_of(os.rmdir, top.parent) in {"EBUSY", "ENOTEMPTY"}
    (top / "d").mkdir()
    (top / "d" / "x").touch()
    assert errno_of(os.rmdir, top / "d") == "ENOTEMPTY"
    assert errno_of(os.mkdir, top / "d.qatc") == "EINVAL"
    assert errno_of(os.rename, top / "d", top / "e.qatc") == "EINVAL"


def test_a_reopened_file_shows_what_another_descriptor_wrote_meanwhile(top: Path, shared_mount: Mounted) -> None:
    path = top / "x"
    path.write_bytes(DATA)
    shared_mount.sync()
    assert path.read_bytes() == DATA
    with path.open("r+b", buffering=0) as file:
        for i in range(5):
            file.seek(i * 1000)
            file.write(b"%d" % i * 100)
            assert path.read_bytes()[i * 1000 : i * 1000 + 100] == b"%d" % i * 100
            shared_mount.sync()
            assert path.read_bytes()[i * 1000 : i * 1000 + 100] == b"%d" % i * 100


def test_a_container_replaced_behind_the_mount_is_seen_at_the_next_open(top: Path, shared_mount: Mounted) -> None:
    (top / "x").write_bytes(b"A" * 1000)
    (top / "y").write_bytes(b"B" * 2000)
    shared_mount.sync()
    assert (top / "x").read_bytes() == b"A" * 1000
    stored = shared_mount.backing / top.name
    os.replace(stored / "y.qatc", stored / "x.qatc")
    assert (top / "x").read_bytes() == b"B" * 2000
    time.sleep(1.1)  # as long as the kernel may believe a name
    assert errno_of((top / "y").read_bytes) == "ENOENT"


def test_a_container_replaced_behind_the_mount_is_seen_at_the_next_open_while_the_old_one_is_still_open(
    top: Path, shared_mount: Mounted
) -> None:
    (top / "x").write_bytes(b"A" * 1000)
    (top / "y").write_bytes(b"B" * 2000)
    shared_mount.sync()
    stored = shared_mount.backing / top.name
    with (top / "x").open("rb") as old:
        os.replace(stored / "y.qatc", stored / "x.qatc")
        assert (top / "x").read_bytes() == b"B" * 2000
        assert old.read() == b"A" * 1000


def test_a_container_rewritten_in_place_behind_the_mount_is_seen_at_the_next_open(
    top: Path, shared_mount: Mounted
) -> None:
    (top / "x").write_bytes(b"A" * 1000)
    (top / "y").write_bytes(b"B" * 1000)
    shared_mount.sync()
    assert (top / "x").read_bytes() == b"A" * 1000
    stored = shared_mount.backing / top.name
    (stored / "x.qatc").write_bytes((stored / "y.qatc").read_bytes())
    assert (top / "x").read_bytes() == b"B" * 1000
