"""Syncs: what a barrier reports, and those that are looked after from outside."""

import errno
import json
import threading
from pathlib import Path

import pytest
from helpers import write

from qatqfs.store import Store, StoreOptions
from qatqfs.store.commit.engine import CommitEngine
from qatqfs.store.commit.syncs import Syncs
from qatqfs.store.errors import NotCommitted, StoreInUse


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Paths of files that cannot be committed."""
    paths: set[bytes] = set()
    commit = CommitEngine.commit

    def sometimes(self: CommitEngine, node, *, exclusive: bool = False) -> bool:
        if node.path in paths:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return commit(self, node, exclusive=exclusive)

    monkeypatch.setattr(CommitEngine, "commit", sometimes)
    return paths


def test_a_sync_names_every_file_that_could_not_be_committed(store: Store, failing: set[bytes]) -> None:
    failing |= {b"a", b"b"}
    for path in (b"a", b"b", b"c"):
        write(store, path, b"content!")
    with pytest.raises(NotCommitted) as raised:
        store.sync()
    assert sorted(raised.value.failures) == [("a", "Disk quota exceeded"), ("b", "Disk quota exceeded")]
    assert raised.value.errno == errno.EDQUOT
    assert raised.value.filename == raised.value.failures[0][0]
    failing.clear()
    store.sync()


def test_a_commit_that_never_gets_done_is_no_success(open_store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    with store.create(b"x") as handle:
        handle.write(b"content!", 0)
        with monkeypatch.context() as patch:
            patch.setattr(CommitEngine, "commit", lambda self, node, exclusive=False: False)
            with pytest.raises(NotCommitted, match="changed again and again"):
                store.sync()


def test_what_waits_is_counted_in_files_and_bytes(open_store) -> None:
    store = open_store()
    assert (store.pending().files, store.pending().bytes) == (0, 0)
    with store.create(b"d") as one, store.create(b"e") as other:
        one.write(bytes(10_000), 0)
        other.write(bytes(100), 0)
        assert (store.pending().files, store.pending().bytes) == (2, 10_100)
        assert (store.pending(b"e").files, store.pending(b"e").bytes) == (1, 100)
        store.sync()
        assert (store.pending().files, store.pending().bytes) == (0, 0)


def test_a_sync_in_the_background_can_be_looked_after() -> None:
    go = threading.Event()

    def sync(below: bytes) -> None:
        go.wait()
        if below == b"fails":
            raise NotCommitted([("fails/x", "reason")], errno.EIO)
        if below == b"breaks":
            raise ValueError("a bug")
        if below == b"disk":
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")  # not to be taken for a wait that is over

    syncs = Syncs(sync)
    numbers = {path: syncs.start(path) for path in (b"works", b"fails", b"breaks", b"disk")}
    below, state = syncs.look(numbers[b"works"], 0)
    assert below == b"works" and not state.done
    go.set()
    assert syncs.look(numbers[b"works"], 60)[1].done
    assert syncs.look(numbers[b"fails"], 60)[1].failures == [("fails/x", "reason")]
    assert syncs.look(numbers[b"breaks"], 60)[1].error == "a bug"
    assert syncs.look(numbers[b"disk"], 60)[1].error == "Connection timed out"
    with pytest.raises(KeyError):
        syncs.look(99, 0)
    syncs.stop()


# -- what the lock file says -------------------------------------------------------------------------------


def holder(backing: Path) -> dict[str, object]:
    found = json.loads((backing / ".qatqfs/lock").read_text())
    return {name: found[name] for name in ("state", "left", "error")}


def test_the_lock_says_what_became_of_everything(backing: Path, failing: set[bytes]) -> None:
    store = Store(backing, StoreOptions())
    assert holder(backing)["state"] == "serving"
    write(store, b"x", b"content!")
    store.close()
    assert holder(backing) == {"state": "ended", "left": 0, "error": None}
    store = Store(backing, StoreOptions())
    failing.add(b"x")
    write(store, b"x", b"more")
    with pytest.raises(NotCommitted):
        store.close()
    assert holder(backing) == {"state": "ended", "left": 1, "error": "x: Disk quota exceeded"}


def test_a_store_in_use_is_refused_with_its_holder(backing: Path, store: Store) -> None:
    store.serves("/mnt/ü", "0:99")
    with pytest.raises(StoreInUse, match=r"by process \d+, mounted at '/mnt/ü' \(a second") as raised:
        Store(backing, StoreOptions())
    assert raised.value.holder is not None and raised.value.holder.device == "0:99"
