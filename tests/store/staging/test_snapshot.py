"""The content of one moment, whatever is written while it is read."""

from collections.abc import Iterator

import pytest
from helpers import content

from qatqfs.store import Handle, Store

CHUNK = 4096
DATA = content(3 * CHUNK + 100)


@pytest.fixture
def handle(store: Store) -> Iterator[Handle]:
    """A file of three chunks and a part of one, all in staging."""
    with store.create(b"x") as handle:
        handle.write(DATA, 0)
        yield handle


@pytest.mark.parametrize("at", [0, CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 99])
def test_what_is_written_to_twice_is_as_it_was_before_the_first_time(handle: Handle, at: int) -> None:
    snapshot = handle.node.staging.freeze()
    handle.write(b"once", at)
    handle.write(b"twice", at)
    assert bytes(snapshot.read(0, len(DATA))) == DATA


def test_what_was_read_already_is_not_kept(handle: Handle) -> None:
    entry = handle.node.staging
    snapshot = entry.freeze()
    snapshot.read(0, CHUNK)
    assert not snapshot.concerns(0, 1) and snapshot.concerns(1, 2)
    snapshot.read(CHUNK, len(DATA))
    assert not snapshot.concerns(0, 4)


def test_what_is_to_be_read_again_is_kept(handle: Handle) -> None:
    snapshot = handle.node.staging.freeze()
    snapshot.read(0, len(DATA), final=False)
    handle.write(b"new", 0)
    assert bytes(snapshot.read(0, len(DATA))) == DATA


def test_a_chunk_of_which_a_part_was_read_is_kept(handle: Handle) -> None:
    snapshot = handle.node.staging.freeze()
    snapshot.read(0, CHUNK + 10)
    handle.write(b"new", CHUNK)
    assert bytes(snapshot.read(CHUNK, 2 * CHUNK)) == DATA[CHUNK : 2 * CHUNK]


def test_a_file_that_grows_has_the_same_snapshot(handle: Handle) -> None:
    snapshot = handle.node.staging.freeze()
    handle.write(b"more", len(DATA))
    assert snapshot.size == len(DATA) and not snapshot.cancelled
    assert bytes(snapshot.read(0, len(DATA))) == DATA


def test_a_file_that_is_cut_cancels_the_snapshot(handle: Handle) -> None:
    snapshot = handle.node.staging.freeze()
    handle.truncate(len(DATA))
    assert not snapshot.cancelled
    handle.truncate(len(DATA) - 1)
    assert snapshot.cancelled
