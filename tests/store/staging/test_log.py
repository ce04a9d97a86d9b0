"""What the log of an entry in use says, when a sync that nobody waits for meets other changes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ANOTHER_BOOT

from qatqfs.store import Store
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.records import replay


@pytest.fixture
def entry(store: Store) -> Iterator[StagingEntry]:
    """The entry of a new file of four bytes that nobody has synced."""
    with store.create(b"x") as handle:
        handle.write(b"data", 0)
        yield handle.node.staging


def durable_size(entry: StagingEntry) -> int | None:
    """How much of the entry a store in another boot would be sure of."""
    log = Path(entry.area.directory.proc_path, f"{entry.entry_id.decode()}.log")
    return replay(log.read_bytes(), ANOTHER_BOOT).synced_size


def test_what_was_there_at_a_mark_is_said_to_be_durable(entry: StagingEntry) -> None:
    mark = entry.mark()
    assert entry.log.sync_up_to(mark)
    assert durable_size(entry) == 4


def test_a_mark_makes_every_commit_from_then_on_a_durable_one(entry: StagingEntry) -> None:
    assert not entry.log.synced
    entry.mark()
    assert entry.log.synced


def test_a_mark_of_before_a_newer_sync_says_nothing(entry: StagingEntry) -> None:
    mark = entry.mark()
    entry.truncate(2)
    entry.sync()
    assert not entry.log.sync_up_to(mark)
    assert durable_size(entry) == 2


def test_a_mark_of_before_the_log_was_written_anew_says_nothing(entry: StagingEntry) -> None:
    for size in range(20):
        entry.truncate(size)
        entry.log.low(size, 0)  # records, so that the new log has fewer
    mark = entry.mark()
    entry.truncate(2)
    entry.log.write_anew(entry.view.chunks, None, entry.data)
    assert not entry.log.sync_up_to(mark)
    assert durable_size(entry) == 2
