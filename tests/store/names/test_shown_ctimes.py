"""To a program nothing happens to a file, or to its directory, when it is committed."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import write

from qatqfs.store import Attributes, Store


def shown(store: Store, path: bytes) -> tuple[int, int]:
    found = store.stat(path)
    return found.mtime_ns, store.tree.commit_times.ctime_ns(found)


def test_a_commit_changes_no_time_of_the_file_or_its_directory(store: Store, backing: Path) -> None:
    store.mkdir(b"d")
    write(store, b"d/x", b"one")
    store.chmod(b"d/x", 0o600)
    before = shown(store, b"d"), shown(store, b"d/x")
    for _ in range(3):
        store.sync()
        assert (shown(store, b"d"), shown(store, b"d/x")) == before
    assert (backing / "d").stat().st_mtime_ns == before[0][0]
    assert (backing / "d/x.qatc").stat().st_ctime_ns > before[1][1]


def test_a_second_commit_still_shows_the_time_of_the_change(store: Store) -> None:
    write(store, b"x", b"one")
    store.sync()
    write(store, b"x", b"two")
    before = shown(store, b""), shown(store, b"x")
    store.sync()
    assert (shown(store, b""), shown(store, b"x")) == before


def test_what_changes_after_the_commit_is_shown(store: Store, backing: Path) -> None:
    write(store, b"x", b"one")
    store.sync()
    before = shown(store, b""), shown(store, b"x")
    store.chmod(b"x", 0o600)
    store.mkdir(b"d")
    assert shown(store, b"x")[1] > before[1][1]
    assert shown(store, b"")[1] > before[0][1]
    assert shown(store, b"")[0] > before[0][0]
    assert shown(store, b"x")[1] == os.stat(backing / "x.qatc").st_ctime_ns


def test_a_file_has_its_name_also_while_the_new_container_takes_the_old_ones_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Attributes] = []
    threads: list[threading.Thread] = []

    unchanged = store.tree.commit_times.unchanged

    @contextlib.contextmanager
    def watched(*args: Any) -> Iterator[None]:
        with unchanged(*args):
            yield
            threads.append(threading.Thread(target=lambda: seen.append(handle.attributes())))
            threads[-1].start()
            threads[-1].join(0.3)

    with store.create(b"x") as handle:
        handle.write(b"content", 0)
        monkeypatch.setattr(store.tree.commit_times, "unchanged", watched)
        store.sync()
        monkeypatch.undo()
        for thread in threads:
            thread.join()
    assert [(found.nlink, found.size) for found in seen] == [(1, 7)]
