"""Drafts that come to nothing: their space comes back, what is reserved for them is counted right, nobody waits."""

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from drafting import CHUNK, OPTIONS, TUNING, fail, is_draft, name_of
from faults import FaultyIO
from helpers import noise, wait_for, wait_for_draft, write_sequentially
from mounted import errno_of
from strict_decoder import decode_container

from qatqfs.store import Handle, Store
from qatqfs.store.commit import ahead, making
from qatqfs.store.staging import space
from qatqfs.store.system.fd import Fd


@pytest.fixture
def store(backing: Path, io: FaultyIO, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store that encodes ahead after a few chunks; indirect parameters are the chunks of a hop."""
    hop = getattr(request, "param", 0) * CHUNK
    tuning = dataclasses.replace(TUNING, hop_bytes=hop or TUNING.hop_bytes)
    store = Store(backing, dataclasses.replace(OPTIONS, tuning=tuning), io=io)
    yield store
    io.heal()
    store.close(commit=False)


def drafts(backing: Path) -> dict[str, int]:
    """The containers in the making and how many bytes each of them takes."""
    return {path.name: path.stat().st_size for path in (backing / ".qatqfs/staging").glob("*.new")}


def idle(handle: Handle) -> bool:
    """Whether nobody works on a file's draft."""
    with handle.node.commit_lock:
        return True


def with_a_draft(store: Store, path: bytes = b"x.bf16", chunks: int = 90) -> tuple[Handle, bytes]:
    """A file of which nearly all is encoded already, and its content."""
    handle, data = store.create(path), noise(chunks * CHUNK)
    write_sequentially(handle, data)
    wait_for_draft(handle, chunks - 10)
    with handle.node.lock:
        handle.node.staging.sequential.stop()  # and no more is
    assert idle(handle)
    return handle, data


def missing(store: Store, handle: Handle, backing: Path) -> int:
    """What the container of the only dirty file takes at most, less what is on the disk of it."""
    entry = handle.node.staging
    size = entry.size
    worst = space.worst_case(entry.view.chunks.held_bytes(size), -(-size // entry.chunk_size))
    return max(0, worst - sum(drafts(backing).values()))


def reserved(store: Store) -> int:
    """What is reserved for containers in the making."""
    ledger = store.tree.context.staging.space
    return ledger.reserved - ledger._largest_copy - space._HEADROOM if ledger.reserved else 0


# -- space comes back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [("unlink",), ("ftruncate",), ("ftruncate", "unlink")])
def test_a_draft_that_could_not_be_removed_is_removed_later(
    store: Store, io: FaultyIO, backing: Path, broken: tuple[str, ...]
) -> None:
    with store.create(b"x") as handle:
        handle.write(noise(20 * CHUNK), 0)
        fail(io, "fsync", "rename", *broken)
        assert errno_of(store.sync) == "EIO"
        if "unlink" not in broken:
            assert drafts(backing) == {}
        elif "ftruncate" not in broken:
            assert list(drafts(backing).values()) == [0]
        io.fail(errno.EIO, "rename")  # another fault, so that the next commit comes to nothing, too
        assert errno_of(store.sync) == "EIO"
        assert drafts(backing) == {}
        io.heal()
        store.sync()
    assert decode_container((backing / "x.qatc").read_bytes()).raw == noise(20 * CHUNK)


def test_a_commit_that_fails_for_want_of_space_leaves_no_draft(store: Store, io: FaultyIO, backing: Path) -> None:
    handle, _ = with_a_draft(store)
    fail(io, "pwrite", error=errno.ENOSPC)
    assert errno_of(store.sync) == "ENOSPC"
    assert drafts(backing) == {}
    assert handle.node.staging.snapshot is None
    handle.close()


def test_a_commit_whose_draft_cannot_be_removed_is_over_all_the_same(store: Store, io: FaultyIO) -> None:
    with store.create(b"x") as handle:
        handle.write(noise(20 * CHUNK), 0)
        fail(io, "pwrite", "ftruncate", "unlink")
        assert errno_of(store.sync) == "EIO"
        assert handle.node.staging.snapshot is None  # or every later write would save what it overwrites for it
        assert handle.node.staging.draft is None


def test_a_draft_that_cannot_take_over_what_was_there_is_removed(store: Store, io: FaultyIO, backing: Path) -> None:
    with store.create(b"x") as handle:
        handle.write(noise(20 * CHUNK), 0)
        store.sync()
        handle.write(b"changed", 19 * CHUNK)
        io.fail(errno.EIO, "copy_range")
        assert errno_of(store.sync) == "EIO"
        assert drafts(backing) == {}


def test_a_draft_made_ahead_that_cannot_be_written_is_removed_later(store: Store, io: FaultyIO, backing: Path) -> None:
    fail(io, "pwrite", "ftruncate", "unlink", error=errno.ENOSPC)
    handle = store.create(b"x.bf16")
    write_sequentially(handle, noise(90 * CHUNK))
    wait_for(lambda: handle.node.staging.sequential.stopped)
    assert idle(handle)
    assert len(drafts(backing)) == 1
    io.heal()
    with store.create(b"y") as other:
        other.write(b"any commit will do", 0)
    store.sync(b"y")
    assert drafts(backing) == {}
    handle.close()


def test_a_fault_of_ours_in_encoding_ahead_leaves_no_draft_that_may_be_wrong(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(ahead.StreamEncoder):
        def encode(self, *args: object) -> list[bytes]:
            raise MemoryError

    monkeypatch.setattr(ahead, "StreamEncoder", Faulty)
    with store.create(b"x.bf16") as handle:
        data = noise(90 * CHUNK)
        write_sequentially(handle, data)
        wait_for(lambda: handle.node.staging.sequential.stopped)
        assert idle(handle)
        assert drafts(backing) == {}
        store.sync()
    assert decode_container((backing / "x.bf16.qatc").read_bytes()).raw == data


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_if_the_end_of_a_draft_cannot_be_written_all_is_encoded_anew(
    store: Store, io: FaultyIO, backing: Path, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    handle, data = with_a_draft(store)
    draft = handle.node.staging.draft
    fail(io, "pwrite", of=lambda args: args[0] is draft.fd, error=error)
    with caplog.at_level("INFO"):
        store.sync()
    assert "encoded ahead is lost" in caplog.text
    handle.close()
    assert list((backing / ".qatqfs/staging").iterdir()) == []
    assert decode_container((backing / "x.bf16.qatc").read_bytes()).raw == data


def test_an_open_file_without_a_name_keeps_no_draft(store: Store, backing: Path) -> None:
    handle, data = with_a_draft(store)
    store.unlink(b"x.bf16")
    assert drafts(backing) == {}
    assert bytes(handle.read(len(data), 0)) == data
    handle.write(b"goes on", 5)
    handle.close()
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_a_store_that_is_closed_without_a_commit_keeps_no_draft(store: Store, backing: Path) -> None:
    handle, data = with_a_draft(store)
    store.close(commit=False)
    assert drafts(backing) == {}
    handle.close()
    with Store(backing, OPTIONS) as again:
        assert bytes(again.open(b"x.bf16").read(len(data), 0)) == data


def test_a_draft_that_cannot_be_removed_does_not_keep_a_store_from_opening(backing: Path) -> None:
    Store(backing, OPTIONS).close()
    (backing / ".qatqfs/staging/0123-1.new").write_bytes(bytes(CHUNK))
    io = FaultyIO()
    io.fail(errno.EIO, "unlink")
    with Store(backing, OPTIONS, io=io) as store:
        io.heal()
        with store.create(b"x") as handle:
            handle.write(b"any commit will do", 0)
        store.sync()
        assert drafts(backing) == {}


def test_a_removed_file_whose_staging_cannot_be_removed_is_gone_and_its_staging_goes_later(
    store: Store, io: FaultyIO, backing: Path
) -> None:
    handle = store.create(b"x")
    handle.write(noise(20 * CHUNK), CHUNK)  # not from the beginning on, or it would be encoded ahead
    fail(io, "unlink", of=lambda args: name_of(args[1]).endswith((".log", ".data")))
    store.unlink(b"x")
    handle.close()
    assert store.list_names() == []
    assert store.tree.nodes == {}
    assert reserved(store) == 0
    io.heal()
    store.sync()
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_a_container_that_got_its_place_in_lost_and_found_is_not_emptied_when_the_rest_fails(
    store: Store, io: FaultyIO, backing: Path
) -> None:
    data = noise(20 * CHUNK)
    with store.create(b"x") as handle:
        handle.write(data, 0)
        (backing / "x.qatc").unlink()
        io.fail(errno.EIO, "fsync_directory")
        assert errno_of(store.sync) == "EIO"
        (lost,) = (backing / ".qatqfs/lost+found").iterdir()
        assert decode_container(lost.read_bytes()).raw == data


def test_a_file_that_loses_its_last_name_while_it_is_copied_over_stays_readable(store: Store, io: FaultyIO) -> None:
    data = noise(20 * CHUNK)
    handle = store.create(b"x")
    handle.write(data, 0)
    store.link(b"x", b"y")

    def unlink_both(number: int, name: str, args: tuple) -> None:
        if name == "rename" and name_of(args[3]).endswith(".redo"):
            io.heal()
            store.unlink(b"x")
            store.unlink(b"y")

    io.before = unlink_both
    store.sync()
    assert store.list_names() == []
    assert bytes(handle.read(len(data), 0)) == data
    handle.close()


# -- what is reserved ----------------------------------------------------------------------------------


def test_a_file_reserves_what_is_missing_of_its_container_while_it_is_encoded_ahead(
    store: Store, backing: Path
) -> None:
    handle, data = with_a_draft(store)
    assert reserved(store) == missing(store, handle, backing) < len(data) // 4
    handle.close()


@pytest.mark.parametrize("step", ["pwrite", "fsync", "rename"])
def test_after_a_commit_that_failed_all_of_the_container_is_reserved(
    store: Store, io: FaultyIO, backing: Path, step: str
) -> None:
    handle, _ = with_a_draft(store)
    handle.write(b"counts what is there", 89 * CHUNK)
    handle.fsync()
    io.fail(errno.EIO, step, when=lambda args: is_draft(args))
    assert errno_of(store.sync) == "EIO"
    assert drafts(backing) == {}
    assert reserved(store) == missing(store, handle, backing) > 89 * CHUNK
    handle.close()


def test_after_encoding_ahead_has_failed_all_of_the_container_is_reserved(
    store: Store, io: FaultyIO, backing: Path
) -> None:
    handle = store.create(b"x.bf16")
    data = noise(60 * CHUNK)
    write_sequentially(handle, data)
    wait_for(lambda: handle.node.staging.draft is not None and handle.node.staging.draft.count > 20)
    fail(io, "pwrite", error=errno.ENOSPC)
    for offset in range(60 * CHUNK, 120 * CHUNK, CHUNK):
        handle.write(noise(CHUNK, offset), offset)
    wait_for(lambda: handle.node.staging.sequential.stopped)
    assert idle(handle)
    assert drafts(backing) == {}
    assert reserved(store) == missing(store, handle, backing) > 120 * CHUNK
    handle.close()


@pytest.mark.parametrize("change", ["first", "last", "between", "dtype"])
def test_a_commit_that_begins_its_container_anew_reserves_what_is_missing_of_it(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    handle, _ = with_a_draft(store, b"x.f32")
    if change in ("first", "last", "between"):
        chunk = {"first": 0, "last": 79, "between": 40}[change]
        if change == "last":
            for stale in range(60, 90):
                handle.write(b"stale", stale * CHUNK)
        else:
            handle.write(b"stale", chunk * CHUNK)
    else:
        store.setxattr(b"x.f32", b"user.qatqfs.dtype", b"bf16")
    found: list[tuple[int, int]] = []
    real = making.fill

    def look(draft, *args, **settings) -> None:
        entry = handle.node.staging
        worst = space.worst_case(entry.size, -(-entry.size // CHUNK))
        found.append((reserved(store), worst - draft.size))
        real(draft, *args, **settings)
        found.append((reserved(store), worst - draft.size))

    monkeypatch.setattr(making, "fill", look)
    store.sync()
    assert len(found) == 2
    assert all(is_reserved == is_missing for is_reserved, is_missing in found), found
    handle.close()


@pytest.mark.parametrize("size", [0, 30 * CHUNK + 5, 95 * CHUNK])
def test_a_file_that_is_cut_reserves_no_less_than_what_is_missing(store: Store, backing: Path, size: int) -> None:
    handle, _ = with_a_draft(store)
    handle.truncate(size)
    assert reserved(store) == missing(store, handle, backing)
    handle.write(noise(10 * CHUNK), size)
    assert reserved(store) == missing(store, handle, backing)
    store.sync()
    handle.write(noise(10 * CHUNK), size)
    assert reserved(store) >= missing(store, handle, backing)
    handle.close()


def test_what_one_file_has_on_disk_beyond_its_need_is_no_room_for_others(tmp_path: Path) -> None:
    ledger = space.SpaceLedger(Fd(os.open(tmp_path, os.O_RDONLY)))
    ledger.reserve(b"a", 1000)
    ledger.reserve(b"b", 1000)
    both = ledger.reserved
    ledger.written(b"b", 5000)
    assert ledger.reserved == both - 1000
    ledger.lower(b"b", 10)
    assert errno_of(ledger.reserve, b"b", 1 << 60) == "ENOSPC"
    assert ledger.reserved == both - 1000
    ledger.written(b"b", 0)
    assert ledger.reserved == both - 990
    ledger.release(b"b")
    ledger.written(b"b", 77)  # too late, and for nobody
    assert ledger.reserved == both - 1000
