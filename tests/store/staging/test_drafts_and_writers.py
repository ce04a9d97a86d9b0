"""Drafts and writers: neither waits for the other longer than needed."""

import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drafting import CHUNK, OPTIONS, TUNING, fail, name_of
from faults import FaultyIO
from helpers import noise, wait_for, write_sequentially
from mounted import errno_of
from strict_decoder import decode_container

from qatqfs.store import Store
from qatqfs.store.commit import ahead


@pytest.fixture
def store(backing: Path, io: FaultyIO, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store that encodes ahead after a few chunks; indirect parameters are the chunks of a hop."""
    hop = getattr(request, "param", 0) * CHUNK
    tuning = dataclasses.replace(TUNING, hop_bytes=hop or TUNING.hop_bytes)
    store = Store(backing, dataclasses.replace(OPTIONS, tuning=tuning), io=io)
    yield store
    io.heal()
    store.close(commit=False)


# -- who waits for whom --------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [2], indirect=True)
def test_a_commit_does_not_wait_for_a_writer_that_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    class Slow(ahead.StreamEncoder):
        def encode(self, chunks: list, row_widths: list) -> list[bytes]:
            encoded.extend(chunks)
            time.sleep(0.005 * len(chunks))
            return super().encode(chunks, row_widths)

    monkeypatch.setattr(ahead, "StreamEncoder", Slow)
    handle = store.create(b"x.bf16")
    data = noise(2000 * CHUNK)
    write_sequentially(handle, data[: 1000 * CHUNK])
    wait_for(lambda: encoded)
    stop = threading.Event()

    def go_on() -> None:
        for offset in range(1000 * CHUNK, 2000 * CHUNK, CHUNK):
            if stop.wait(0.002):
                return
            handle.write(data[offset : offset + CHUNK], offset)

    writer = threading.Thread(target=go_on)
    writer.start()
    before = len(encoded)
    try:
        store.sync()
        assert len(encoded) - before < 32
    finally:
        stop.set()
        writer.join()
    handle.close()


@pytest.mark.parametrize("store", [1], indirect=True)
def test_files_that_are_written_at_once_are_encoded_ahead_in_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(ahead.StreamEncoder):
        def encode(self, chunks: list, row_widths: list) -> list[bytes]:
            time.sleep(0.002 * len(chunks))
            return super().encode(chunks, row_widths)

    monkeypatch.setattr(ahead, "StreamEncoder", Slow)
    handles = [store.create(name) for name in (b"x.bf16", b"y.bf16")]
    for handle in handles:
        write_sequentially(handle, noise(1000 * CHUNK))

    def counts() -> list[int]:
        drafts_of = [handle.node.staging.draft for handle in handles]
        return [draft.count if draft is not None else 0 for draft in drafts_of]

    wait_for(lambda: min(counts()) > 0)
    assert max(counts()) < 900
    for handle in handles:
        handle.close()


def test_a_file_whose_staging_cannot_be_removed_keeps_no_other_from_being_committed(
    store: Store, io: FaultyIO, backing: Path
) -> None:
    first, second = store.create(b"x"), store.create(b"y")
    first.write(noise(2 * CHUNK), 0)
    second.write(noise(CHUNK), 0)
    kept = first.node.staging.entry_id.decode()
    fail(io, "unlink", of=lambda args: kept in name_of(args[1]))
    assert errno_of(store.sync) == "EIO"
    assert not second.node.dirty
    first.close()
    first = store.open(b"x", os.O_RDWR)
    first.write(b"again", 0)
    assert errno_of(store.sync, b"x") == "EIO"
    assert first.node.dirty  # it waits until what may be mistaken for it is gone
    io.heal()
    store.sync()
    assert list((backing / ".qatqfs/staging").iterdir()) == []
    assert decode_container((backing / "x.qatc").read_bytes()).raw == b"again" + noise(2 * CHUNK)[5:]
    first.close()
    second.close()
