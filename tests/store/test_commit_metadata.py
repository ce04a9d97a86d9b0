"""Times and metadata that are set beside a commit: each is there afterwards, to the nanosecond, and after a crash."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import FaultyIO, Killed, PowerIO, abandon

from qatqfs.codec import Level
from qatqfs.store import Handle, Store, StoreOptions, commit, staginglog

CHUNK = 4096
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, level=Level.FAST)
DATA = np.random.default_rng(1).bytes(20 * CHUNK)
FIRST_NS, THEN_NS = 1_000_000_007, 1_700_000_000_123_456_789


@pytest.fixture
def io() -> FaultyIO:
    return FaultyIO()


@pytest.fixture
def store(backing: Path, io: FaultyIO) -> Any:
    store = Store(backing, OPTIONS, io=io)
    yield store
    io.heal()
    abandon(store, io)


def during_the_commit(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something once, after the next commit has given its container the file's metadata and before it swaps."""
    real = commit.copy_metadata

    def then_act(*args: Any) -> None:
        monkeypatch.setattr(commit, "copy_metadata", real)
        real(*args)
        action()

    monkeypatch.setattr(commit, "copy_metadata", then_act)


def changed_file(store: Store) -> Handle:
    """A committed file that was changed in one chunk."""
    handle = store.create(b"x")
    handle.write(DATA, 0)
    store.sync()
    handle.write(b"changed", 5 * CHUNK)
    return handle


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
    io.lose_power(seed)
    io.forget_aside()
    with monkeypatch.context() as patch:
        patch.setattr(staginglog, "current_boot_id", lambda: b"another boot id!")
        with Store(base / "backing", OPTIONS) as again:
            for _ in range(2):
                assert again.stat(b"x").mtime_ns == THEN_NS, f"power lost {stop_at} steps after, seed {seed}"
                again.sync()
    return None if done and seed else stop_at


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
