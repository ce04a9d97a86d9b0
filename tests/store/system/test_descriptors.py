"""Few descriptors: what is to stay open is refused while commits still have theirs, and nothing is lost."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultyIO, abandon
from helpers import read
from mounted import errno_of

from qatqfs.store import Store, StoreOptions
from qatqfs.store.commit.schedule import Committer
from qatqfs.store.names.tree import Tree
from qatqfs.store.system import descriptors as descriptors

DATA = bytes(range(256)) * 40


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Leave a store room for some files more than this process has open now."""

    fillers: list[int] = []

    def leave(count: int) -> None:
        top = max(int(name) for name in os.listdir("/proc/self/fd"))
        while not fillers or fillers[-1] < top:  # no number below is free then, whatever earlier tests have left
            fillers.append(os.open(os.devnull, os.O_RDONLY))
        wanted = max(top, fillers[-1]) + 1 + count
        monkeypatch.setattr(descriptors, "most_descriptors", lambda: wanted * 4 // 3)

    yield leave
    for fd in fillers:
        os.close(fd)


def test_a_file_that_cannot_stay_open_is_not_created_and_the_others_are_safe(store: Store, few) -> None:
    few(40)
    names: list[bytes] = []
    with contextlib.ExitStack() as stack:

        def create_many() -> None:
            for number in range(100):
                handle = stack.enter_context(store.create(b"%d" % number))
                handle.write(DATA, 0)
                names.append(b"%d" % number)

        assert errno_of(create_many) == "ENFILE"
        assert 5 < len(names) < 40
        store.sync()
    assert set(names) <= set(store.list_names())
    assert all(read(store, name) == DATA for name in names)


def test_a_write_that_would_take_too_many_fails_before_anything_is_changed(store: Store, few) -> None:
    with store.create(b"x") as handle:
        handle.write(DATA, 0)
    store.sync()
    with store.open(b"x", os.O_RDWR) as handle:
        few(0)
        assert errno_of(handle.write, b"new", 0) == "ENFILE"
        assert bytes(handle.read(len(DATA), 0)) == DATA
        few(40)
        handle.write(b"new", 0)
        assert bytes(handle.read(len(DATA), 0)) == b"new" + DATA[3:]


def test_room_is_made_by_committing_what_nobody_has_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Committer, "released", lambda *_: None)  # which would commit it at once
    with store.create(b"open") as opened:
        opened.write(DATA, 0)
        assert not store.make_room()
        with store.create(b"closed") as handle:
            handle.write(DATA, 0)
            closed = handle.node
        assert store.make_room()
        assert (opened.node.dirty, closed.dirty) == (True, False)
        assert not store.make_room()


def test_more_recovered_files_than_may_be_open_are_all_there(backing: Path, few) -> None:
    io = FaultyIO()
    first = Store(backing, StoreOptions(idle_seconds=3600), io=io)
    names = [b"%d" % number for number in range(30)]
    handles = [first.create(name) for name in names]
    for handle in handles:
        handle.write(DATA, 0)
    abandon(first, io)
    del handles, first, handle
    few(40)
    with Store(backing) as store:
        assert store.recovered == len(names)
        assert all(read(store, name) == DATA for name in names)
    assert os.listdir(backing / ".qatqfs/lost+found") == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_base_that_cannot_be_opened_for_want_of_something_is_not_taken_for_lost(
    backing: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    io = FaultyIO()
    first = Store(backing, StoreOptions(idle_seconds=3600), io=io)
    handle = first.create(b"x")
    handle.write(DATA, 0)
    abandon(first, io)
    del handle, first

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "open_regular", fail)
        Store(backing).close()
    assert os.listdir(backing / ".qatqfs/lost+found") == []
    with Store(backing) as store:
        assert read(store, b"x") == DATA
