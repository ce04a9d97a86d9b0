"""Commits while writers and readers go on, and encoding ahead of them."""

import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    content,
    looks_ahead,
    read,
    stored,
    wait_for_draft,
    write_sequentially,
)

from qatqfs.codec import Level
from qatqfs.store import Store
from qatqfs.store.commit import metadata_copy
from qatqfs.store.staging.snapshot import Snapshot
from qatqfs.store.staging.view import data_ranges
from qatqfs.store.tuning import Tuning

CHUNK = 4096
KIB, MIB = 1 << 10, 1 << 20


# -- while writers go on -------------------------------------------------------------------------------


class Pausing:
    """Stops a commit's first read of the content until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        real = Snapshot.read

        def read(snapshot: Snapshot, start: int, stop: int, *, final: bool = True):
            self.reached.set()
            assert self.go_on.wait(60)
            return real(snapshot, start, stop, final=final)

        monkeypatch.setattr(Snapshot, "read", read)


def in_background(function, *args) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def test_a_commit_holds_the_content_of_one_moment_and_stops_no_writer(
    open_store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(workers=1)
    data = content(10 * CHUNK)
    handle = store.create(b"x.f32")
    handle.write(data, 0)
    pausing = Pausing(monkeypatch)
    barrier = in_background(store.sync)
    assert pausing.reached.wait(60)
    changed = bytearray(data)
    for offset, size in [(5, 10), (2 * CHUNK - 3, 2 * CHUNK), (10 * CHUNK - 7, 50)]:
        patch = content(size, offset)
        assert handle.write(patch, offset) == size  # while the commit stands still
        changed[offset : offset + size] = patch
    pausing.go_on.set()
    barrier.join(60)
    assert stored(backing / "x.f32.qatc") == data
    assert bytes(handle.read(len(changed), 0)) == changed
    assert handle.node.dirty
    store.sync()
    assert stored(backing / "x.f32.qatc")[: len(changed)] == changed
    assert not handle.node.dirty
    handle.close()


def test_what_a_commit_took_is_given_back_to_the_disk_when_the_file_stays_dirty(
    open_store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    handle = store.create(b"x")
    handle.write(content(50 * CHUNK), 0)
    pausing = Pausing(monkeypatch)
    barrier = in_background(store.sync)
    assert pausing.reached.wait(60)
    handle.write(b"p", 7 * CHUNK)
    pausing.go_on.set()
    barrier.join(60)
    entry = handle.node.staging
    assert entry is not None
    assert data_ranges(entry.data, entry.size) == [(7 * CHUNK, 8 * CHUNK)]
    handle.close()


def test_a_file_that_is_cut_during_its_commit_is_committed_as_it_is_then(
    open_store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    data = content(10 * CHUNK)
    handle = store.create(b"x.f32")
    handle.write(data, 0)
    pausing = Pausing(monkeypatch)
    barrier = in_background(store.sync)
    assert pausing.reached.wait(60)
    handle.truncate(3 * CHUNK)
    handle.write(b"behind the cut", 5 * CHUNK)
    pausing.go_on.set()
    barrier.join(60)
    expected = data[: 3 * CHUNK].ljust(5 * CHUNK, b"\0") + b"behind the cut"
    assert stored(backing / "x.f32.qatc") == expected + bytes(-len(expected) % 4)
    handle.close()


def test_a_file_that_is_removed_during_its_commit_is_gone(
    open_store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    handle = store.create(b"x")
    handle.write(content(10 * CHUNK), 0)
    pausing = Pausing(monkeypatch)
    barrier = in_background(store.sync)
    assert pausing.reached.wait(60)
    store.unlink(b"x")
    pausing.go_on.set()
    barrier.join(60)
    assert bytes(handle.read(CHUNK, 0)) == content(CHUNK * 10)[:CHUNK]
    handle.close()
    assert list((backing / ".qatqfs/staging").iterdir()) == []
    assert store.list_names() == []


def test_readers_see_every_write_at_once_while_commits_run_all_the_time(open_store) -> None:
    store = open_store(workers=2, cache_size=8 * CHUNK)
    handle = store.create(b"x")
    handle.write(bytes(64 * CHUNK), 0)
    stop = threading.Event()

    def commit_on_and_on() -> None:
        while not stop.is_set():
            store.sync()

    committing = in_background(commit_on_and_on)
    rng = np.random.default_rng(5)
    expected = bytearray(64 * CHUNK)
    try:
        for round_ in range(300):
            offset = int(rng.integers(0, 60 * CHUNK))
            patch = rng.integers(0, 256, int(rng.integers(1, 3 * CHUNK)), np.uint8).tobytes()
            handle.write(patch, offset)
            expected[offset : offset + len(patch)] = patch
            if round_ % 3 == 0:
                start = int(rng.integers(0, 60 * CHUNK))
                assert bytes(handle.read(4 * CHUNK, start)) == expected[start : start + 4 * CHUNK]
    finally:
        stop.set()
        committing.join(60)
    assert bytes(handle.read(len(expected), 0)) == expected
    handle.close()
    store.sync()
    assert read(store, b"x") == expected


# -- encoding ahead ------------------------------------------------------------------------------------


@pytest.fixture
def eager(open_store):
    """A store that encodes ahead after a few chunks."""
    return open_store(level=Level.FAST, tuning=Tuning(ahead_bytes=8 * CHUNK, claim_bytes=64 * CHUNK))


@pytest.mark.parametrize("extra", [0, 1, 10])
def test_a_long_sequential_write_is_encoded_before_it_is_complete(eager: Store, backing: Path, extra: int) -> None:
    data = content(100 * CHUNK + extra)
    with eager.create(b"x.bf16") as handle:
        write_sequentially(handle, data[: 90 * CHUNK])
        wait_for_draft(handle, 80)
        handle.write(data[90 * CHUNK :], 90 * CHUNK)
        eager.sync()
    assert stored(backing / "x.bf16.qatc")[: len(data)] == data
    counts = eager.stats()
    assert counts["chunks_encoded"] == 100 + (extra > 0)
    assert counts["encoded_raw_bytes"] == len(data)


@pytest.mark.parametrize("chunks", [[0], [0, 40], [79], [30, 31, 32]])
def test_what_was_encoded_ahead_and_changed_since_is_encoded_again(
    eager: Store, backing: Path, chunks: list[int]
) -> None:
    data = bytearray(content(90 * CHUNK))
    with eager.create(b"x.bf16") as handle:
        write_sequentially(handle, data)
        wait_for_draft(handle, 80)
        for chunk in chunks:
            handle.write(b"patched header", chunk * CHUNK)
            data[chunk * CHUNK : chunk * CHUNK + 14] = b"patched header"
        assert bytes(handle.read(len(data), 0)) == data
        eager.sync()
    assert stored(backing / "x.bf16.qatc") == data
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_nothing_is_encoded_ahead_of_a_file_that_builds_on_a_container(
    eager: Store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(content(90 * CHUNK))
    handle = eager.create(b"x.bf16")
    write_sequentially(handle, data)
    real = metadata_copy.copy_metadata

    def write_meanwhile(*args) -> None:
        monkeypatch.setattr(metadata_copy, "copy_metadata", real)
        handle.write(b"meanwhile", 5)  # so that the file stays dirty, most of its data file punched out
        real(*args)

    monkeypatch.setattr(metadata_copy, "copy_metadata", write_meanwhile)
    eager.sync()
    data[5:14] = b"meanwhile"
    assert handle.node.dirty
    looked = looks_ahead(monkeypatch)
    eager._background.advanced(handle.node)  # as from a write just before the commit
    assert looked.acquire(timeout=20)
    assert handle.node.staging.draft is None
    write_sequentially(handle, data)
    eager.sync()
    assert stored(backing / "x.bf16.qatc") == data
    handle.close()


@pytest.mark.parametrize("size", [0, 10, 40 * CHUNK, 40 * CHUNK + 1])
def test_cutting_what_was_encoded_ahead(eager: Store, backing: Path, size: int) -> None:
    data = content(90 * CHUNK)
    with eager.create(b"x.bf16") as handle:
        write_sequentially(handle, data)
        wait_for_draft(handle, 80)
        handle.truncate(size)
        handle.truncate(60 * CHUNK)
        eager.sync()
    assert stored(backing / "x.bf16.qatc") == data[:size].ljust(60 * CHUNK, b"\0")


def test_a_length_that_the_dtype_of_a_draft_cannot_have_starts_anew(eager: Store, backing: Path) -> None:
    data = content(90 * CHUNK + 3)
    with eager.create(b"x.f32") as handle:
        write_sequentially(handle, data)
        wait_for_draft(handle, 80)
        eager.sync()
    assert stored(backing / "x.f32.qatc")[:-1] == data


def test_a_file_removed_while_it_is_encoded_ahead_leaves_nothing(eager: Store, backing: Path) -> None:
    with eager.create(b"x.bf16") as handle:
        write_sequentially(handle, content(90 * CHUNK))
        wait_for_draft(handle, 8)
        eager.unlink(b"x.bf16")
    eager.close()
    assert list((backing / ".qatqfs/staging").iterdir()) == []
