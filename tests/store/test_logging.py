"""What the log says about commits: which file, what became of it, and how large that is."""

import errno
import logging
import os
import re
from pathlib import Path

import pytest
from faults import FaultyIO
from helpers import noise, write

from qatqfs.store import Store, StoreOptions

CHUNK = 4096


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    """The lines that were logged so far by loggers of the store."""
    caplog.set_level(logging.DEBUG, "qatqfs")
    return lambda: [record.getMessage() for record in caplog.records]


def test_the_steps_of_a_commit_are_logged_with_their_sizes(store: Store, lines) -> None:
    data = noise(3 * CHUNK)
    write(store, b"x", data)
    store.sync()
    size = os.stat(f"{store.tree.root.proc_path}/x.qatc").st_size
    begins, made, renamed, done = [line for line in lines() if line.startswith("x: ") and "ahead" not in line]
    assert begins == f"x: commit begins: {len(data)} bytes, {len(data)} in staging"
    pattern = rf"x: container made in \d+\.\d+ s: \w+, 3 chunks of {CHUNK} bytes: 3 encoded, 0 taken as they were"
    assert re.fullmatch(rf"{pattern}; {size} bytes", made)
    assert renamed == "x: renamed into place"
    assert re.fullmatch(r"x: commit done in \d+\.\d+ s", done)


def test_chunks_that_a_commit_takes_over_are_told_from_those_that_it_encodes(store: Store, lines) -> None:
    write(store, b"x", noise(10 * CHUNK))
    store.sync()
    write(store, b"x", b"changed", CHUNK)
    store.sync()
    assert ": 1 encoded, 9 taken as they were; " in [line for line in lines() if "container made" in line][-1]


def test_a_failed_commit_names_the_file_and_the_reason(backing: Path, lines) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0), io=io) as store:
        write(store, b"two\nlines", b"content")
        io.fail(errno.ENOSPC, "rename")
        with pytest.raises(OSError, match="No space left"):
            store.sync()
        io.heal()
    failed = "two\\nlines: could not be committed and stays in staging: No space left on device"
    assert failed in [line.replace(".qatc: ", "") for line in lines()]


def test_a_failed_commit_that_a_close_waits_for_is_logged_too(backing: Path, lines) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(idle_seconds=3600.0, commit_on_close=True), io=io) as store:
        handle = store.create(b"x", 0o644, None, os.O_RDWR)
        handle.write(b"content", 0)
        io.fail(errno.ENOSPC, "rename")
        with pytest.raises(OSError, match="No space left"):
            store.flush(handle)
        assert "x: could not be committed and stays in staging: No space left on device" in lines()
        assert store.stats()["commit_failures"] == 1
        io.heal()
        handle.close()
