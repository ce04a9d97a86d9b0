"""Containers without an index that have very many chunks hold up no other file, and are walked once."""

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mounted import errno_of

from qatqfs.codec import CONTAINER_HEADER_SIZE, ContainerHeader, DType, WalkedLayout, encode_payload, fnv1a64, reader
from qatqfs.store import Store
from qatqfs.store.reading import container as containerfile

CHUNKS = 500
DATA = b"\x3f\x80" * CHUNKS


def tiny_chunks(total: int = CHUNKS) -> bytes:
    """A container of chunks of one value each, without an index, whose header says so many values."""
    payload = encode_payload(b"\x3f\x80", DType.BF16)
    body = (len(payload).to_bytes(4, "big") + payload) * CHUNKS
    return ContainerHeader(total, CHUNKS, fnv1a64(body)).pack() + body


class Walking:
    """Holds walks up until it is told to let them go, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.count = 0
        walking = self

        class Held(WalkedLayout):
            def __init__(self, *arguments) -> None:
                super().__init__(*arguments)
                if len(self._starts) > 100:
                    walking.count += 1
                    walking.begun.set()
                    assert walking.go_on.wait(30)

        monkeypatch.setattr(reader, "WalkedLayout", Held)


@pytest.fixture
def walking(monkeypatch: pytest.MonkeyPatch) -> Walking:
    return Walking(monkeypatch)


def listed(store: Store) -> int:
    ((_, attributes),) = store.tree.list_attributes(b"", [b"tiny"])
    return attributes.size


def read_all(store: Store) -> bytes:
    with store.open(b"tiny") as handle:
        return bytes(handle.read(handle.attributes().size, 0))


NEED_A_WALK: dict[str, Callable[[Store], object]] = {
    "read": read_all,
    "write": lambda store: write(store, 3, b"x"),
    "truncate": lambda store: store.truncate(b"tiny", 7),
}


def write(store: Store, offset: int, data: bytes) -> None:
    with store.open(b"tiny", os.O_RDWR) as handle:
        handle.write(data, offset)


def use_other_files(store: Store) -> None:
    with store.create(b"other") as handle:
        handle.write(b"abc", 0)
        assert store.stat(b"other").size == 3
    store.sync(b"other")
    store.chmod(b"tiny", 0o600)
    store.rename(b"other", b"another")
    assert b"another" in store.list_names()
    store.unlink(b"another")


@pytest.mark.parametrize("needs", NEED_A_WALK.values(), ids=NEED_A_WALK)
def test_other_files_can_be_used_while_one_is_walked(
    store: Store, backing: Path, walking: Walking, needs: Callable[[Store], object]
) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())
    with ThreadPoolExecutor(2) as threads:
        try:
            walk = threads.submit(needs, store)
            assert walking.begun.wait(20)
            threads.submit(use_other_files, store).result(20)
            assert not walk.done()
        finally:
            walking.go_on.set()
        walk.result(20)


def test_names_and_sizes_take_no_walk(store: Store, backing: Path, walking: Walking) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())
    assert store.stat(b"tiny").size == listed(store) == len(DATA)
    assert store.link(b"tiny", b"again").size == len(DATA)
    store.chmod(b"tiny", 0o600)
    store.utimens(b"tiny", 1, 2)
    store.rename(b"tiny", b"renamed")
    assert store.stat(b"renamed").size == len(DATA)
    store.unlink(b"renamed")
    assert walking.count == 0


def test_what_a_walk_has_found_is_remembered_whatever_happens_to_names_and_modes(
    store: Store, backing: Path, walking: Walking
) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())
    walking.go_on.set()
    assert read_all(store) == DATA
    store.chmod(b"tiny", 0o600)
    store.link(b"tiny", b"linked")
    store.rename(b"linked", b"renamed")
    assert read_all(store) == DATA
    assert walking.count == 1


def test_who_comes_while_a_file_is_walked_waits_instead_of_walking_too(
    store: Store, backing: Path, walking: Walking
) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(read_all, store) for _ in range(3)]
        assert walking.begun.wait(20)
        walking.go_on.set()
        assert [each.result(20) for each in found] == [DATA] * 3
    assert walking.count == 1


@pytest.mark.parametrize("total", [CHUNKS - 1, CHUNKS + 1])
def test_a_container_whose_walk_finds_its_header_wrong_cannot_be_read(store: Store, backing: Path, total: int) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks(total))
    for _ in range(2):
        assert store.stat(b"tiny").size == 2 * total
        assert errno_of(store.open, b"tiny") == "EIO"
    assert store.stats()["corrupt_files"] == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_size_that_cannot_be_found_for_want_of_something_is_no_guess(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(containerfile, "pread_exact", fail)
    assert errno_of(store.stat, b"tiny") == errno.errorcode[number]
    assert errno_of(listed, store) == errno.errorcode[number]
    monkeypatch.undo()
    assert store.stat(b"tiny").size == len(DATA)


def test_a_size_that_a_passing_error_has_hidden_shows_the_next_time(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "passes")

    monkeypatch.setattr(containerfile, "pread_exact", fail)
    store.stat(b"tiny")
    monkeypatch.undo()
    assert store.stat(b"tiny").size == len(DATA)


def test_content_of_tiny_chunks_is_staged_and_committed_in_chunks_of_the_store(store: Store, backing: Path) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())
    with store.open(b"tiny", os.O_RDWR) as handle:
        handle.write(b"xyz", 500)
        assert handle.node.staging is not None
        assert handle.node.staging.chunk_size == store.options.chunk_size
    store.sync()
    wanted = DATA[:500] + b"xyz" + DATA[503:]
    assert read_all(store) == wanted
    assert ContainerHeader.parse((backing / "tiny.qatc").read_bytes()).chunk_count == 1


def test_a_range_of_many_tiny_chunks_is_read_past_the_cache(store: Store, backing: Path) -> None:
    (backing / "tiny.qatc").write_bytes(tiny_chunks())
    with store.open(b"tiny") as handle:
        for offset, size in [(0, len(DATA)), (1, 701), (3, len(DATA) - 5), (400, 2000)]:
            assert bytes(handle.read(size, offset)) == DATA[offset : offset + size]
    assert store.stats()["cache_bytes"] < 100_000


def test_one_bad_chunk_among_many_tiny_ones_fails_what_touches_it_alone(store: Store, backing: Path) -> None:
    stored = bytearray(tiny_chunks())
    one = (len(stored) - CONTAINER_HEADER_SIZE) // CHUNKS
    stored[CONTAINER_HEADER_SIZE + 201 * one - 1] ^= 1
    (backing / "tiny.qatc").write_bytes(stored)
    with store.open(b"tiny") as handle:
        assert errno_of(handle.read, len(DATA), 0) == "EIO"
        assert bytes(handle.read(400, 0)) == DATA[:400]
        assert bytes(handle.read(len(DATA), 402)) == DATA[402:]
