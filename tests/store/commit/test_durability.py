"""What survives a loss of power although no program asked for it, and who waits for that: nobody."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import EIO, FaultyIO, abandon
from helpers import ANOTHER_BOOT, lost_and_found, read, reboot, wait_for

from qatqfs.store import Handle, Store, StoreOptions
from qatqfs.store.commit import durability
from qatqfs.store.staging import records as staginglog
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # threads are killed

CHUNK = 4096
DATA = bytes(range(256)) * 50


def options(**changes: object) -> StoreOptions:
    return StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, **changes)  # type: ignore[arg-type]


def durable_size(backing: Path) -> int | None:
    """How much of the one file in staging is sure after a loss of power."""
    (log,) = (backing / ".qatqfs/staging").glob("*.log")
    return staginglog.replay(log.read_bytes(), ANOTHER_BOOT).durable_size


def after_a_reboot(backing: Path, monkeypatch: pytest.MonkeyPatch, path: bytes = b"x") -> tuple[bytes, list[bytes]]:
    """What a file has, and what is in lost+found, when the next store has settled."""
    reboot(monkeypatch)
    with Store(backing, options()) as store:
        found = read(store, path)
    return found, list(lost_and_found(backing).values())


class Recorder(BackingIO):
    """Notes what makes things durable, and lets a test hold up one of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def fdatasync(self, fd: Fd) -> None:
        self.calls.append("fdatasync")
        self.reached.set()
        assert self.go_on.wait(30)

    def syncfs(self, fd: Fd) -> None:
        super().syncfs(fd)
        self.calls.append("syncfs")


