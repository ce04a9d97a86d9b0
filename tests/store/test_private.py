"""The private directory: who may write to a BACKING, and what happens when it is taken away."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from qatqfs.store import Store, StoreError


def test_a_lock_file_that_was_removed_lets_no_second_writer_in(open_store, backing: Path) -> None:
    open_store()
    (backing / ".qatqfs/lock").unlink()
    with pytest.raises(StoreError, match="BACKING is locked"):
        Store(backing)


def test_a_private_directory_that_was_removed_lets_no_second_writer_in(open_store, backing: Path) -> None:
    open_store()
    shutil.rmtree(backing / ".qatqfs")
    with pytest.raises(StoreError, match="removed under a running daemon"):
        Store(backing)


def test_a_writer_that_locks_the_lock_file_alone_keeps_others_out(open_store, backing: Path) -> None:
    open_store().close()
    with (backing / ".qatqfs/lock").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="in use"):
            Store(backing)


def test_a_store_that_could_not_be_opened_leaves_no_lock(open_store, backing: Path) -> None:
    open_store().close()
    (backing / ".qatqfs/format").write_text("of the future\n")
    with pytest.raises(StoreError, match="format"):
        Store(backing)
    (backing / ".qatqfs/format").unlink()
    Store(backing).close()


def test_a_closed_store_leaves_no_lock(open_store, backing: Path) -> None:
    open_store().close()
    descriptor = os.open(backing, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_barrier_tells_that_the_private_directory_was_taken_away(
    store: Store, backing: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    store.sync()
    (backing / ".qatqfs").rename(backing / "elsewhere")
    if how == "replaced":
        (backing / ".qatqfs").mkdir()
    try:
        with pytest.raises(OSError, match="removed or replaced"):
            store.sync()
        assert ".qatqfs was removed or replaced" in caplog.text
    finally:
        if how == "replaced":
            (backing / ".qatqfs").rmdir()
        (backing / "elsewhere").rename(backing / ".qatqfs")


def test_a_barrier_succeeds_and_warns_once_when_the_lock_file_was_removed(
    store: Store, backing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (backing / ".qatqfs/lock").unlink()
    store.sync()
    store.sync()
    assert caplog.text.count("lock was removed") == 1


def test_a_read_only_store_takes_no_lock(open_store) -> None:
    open_store()
    open_store(read_only=True)
