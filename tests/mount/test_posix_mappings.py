"""Mappings of files into memory: what is stored through them, and when it is seen."""

import mmap
import os
from pathlib import Path

import pytest
from mounted import drop_page_cache
from sidebyside import SideBySide, opened, python

pytestmark = pytest.mark.fuse

PAGE = mmap.PAGESIZE
DATA = bytes(range(256)) * 1024  # four chunks of 64 KiB


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
