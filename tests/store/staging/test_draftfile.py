"""A container that grows is written to disk as it does, and a disk that fails meanwhile is heard of."""

import errno
import os
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from faults import FaultyIO
from helpers import noise, wait_for

from qatqfs.store import Store, StoreOptions
from qatqfs.store.staging.draftfile import WriteBack
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd
from qatqfs.store.tuning import DEFAULT_TUNING, Tuning

MIB = 1 << 20
FSYNC_BYTES = DEFAULT_TUNING.writeback_fsync_bytes


class Disk(BackingIO):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self.synced = 0
        self.error: int | None = None

    def write_back(self, fd: Fd, offset: int, size: int) -> None:
        self.begun.append((offset, size))

    def fdatasync(self, fd: Fd) -> None:
        self.synced += 1
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))


class Later(Executor):
    """Runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future, Any, tuple]] = []

    def submit(self, function: Any, /, *args: Any, **settings: Any) -> Future:
        future: Future = Future()
        self.waiting.append((future, function, args))
        return future

    def run(self) -> None:
        for future, function, args in self.waiting:
            try:
                future.set_result(function(*args))
            except BaseException as err:
                future.set_exception(err)
        self.waiting.clear()


@pytest.fixture
def fd(tmp_path: Path) -> Fd:
    return Fd(os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT))


def test_the_disk_begins_every_few_megabytes_and_misses_nothing(fd: Fd) -> None:
    disk = Disk()
    write_back = WriteBack(disk, fd, Later())
    for size in range(MIB, 61 * MIB, 3 * MIB):
        write_back.grown(size)
    assert disk.begun[0][0] == 0
    for (offset, size), (following, _) in zip(disk.begun, disk.begun[1:], strict=False):
        assert size >= 8 * MIB
        assert following == offset + size


def test_the_file_is_made_durable_now_and_then_by_one_call_at_a_time(fd: Fd) -> None:
    disk, later = Disk(), Later()
    write_back = WriteBack(disk, fd, later)
    write_back.grown(FSYNC_BYTES - 1)
    assert not later.waiting
    write_back.grown(FSYNC_BYTES + 8 * MIB)
    write_back.grown(3 * FSYNC_BYTES)
    assert len(later.waiting) == 1
    later.run()
    write_back.grown(4 * FSYNC_BYTES)
    later.run()
    write_back.wait()
    assert disk.synced == 2


def test_what_the_disk_reports_is_raised_once(fd: Fd) -> None:
    disk, later = Disk(), Later()
    write_back = WriteBack(disk, fd, later)
    disk.error = errno.EIO
    write_back.grown(FSYNC_BYTES)
    later.run()
    with pytest.raises(OSError, match="Input/output"):
        write_back.grown(2 * FSYNC_BYTES)
    write_back.wait()


def test_after_a_cut_it_begins_anew_from_there(fd: Fd) -> None:
    disk, later = Disk(), Later()
    write_back = WriteBack(disk, fd, later)
    write_back.grown(2 * FSYNC_BYTES)
    later.run()
    write_back.cut(MIB)
    write_back.grown(MIB + FSYNC_BYTES)
    assert disk.begun[-1] == (MIB, FSYNC_BYTES)
    later.run()
    assert disk.synced == 2


def test_a_commit_whose_disk_failed_on_the_way_keeps_staging_and_is_made_again(tmp_path: Path) -> None:
    tuning = Tuning(writeback_bytes=64 << 10, writeback_fsync_bytes=256 << 10)
    content = noise(4 * MIB)
    io = FaultyIO()
    with Store(tmp_path, StoreOptions(idle_seconds=3600.0, tuning=tuning), io=io) as store:
        io.fail(errno.EIO, "fdatasync")
        with store.create(b"x.bf16") as handle:
            for offset in range(0, len(content), MIB):
                handle.write(content[offset : offset + MIB], offset)
            with pytest.raises(OSError, match="Input/output"):
                store.sync()
            assert handle.read(len(content), 0) == content
        io.heal()
        store.sync()
        assert store.stats()["dirty_files"] == 0
        with store.open(b"x.bf16") as handle:
            assert handle.read(len(content), 0) == content


def test_what_was_encoded_ahead_is_not_used_when_the_disk_failed_to_write_it(tmp_path: Path) -> None:
    tuning = Tuning(
        ahead_bytes=64 << 10,
        claim_bytes=1 << 20,
        writeback_bytes=64 << 10,
        writeback_fsync_bytes=3 * MIB,  # so that nothing else asks how it went
    )
    content = bytearray(noise(4 * MIB))
    io = FaultyIO()
    failed: list[Fd] = []
    copied = []

    def fail_once(number: int, name: str, args: tuple) -> None:
        if name == "copy_range" and failed and args[0] is failed[0]:
            copied.append(args)
        if name == "fdatasync" and not failed:
            failed.append(args[0])
            raise OSError(errno.EIO, "the disk")

    io.before = fail_once
    with Store(tmp_path, StoreOptions(idle_seconds=3600.0, chunk_size=64 << 10, tuning=tuning), io=io) as store:
        with store.create(b"x.bf16") as handle:
            for offset in range(0, len(content), MIB):
                handle.write(content[offset : offset + MIB], offset)
            wait_for(lambda: failed)
            draft = handle.node.staging.draft
            assert draft.fd is failed[0]
            write_back = draft._file._write_back
            wait_for(lambda: write_back._fdatasync is not None and write_back._fdatasync.done())
            content[MIB + 5] ^= 1  # a stale chunk with sound ones before and behind it
            handle.write(content[MIB : MIB + 10], MIB)
        store.sync()
        assert store.stats()["dirty_files"] == 0
        with store.open(b"x.bf16") as handle:
            assert handle.node.fd is not failed[0]
            assert handle.read(len(content), 0) == content
    assert not copied


def test_an_error_that_only_a_commit_has_heard_of_is_told_to_the_next_fsync(tmp_path: Path) -> None:
    io = FaultyIO()
    with Store(tmp_path, StoreOptions(idle_seconds=3600.0), io=io) as store, store.create(b"x") as handle:
        handle.write(b"first", 0)
        handle.fsync()
        handle.write(b"other", 0)
        data = handle.node.staging.data
        io.fail(errno.EIO, "fdatasync", when=lambda args: args[0] is data)
        with pytest.raises(OSError, match="Input/output"):
            store.sync()
        io.heal()  # as the system does: it has said so once
        with pytest.raises(OSError, match="Input/output"):
            handle.fsync()
        handle.fsync()
        store.sync()
        assert handle.read(10, 0) == b"other"
