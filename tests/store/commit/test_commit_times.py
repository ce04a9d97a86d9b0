"""The mtime of a file that stays dirty while a commit gives its space back."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from committing import CHUNK, DATA, FIRST_NS, OPTIONS, THEN_NS, changed_file, during_the_commit
from faults import FaultyIO, Killed, abandon

from qatqfs.store import Store
from qatqfs.store.staging.view import data_ranges


@pytest.fixture
def store(backing: Path, io: FaultyIO) -> Any:
    store = Store(backing, OPTIONS, io=io)
    yield store
    io.heal()
    abandon(store, io)


# -- the time of a file that stays dirty ---------------------------------------------------------------


@pytest.mark.parametrize("set_to_ns", [THEN_NS, None])
def test_a_commit_that_gives_space_back_moves_no_time(
    store: Store, io: FaultyIO, monkeypatch: pytest.MonkeyPatch, set_to_ns: int | None
) -> None:
    handle = changed_file(store)
    handle.write(DATA, 0)
    seen: list[int] = []

    def write_and_set() -> None:
        handle.write(b"meanwhile", 7 * CHUNK)
        if set_to_ns is not None:
            store.utimens(b"x", None, set_to_ns)
        seen.append(store.stat(b"x").mtime_ns)
        io.after = lambda number, name, args: seen.append(store.stat(b"x").mtime_ns)

    during_the_commit(monkeypatch, write_and_set)
    time.sleep(0.02)
    store.sync()
    entry = handle.node.staging
    assert entry is not None
    assert data_ranges(entry.data, entry.size) == [(7 * CHUNK, 8 * CHUNK)]
    seen.append(store.stat(b"x").mtime_ns)
    assert "punch" in io.steps
    assert len(set(seen)) == 1
    assert seen[0] == set_to_ns or set_to_ns is None
    io.after = lambda number, name, args: None
    time.sleep(0.02)
    handle.write(b"later", 3 * CHUNK)
    assert store.stat(b"x").mtime_ns > seen[0]


def test_a_reader_never_sees_the_time_of_a_hole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = changed_file(store)
    stop, seen = threading.Event(), set()

    def write_and_set() -> None:
        handle.write(b"meanwhile", 7 * CHUNK)
        store.utimens(b"x", None, THEN_NS)

    def look() -> None:
        while not stop.is_set():
            seen.add(handle.attributes().mtime_ns)

    real, readers = store.tree.fsync_parent, []

    def begin_to_look(path: bytes) -> None:
        readers.append(threading.Thread(target=look))  # after the swap, before space is given back
        readers[-1].start()
        real(path)

    monkeypatch.setattr(store.tree, "fsync_parent", begin_to_look)
    for round_ in range(20):
        handle.write(DATA, 0)
        during_the_commit(monkeypatch, write_and_set)
        store.sync()
        stop.set()
        assert len(readers) == round_ + 1
        readers[-1].join()
        stop.clear()
    assert seen == {THEN_NS}


@pytest.mark.parametrize("step", ["punch", "set_times", "pwrite"])
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_kill_while_space_is_given_back_moves_no_time(
    store: Store, io: FaultyIO, backing: Path, monkeypatch: pytest.MonkeyPatch, step: str, how: str
) -> None:
    handle = changed_file(store)
    handle.write(DATA, 0)

    def write_and_set() -> None:
        handle.write(b"meanwhile", 7 * CHUNK)
        store.utimens(b"x", None, THEN_NS)
        io.after = arm

    def arm(number: int, name: str, args: tuple) -> None:
        if name == "punch":
            io.after = (lambda n, name, a: io.die() if name == step else None) if how == "after" else io.after
            if how == "before":
                io.before = lambda n, name, a: io.die() if name == step else None
            elif step == "punch":
                io.die()

    during_the_commit(monkeypatch, write_and_set)
    with pytest.raises(Killed):
        store.sync()
    abandon(store, io)
    second = FaultyIO()
    again = Store(backing, OPTIONS, io=second)
    assert again.stat(b"x").mtime_ns == THEN_NS
    abandon(again, second)  # killed once more, before anything has changed
    with Store(backing, OPTIONS) as third:
        assert third.stat(b"x").mtime_ns == THEN_NS
        third.sync()
        assert third.stat(b"x").mtime_ns == THEN_NS
        assert (backing / "x.qatc").stat().st_mtime_ns == THEN_NS


def test_after_a_kill_while_space_is_given_back_the_next_write_moves_the_time_for_good(
    store: Store, io: FaultyIO, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = changed_file(store)
    handle.write(DATA, 0)

    def write_and_set() -> None:
        handle.write(b"meanwhile", 7 * CHUNK)
        store.utimens(b"x", None, FIRST_NS)
        io.after = lambda number, name, args: io.die() if name == "punch" else None

    during_the_commit(monkeypatch, write_and_set)
    with pytest.raises(Killed):
        store.sync()
    abandon(store, io)
    second = FaultyIO()
    again = Store(backing, OPTIONS, io=second)
    with again.open(b"x", os.O_RDWR) as writer:
        writer.write(b"after the kill", 0)
        written_ns = writer.attributes().mtime_ns
        assert written_ns > THEN_NS
        abandon(again, second)
    with Store(backing, OPTIONS) as third:
        assert third.stat(b"x").mtime_ns == written_ns


@pytest.mark.parametrize("also", ["fsync", "commit", "utimens", "truncate"])
def test_a_time_that_could_not_be_put_back_is_shown_all_the_same(
    store: Store, io: FaultyIO, backing: Path, monkeypatch: pytest.MonkeyPatch, also: str
) -> None:
    handle = changed_file(store)
    handle.write(DATA, 0)

    def write_and_set() -> None:
        handle.write(b"meanwhile", 7 * CHUNK)
        store.utimens(b"x", None, FIRST_NS)
        io.fail(5, "set_times", when=lambda args: args[2] == FIRST_NS and "punch" in io.steps)

    during_the_commit(monkeypatch, write_and_set)
    store.sync()
    assert "punch" in io.steps
    assert handle.attributes().mtime_ns == FIRST_NS
    io.heal()
    if also == "fsync":
        handle.fsync()
        assert handle.attributes().mtime_ns == FIRST_NS
    elif also == "utimens":
        store.utimens(b"x", None, THEN_NS)
        assert handle.attributes().mtime_ns == THEN_NS
    elif also == "truncate":
        handle.truncate(CHUNK)
        assert handle.attributes().mtime_ns > THEN_NS
    else:
        store.sync()
        assert (backing / "x.qatc").stat().st_mtime_ns == FIRST_NS