def test_what_is_open_and_was_not_synced_is_durable_some_time_after_it_was_written(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = FaultyIO()
    store = Store(backing, options(durable_after=0.02), io=io)
    handle = store.create(b"x")
    handle.write(DATA, 0)
    wait_for(lambda: durable_size(backing) == len(DATA))
    handle.write(b"more", len(DATA))
    wait_for(lambda: durable_size(backing) == len(DATA) + 4)
    abandon(store, io)
    assert after_a_reboot(backing, monkeypatch) == (DATA + b"more", [])


def test_a_writer_does_not_wait_for_the_disk_and_what_it_writes_meanwhile_is_not_promised(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(backing, options()) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
    io = Recorder()
    store = Store(backing, options(durable_after=0.02), io=io)
    handle = store.open(b"x", os.O_RDWR)
    io.go_on.clear()
    handle.write(b"one", 10)
    assert io.reached.wait(30)
    handle.write(b"two", 2 * CHUNK)  # hangs if it waits for the disk
    (log,) = (backing / ".qatqfs/staging").glob("*.log")
    before = log.stat().st_size
    io.go_on.set()
    wait_for(lambda: log.stat().st_size > before)
    said = log.read_bytes()
    store.close(commit=False)
    first_sync = min(
        cut for cut in range(before, len(said) + 1) if staginglog.replay(said[:cut], ANOTHER_BOOT).durable_size
    )
    log.write_bytes(said[:first_sync])
    content, (lost,) = after_a_reboot(backing, monkeypatch)
    assert content == DATA[:10] + b"one" + DATA[13:]
    assert lost == content[: 2 * CHUNK] + b"two" + DATA[2 * CHUNK + 3 :]


def test_containers_are_durable_some_time_after_they_were_made(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        durability, "_marked", lambda node: []
    )  # or the commit may come late and make it durable itself
    io = Recorder()
    with Store(backing, options(durable_after=0.02), io=io) as store:
        with store.create(b"x") as handle:
            handle.write(DATA, 0)
        wait_for(lambda: (backing / "x.qatc").stat().st_size > 100)
        wait_for(lambda: "syncfs" in io.calls)


def test_files_that_become_raw_are_durable_some_time_after_they_were_committed(backing: Path) -> None:
    io = Recorder()
    with Store(backing, options(durable_after=0.5, raw_patterns=("*.raw",)), io=io) as store:
        with store.create(b"x") as handle:
            handle.write(DATA, 0)
            store.rename(b"x", b"x.raw")
        wait_for(lambda: (backing / "x.raw").exists() and "syncfs" in io.calls)


def test_containers_that_could_not_be_made_durable_are_made_so_later(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "_marked", lambda node: [])
    io = FaultyIO()
    io.fail(EIO, "syncfs")
    with Store(backing, options(durable_after=0.02), io=io) as store:
        with store.create(b"x") as handle:
            handle.write(DATA, 0)
        wait_for(lambda: io.steps.count("syncfs") >= 2)
        io.heal()
        failed = io.steps.count("syncfs")
        wait_for(lambda: io.steps.count("syncfs") > failed)


def test_many_files_are_made_durable_together(open_store, backing: Path) -> None:
    io = Recorder()
    with Store(backing, options(durable_after=0), io=io) as store:
        handles = [store.create(b"%d" % i) for i in range(20)]
        for handle in handles:
            handle.write(DATA, 0)
        store.secure_staging()
        assert io.calls.count("syncfs") == 2  # the contents, then the logs that speak of them
        for handle in handles:
            handle.close()


def test_nothing_is_made_durable_unasked_if_that_is_switched_off(backing: Path) -> None:
    with Store(backing, options(durable_after=0)):
        assert "qatqfs-durable" not in [thread.name for thread in threading.enumerate()]
    with Store(backing, options(durable_after=1)):
        assert "qatqfs-durable" in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="durable after"):
        StoreOptions(durable_after=value)


@pytest.mark.parametrize("end", ["sync", "close"])
def test_a_sync_and_a_close_end_with_everything_on_the_disk(backing: Path, end: str) -> None:
    io = Recorder()
    store = Store(backing, options(durable_after=0), io=io)
    with store.create(b"x") as handle:
        handle.write(DATA, 0)
    assert "syncfs" not in io.calls
    (store.sync if end == "sync" else store.close)()
    assert io.calls[-1] == "syncfs"
    store.close()


@pytest.mark.parametrize("end", ["sync", "close"])
def test_a_disk_that_cannot_be_written_fails_a_sync_and_a_close(backing: Path, end: str) -> None:
    io = FaultyIO()
    store = Store(backing, options(durable_after=0), io=io)
    with store.create(b"x") as handle:
        handle.write(DATA, 0)
    io.fail(EIO, "syncfs")
    with pytest.raises(OSError, match="Input/output error"):
        (store.sync if end == "sync" else store.close)()
    io.heal()
    store.close()


def test_a_failure_that_no_program_waited_for_is_told_to_the_next_fsync(backing: Path) -> None:
    io = FaultyIO()
    with Store(backing, options(durable_after=0), io=io) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
        io.fail(EIO, "fdatasync")
        with pytest.raises(OSError, match="may not survive a loss of power"):
            store.secure_staging()
        io.heal()
        with pytest.raises(OSError, match="Input/output error"):
            handle.fsync()
        handle.fsync()


def left_by_a_failed_commit(store: Store, io: FaultyIO) -> None:
    io.fail(errno.EDQUOT, "rename")
    with pytest.raises(OSError, match="quota"):
        store.close()


def left_on_purpose(store: Store, io: FaultyIO) -> None:
    store.close(commit=False)


@pytest.mark.parametrize("leave", [left_by_a_failed_commit, left_on_purpose])
def test_an_orderly_end_leaves_nothing_in_staging_that_is_not_durable_and_says_what(
    backing: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    leave: Callable[[Store, FaultyIO], None],
) -> None:
    io = FaultyIO()
    store = Store(backing, options(durable_after=0), io=io)
    handle: Handle = store.create(b"x")
    handle.write(DATA, 0)
    leave(store, io)
    assert "left in staging for the next mount, durable: x" in caplog.text
    assert durable_size(backing) == len(DATA)
    assert after_a_reboot(backing, monkeypatch) == (DATA, [])


def test_an_end_that_cannot_make_staging_durable_says_so(backing: Path, caplog: pytest.LogCaptureFixture) -> None:
    io = FaultyIO()
    store = Store(backing, options(durable_after=0), io=io)
    handle = store.create(b"x")
    handle.write(DATA, 0)
    io.fail(EIO, "fdatasync")
    with pytest.raises(OSError, match="may not survive a loss of power"):
        store.close(commit=False)
    assert "uncommitted content of x may not survive a loss of power" in caplog.text
    assert "durable: x" not in caplog.text
    handle.close()
