"""Times and metadata that are set beside a commit: each is there afterwards, to the nanosecond, and after a crash."""

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from committing import DATA, FIRST_NS, OPTIONS, THEN_NS, changed_file, during_the_commit
from faults import FaultyIO, Killed, PowerIO, abandon

from qatqfs.store import Store
from qatqfs.store.commit import metadata_copy
from qatqfs.store.staging import records as staginglog


def disk_that_loses_power(base: Path, *, raw: bytes | None = None) -> tuple[PowerIO, Path]:
    """Return the I/O of a new backing directory below ``base``, with a raw file in it or none, and that directory."""
    backing, aside = base / "backing", base / "aside"
    backing.mkdir(parents=True)
    aside.mkdir()
    if raw is not None:
        (backing / "x").write_bytes(raw)
    return PowerIO(backing, aside), backing


@contextlib.contextmanager
def after_loss_of_power(io: PowerIO, backing: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Lose power, and open the store again in another boot."""
    io.lose_power(seed)
    io.forget_aside()
    with monkeypatch.context() as patch:
        patch.setattr(staginglog, "current_boot_id", lambda: b"another boot id!")
        with Store(backing, OPTIONS) as again:
            yield again


@pytest.fixture
def store(backing: Path, io: FaultyIO) -> Any:
    store = Store(backing, OPTIONS, io=io)
    yield store
    io.heal()
    abandon(store, io)


# -- who waits for the disk ----------------------------------------------------------------------------


def sync_and_look(store: Store, io: FaultyIO) -> list[tuple[int, bool]]:
    """Sync; return for each file that is made durable its mode, and whether names could be used meanwhile."""
    found = []

    def names_are_free() -> bool:
        free = store.tree.lock.acquire(blocking=False)
        if free:
            store.tree.lock.release()
        return free

    def look(number: int, name: str, args: tuple) -> None:
        if name == "fsync":
            found.append((os.fstat(args[0].number).st_mode & 0o777, other_thread.submit(names_are_free).result()))

    with ThreadPoolExecutor(1) as other_thread:
        io.before = look
        store.sync()
        io.heal()
    return found


def test_names_can_be_used_while_a_container_is_made_durable(
    store: Store, io: FaultyIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = changed_file(store)
    during_the_commit(monkeypatch, lambda: store.chmod(b"x", 0o640))  # so that the container is outdated
    assert sync_and_look(store, io) == [(0o644, True), (0o640, True)]
    assert store.stat(b"x").mode & 0o777 == 0o640
    handle.close()


def test_names_can_be_used_while_a_raw_file_is_made_durable(
    backing: Path, io: FaultyIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(backing, dataclasses.replace(OPTIONS, raw_patterns=("*.raw",)), io=io) as store:
        handle = changed_file(store)
        store.rename(b"x", b"x.raw")
        during_the_commit(monkeypatch, lambda: store.chmod(b"x.raw", 0o640))
        assert sync_and_look(store, io) == [(0o644, True), (0o640, True)]
        assert (backing / "x.raw").stat().st_mode & 0o777 == 0o640
        handle.close()


def test_metadata_that_change_during_each_copy_are_those_of_the_container(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = changed_file(store)
    modes = [0o640, 0o600, 0o660]
    real = metadata_copy.copy_metadata

    def then_change(*args: Any) -> None:
        real(*args)
        if modes:
            store.chmod(b"x", modes.pop(0))

    monkeypatch.setattr(metadata_copy, "copy_metadata", then_change)
    store.sync()
    assert not modes
    assert not handle.node.dirty
    assert (backing / "x.qatc").stat().st_mode & 0o777 == 0o660
    handle.close()


# -- a time that is synced during a commit -------------------------------------------------------------


def test_a_time_that_was_synced_during_the_commit_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at = 0
    while stop_at is not None:
        for seed in range(4):
            base = tmp_path / "trial"
            (base / "backing").mkdir(parents=True)
            (base / "aside").mkdir()
            stop_at = lose_power_after_syncing(base, stop_at, seed, monkeypatch)
            shutil.rmtree(base)
            if stop_at is None:
                break
        else:
            stop_at += 1


def lose_power_after_syncing(base: Path, stop_at: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Lose power so many steps after the fsync; returns the same, or ``None`` if there are not so many."""
    io = PowerIO(base / "backing", base / "aside")
    store = Store(base / "backing", OPTIONS, io=io)
    handle = changed_file(store)
    handle.fsync()

    def set_and_sync() -> None:
        store.utimens(b"x", None, THEN_NS)
        handle.fsync()
        io.kill_before(len(io.steps) + stop_at)

    during_the_commit(monkeypatch, set_and_sync)
    done = True
    try:
        store.sync()
    except Killed:
        done = False
    abandon(store, io)
    with after_loss_of_power(io, base / "backing", seed, monkeypatch) as again:
        for _ in range(2):
            assert again.stat(b"x").mtime_ns == THEN_NS, f"power lost {stop_at} steps after, seed {seed}"
            again.sync()
    return None if done and seed else stop_at


@pytest.mark.parametrize("set_to_ns", [THEN_NS, -1, -5_000_000_001])
def test_a_time_that_was_set_and_synced_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_to_ns: int
) -> None:
    for dirty in (True, False):
        for seed in range(4):
            io, backing = disk_that_loses_power(tmp_path / "trial")
            store = Store(backing, OPTIONS, io=io)
            handle = changed_file(store)
            if not dirty:
                store.sync()
            handle.fsync()
            store.utimens(b"x", None, set_to_ns)
            store.chmod(b"x", 0o604)
            store.setxattr(handle.node, b"user.k", b"v")
            handle.fsync()
            abandon(store, io)
            with after_loss_of_power(io, backing, seed, monkeypatch) as again:
                found = again.stat(b"x")
                assert (found.mtime_ns, found.mode & 0o777) == (set_to_ns, 0o604), (dirty, seed)
                assert again.getxattr(b"x", b"user.k") == b"v"
            shutil.rmtree(tmp_path / "trial")


