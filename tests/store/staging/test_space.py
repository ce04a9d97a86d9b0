"""A backing filesystem that is full to the last byte, filled by the store or by others."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import FaultyIO, abandon
from helpers import noise, read, wait_for
from mounted import errno_of

from qatqfs.codec import Level, decode_container
from qatqfs.store import Store, StoreOptions
from qatqfs.store.staging import records as staginglog
from qatqfs.store.staging.space import SpaceLedger, worst_case
from qatqfs.store.system.files import Fd

KIB, MIB = 1 << 10, 1 << 20
OPTIONS = StoreOptions(idle_seconds=3600.0, workers=1, level=Level.FAST)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a tmpfs")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def write_until_full(store: Store, path: bytes, piece: int) -> bytes:
    """Write noise in pieces until there is no space; returns what was acknowledged."""
    written = bytearray()
    with store.create(path) as handle:
        while True:
            data = noise(piece, len(written))
            try:
                done = handle.write(data, len(written))
            except OSError as err:
                if err.errno != errno.ENOSPC:
                    raise
                return bytes(written)
            written += data[:done]


def fill_to_the_last_byte(path: Path) -> None:
    """Take all that is free, as somebody else on the same disk does."""
    with path.open("wb", buffering=0) as stream:
        for piece in (MIB, 4 * KIB, 1):
            with contextlib.suppress(OSError):
                while stream.write(bytes(piece)) == piece:
                    pass
    st = os.statvfs(path)
    assert st.f_bavail == 0


@pytest.mark.parametrize("piece", [MIB, 300 * KIB + 1, 4 * KIB])
def test_what_was_written_until_the_disk_was_full_can_be_committed(disk: Path, piece: int) -> None:
    with Store(disk, OPTIONS) as store:
        data = write_until_full(store, b"x", piece)
        assert len(data) > 20 * MIB
        store.sync()
        assert "commit_failures" not in store.stats()
        assert read(store, b"x") == data
        assert store.statvfs().f_bavail * 4096 >= os.statvfs(disk).f_bavail * 4096 - MIB
    assert decode_container((disk / "x.qatc").read_bytes()) == data


def test_many_files_written_until_the_disk_was_full_can_all_be_committed(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        contents = {}
        handles = []

        def write_many() -> None:
            for i in range(100_000):
                name, data = b"f%d" % i, noise(100 * KIB + i % 5000, i)
                handles.append(store.create(name))
                if handles[-1].write(data, 0) == len(data):
                    contents[name] = data

        assert errno_of(write_many) == "ENOSPC"
        assert len(contents) > 200
        store.sync()
        assert "commit_failures" not in store.stats()
        assert all(read(store, name) == data for name, data in contents.items())


def test_a_file_with_two_names_written_until_the_disk_was_full_can_be_committed(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        store.create(b"x").close()
        store.link(b"x", b"y")
        data = write_until_full(store, b"x", MIB)  # as much again goes to the redo file, and to the inode of both names
        assert len(data) > 20 * MIB
        store.sync()
        assert "commit_failures" not in store.stats()
        assert read(store, b"y") == data
    assert decode_container((disk / "y.qatc").read_bytes()) == data


def test_changing_a_container_that_could_not_be_copied_is_refused_at_the_write(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        data = noise(24 * MIB)
        with store.create(b"x") as handle:
            handle.write(data, 0)
        store.sync()
        (disk / "others").write_bytes(bytes(20 * MIB))
        with store.open(b"x", os.O_RDWR) as handle:
            assert errno_of(handle.write, b"one byte", 5) == "ENOSPC"
        assert read(store, b"x") == data
        (disk / "others").unlink()
        with store.open(b"x", os.O_RDWR) as handle:
            assert handle.write(b"one byte", 5) == 8
        store.sync()
        assert read(store, b"x") == data[:5] + b"one byte" + data[13:]


def test_a_draft_that_could_not_be_removed_is_removed_before_a_writer_is_told_that_there_is_no_space(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = FaultyIO()
    with Store(disk, OPTIONS, io=io) as store:
        with store.create(b"x") as handle:
            handle.write(noise(20 * MIB), 0)
            io.fail(errno.EIO, "fsync", "ftruncate", "unlink", "rename")
            assert errno_of(store.sync) == "EIO"
            assert [path.suffix for path in (disk / ".qatqfs/staging").iterdir()].count(".new") == 1
            io.heal()
            store.unlink(b"x")
        with store.create(b"y") as handle:
            for i in range(25):  # and as much for the container: all of the disk
                assert handle.write(noise(MIB, i), i * MIB) == MIB


def test_free_space_is_less_by_what_commits_are_going_to_need(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        before = store.statvfs().f_bavail * 4096
        handle = store.create(b"x")
        handle.write(noise(10 * MIB), 0)
        assert store.statvfs().f_bavail * 4096 <= before - 20 * MIB
        handle.truncate(0)
        assert store.statvfs().f_bavail * 4096 > before - MIB
        handle.close()


def test_a_sparse_file_reserves_what_was_written_and_not_its_size(disk: Path) -> None:
    with Store(disk, OPTIONS) as store, store.create(b"x") as handle:
        handle.write(b"end", 10_000 * MIB)
        assert store.statvfs().f_bavail * 4096 > 40 * MIB


def test_an_unlinked_file_reserves_nothing_because_it_is_never_committed(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        handle = store.create(b"x")
        store.unlink(b"x")  # a placeholder without content
        for i in range(50):
            assert handle.write(noise(MIB, i), i * MIB) == MIB
        handle.close()


def test_others_who_fill_the_disk_delay_a_commit_and_harm_nothing(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        kept = noise(2 * MIB)
        with store.create(b"kept") as handle:
            handle.write(kept, 0)
        store.sync()
        data = noise(10 * MIB)
        handle = store.create(b"x")
        handle.write(data, 0)
        fill_to_the_last_byte(disk / "others")
        assert errno_of(handle.write, b"more", len(data)) == "ENOSPC"
        assert errno_of(store.sync) == "ENOSPC"
        assert errno_of(store.create, b"new") == "ENOSPC"
        assert read(store, b"x") == data
        assert read(store, b"kept") == kept
        (disk / "others").unlink()
        store.sync()
        assert read(store, b"x") == data
        handle.close()


def test_a_dirty_file_can_be_removed_on_a_full_disk(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        handle = store.create(b"x")
        handle.write(noise(10 * MIB), 0)
        fill_to_the_last_byte(disk / "others")
        store.unlink(b"x")
        handle.close()
        assert store.list_names() == [b"others"]
        # What was being encoded of it goes a moment later.
        wait_for(lambda: os.statvfs(disk).f_bavail * 4096 >= 9 * MIB)


@pytest.mark.parametrize("power", [False, True])
def test_a_store_recovers_on_a_full_disk_and_commits_once_there_is_space(
    disk: Path, power: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = FaultyIO()
    store = Store(disk, OPTIONS, io=io)
    data = bytearray(noise(8 * MIB))
    handle = store.create(b"x")
    handle.write(data, 0)
    store.sync()
    handle.write(b"changed", 1000)
    data[1000:1007] = b"changed"
    handle.fsync()
    abandon(store, io)
    fill_to_the_last_byte(disk / "others")
    if power:
        monkeypatch.setattr(staginglog, "current_boot_id", lambda: b"another boot id!")
    with Store(disk, OPTIONS) as again:
        assert again.recovered == 1
        assert read(again, b"x") == data
        assert errno_of(again.sync) == "ENOSPC"
        assert read(again, b"x") == data
        (disk / "others").unlink()
        with again.open(b"x", os.O_RDWR) as handle:
            handle.write(b"more", 0)
        data[:4] = b"more"
        again.sync()
        assert read(again, b"x") == data
    assert decode_container((disk / "x.qatc").read_bytes()) == data


def test_the_worst_case_of_an_encoding_is_no_less_than_what_noise_takes(tmp_path: Path) -> None:
    options = StoreOptions(chunk_size=4096, idle_seconds=3600.0, workers=1)
    with Store(tmp_path, options) as store:
        for size in (1, 3, 4095, 4096, 4097, 1_000_000):
            with store.create(b"x%d" % size) as handle:
                handle.write(noise(size), 0)
            store.sync()
            assert (tmp_path / f"x{size}.qatc").stat().st_size <= worst_case(size, -(-size // 4096))


def test_what_a_file_has_reserved_is_given_back_with_it(tmp_path: Path) -> None:
    ledger = SpaceLedger(Fd(os.open(tmp_path, os.O_RDONLY)))
    assert ledger.reserved == 0
    ledger.reserve(b"a", 1000, copies=500)
    ledger.reserve(b"b", 2000, copies=900)
    both = ledger.reserved
    ledger.lower(b"b", 100)
    assert ledger.reserved == both - 1900
    ledger.release(b"b")
    ledger.release(b"a")
    assert ledger.reserved == 0