def test_a_raw_file_that_was_synced_and_is_rewritten_as_a_container_survives_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(6):
        io, backing = disk_that_loses_power(tmp_path / "trial", raw=b"raw")
        store = Store(backing, OPTIONS, io=io)
        handle = store.open(b"x", os.O_RDWR)
        handle.write(b"RAW", 0)
        handle.fsync()
        with store.open(b"x", os.O_RDWR | os.O_TRUNC) as writer:
            writer.write(DATA, 0)
            writer.fsync()
            abandon(store, io)
        with after_loss_of_power(io, backing, seed, monkeypatch) as again, again.open(b"x") as reader:
            assert bytes(reader.read(len(DATA) + 1, 0)) == DATA, seed
        shutil.rmtree(tmp_path / "trial")


def test_a_file_that_was_synced_empty_and_changed_its_mode_is_never_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(6):
        io, backing = disk_that_loses_power(tmp_path / "trial")
        store = Store(backing, OPTIONS, io=io)
        handle = store.create(b"x")
        handle.fsync()
        store.chmod(b"x", 0o600)
        handle.write(DATA, 0)
        store.sync()
        abandon(store, io)
        io.lose_power(seed)
        io.forget_aside()
        with Store(backing, OPTIONS) as again, again.open(b"x") as reader:
            assert bytes(reader.read(len(DATA) + 1, 0)) in (b"", DATA), seed
        shutil.rmtree(tmp_path / "trial")


# -- metadata that changes during a commit -------------------------------------------------------------


class _CoarseStat:
    """A stat result of a clock that stands still."""

    def __init__(self, real: os.stat_result) -> None:
        self._real = real

    st_ctime_ns = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("change", ["chmod", "setxattr", "acl", "atime", "chown"])
def test_metadata_changed_within_a_tick_of_the_clock_is_not_lost(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    handle = changed_file(store)
    store.chmod(b"x", 0o600)
    acl = bytes.fromhex("0200000001000600ffffffff020004000100000004000400ffffffff10000600ffffffff20000400ffffffff")
    actions = {
        "chmod": lambda: store.chmod(b"x", 0o604),
        "setxattr": lambda: store.setxattr(b"x", b"user.k", b"v"),
        "acl": lambda: store.setxattr(b"x", b"system.posix_acl_access", acl),
        "atime": lambda: store.utimens(b"x", FIRST_NS, None),
        "chown": lambda: store.chown(b"x", -1, 1234 if os.geteuid() == 0 else -1),
    }
    try:
        actions[change]()
    except OSError:
        pytest.skip("not here")
    store.chmod(b"x", 0o600)
    before = handle.attributes()
    if change == "setxattr":
        store.removexattr(b"x", b"user.k")
    elif change == "acl":
        store.removexattr(b"x", b"system.posix_acl_access")
    elif change == "atime":
        store.utimens(b"x", THEN_NS, None)
    elif change == "chown":
        store.chown(b"x", -1, 0 if os.geteuid() == 0 else -1)
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: _CoarseStat(real(fd)))
    during_the_commit(monkeypatch, actions[change])
    store.sync()
    monkeypatch.setattr(os, "fstat", real)
    assert not handle.node.dirty
    found = handle.attributes()
    if change == "chmod":
        assert found.mode & 0o777 == 0o604
    elif change == "setxattr":
        assert store.getxattr(b"x", b"user.k") == b"v"
    elif change == "acl":
        assert store.getxattr(b"x", b"system.posix_acl_access") == acl
    elif change == "atime":
        assert found.atime_ns == FIRST_NS
    else:
        assert found.gid == before.gid
    handle.close()
