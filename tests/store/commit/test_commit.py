"""Commits: what is copied, what is encoded, and that no program waits for them."""

import errno
import os
from pathlib import Path

import pytest
from faults import FaultyIO
from helpers import (
    content,
    noise,
    read,
    stored,
    wait_for,
    wait_until_committed,
    write,
)
from mounted import errno_of
from strict_decoder import decode_container

from qatqfs.codec import Container, DType, Level, encode_container
from qatqfs.store import Store, StoreOptions
from qatqfs.store.commit import metadata_copy
from qatqfs.store.encoding import plan as building
from qatqfs.store.staging.view import data_ranges
from qatqfs.store.tuning import Tuning

CHUNK = 4096
KIB, MIB = 1 << 10, 1 << 20


def payloads(path: Path) -> list[bytes]:
    data = path.read_bytes()
    container = Container.open(lambda offset, size: data[offset : offset + size], len(data))
    return [container.raw_chunk(i) for i in range(container.chunk_count)]


# -- what is staged ------------------------------------------------------------------------------------


def test_only_the_chunks_that_are_written_in_part_are_copied_up(store: Store) -> None:
    write(store, b"x", content(20 * CHUNK))
    store.sync()
    with store.open(b"x", os.O_RDWR) as handle:
        handle.write(b"p", 3 * CHUNK + 5)
        handle.write(content(2 * CHUNK, 2), 7 * CHUNK)
        entry = handle.node.staging
        assert entry is not None
        assert data_ranges(entry.data, entry.size) == [(3 * CHUNK, 4 * CHUNK), (7 * CHUNK, 9 * CHUNK)]
        assert store.stats()["chunks_decoded"] == 1


def test_a_whole_chunk_may_be_overwritten_where_the_old_one_is_damaged(store: Store, backing: Path) -> None:
    data = content(5 * CHUNK)
    write(store, b"x", data)
    store.sync()
    container = bytearray((backing / "x.qatc").read_bytes())
    middle = container.find(payloads(backing / "x.qatc")[2]) + 60
    container[middle] ^= 1
    (backing / "x.qatc").write_bytes(container)
    with store.open(b"x", os.O_RDWR) as handle:
        assert errno_of(handle.read, CHUNK, 2 * CHUNK) == "EIO"
        assert errno_of(handle.write, b"part", 2 * CHUNK) == "EIO"
        handle.write(b"other chunk", 0)
        assert errno_of(handle.read, CHUNK, 2 * CHUNK) == "EIO"
        handle.write(content(CHUNK, 3), 2 * CHUNK)
        assert bytes(handle.read(CHUNK, 2 * CHUNK)) == content(CHUNK, 3)
    store.sync()
    expected = b"other chunk" + data[11 : 2 * CHUNK] + content(CHUNK, 3) + data[3 * CHUNK :]
    assert stored(backing / "x.qatc") == expected


def test_a_damaged_chunk_that_no_write_changes_stays_as_it_is_and_is_not_served(store: Store, backing: Path) -> None:
    data = content(5 * CHUNK)
    write(store, b"x", data)
    store.sync()
    container = bytearray((backing / "x.qatc").read_bytes())
    damaged = payloads(backing / "x.qatc")[2]
    container[container.find(damaged) + 60] ^= 1
    (backing / "x.qatc").write_bytes(container)
    write(store, b"x", b"new", 0)
    store.sync()
    with store.open(b"x") as handle:
        assert bytes(handle.read(2 * CHUNK, 0)) == b"new" + data[3 : 2 * CHUNK]
        assert errno_of(handle.read, 10, 2 * CHUNK) == "EIO"
        assert bytes(handle.read(2 * CHUNK, 3 * CHUNK)) == data[3 * CHUNK :]


@pytest.mark.parametrize("per_chunk", [1, 7, 1000, 5000])
def test_containers_of_others_are_changed_whatever_their_chunk_size(
    store: Store, backing: Path, per_chunk: int
) -> None:
    data = content(10_001 * 2)
    (backing / "x.qatc").write_bytes(encode_container(data, DType.BF16, values_per_chunk=per_chunk))
    expected = bytearray(data)
    with store.open(b"x", os.O_RDWR) as handle:
        for offset, size in [(3, 1), (4000, 9000), (len(data) - 1, 10)]:
            patch = content(size, offset)
            handle.write(patch, offset)
            expected[offset : offset + size] = patch
        assert bytes(handle.read(len(expected), 0)) == expected
    store.sync()
    assert stored(backing / "x.qatc")[: len(expected)] == expected


def test_a_container_without_an_index_and_with_unequal_chunks_is_changed(store: Store, backing: Path) -> None:
    one = encode_container(content(1000), DType.F32, values_per_chunk=1000)
    other = encode_container(content(600, 2), DType.F32, values_per_chunk=1000)
    third = encode_container(content(1400, 3), DType.F32, values_per_chunk=1000)
    (backing / "x.qatc").write_bytes(join_containers(one, other, third))
    expected = bytearray(content(1000) + content(600, 2) + content(1400, 3))
    write(store, b"x", b"across", 998)
    expected[998:1004] = b"across"
    assert read(store, b"x") == expected
    store.sync()
    assert stored(backing / "x.qatc") == expected


def join_containers(*containers: bytes) -> bytes:
    """One container, without an index, of the chunks of several that have one chunk each."""
    body = b"".join(container[32:] for container in containers)
    total = sum(int.from_bytes(container[8:16], "big") for container in containers)
    checksum = 0xCBF29CE484222325
    for byte in body:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    head = containers[0][:8] + total.to_bytes(8, "big") + len(containers).to_bytes(4, "big") + bytes(4)
    return head + checksum.to_bytes(8, "big") + body


# -- what is committed ---------------------------------------------------------------------------------


def test_unmodified_chunks_are_copied_and_not_encoded_again(store: Store, backing: Path) -> None:
    write(store, b"x", content(20 * CHUNK + 10))
    store.sync()
    before = payloads(backing / "x.qatc")
    write(store, b"x", b"p", 3 * CHUNK + 5)
    store.sync()
    after = payloads(backing / "x.qatc")
    assert [i for i in range(21) if before[i] != after[i]] == [3]


def test_a_file_keeps_its_chunk_size_and_dtype_when_a_store_has_others(open_store, backing: Path) -> None:
    first = open_store()
    write(first, b"x", content(10 * CHUNK))
    first.close()
    before = decode_container((backing / "x.qatc").read_bytes())
    second = open_store(chunk_size=8 * CHUNK, dtype_rules=())
    write(second, b"x", b"p", 5 * CHUNK)
    second.sync()
    after = decode_container((backing / "x.qatc").read_bytes())
    assert (after.chunk_values, after.dtype) == (before.chunk_values, before.dtype)


def test_a_dtype_asked_for_later_is_taken_at_the_next_commit(store: Store, backing: Path) -> None:
    write(store, b"x.bf16", content(10 * CHUNK))
    store.sync()
    store.setxattr(b"x.bf16", b"user.qatqfs.dtype", b"f32")
    write(store, b"x.bf16", b"p", 5)
    store.sync()
    assert decode_container((backing / "x.bf16.qatc").read_bytes()).dtype == "f32"


@pytest.mark.parametrize("size", [1, 2, 3, CHUNK + 1, 10 * CHUNK + 2, 10 * CHUNK + 3])
def test_f32_values_of_any_length_are_padded_with_zeros(store: Store, backing: Path, size: int) -> None:
    data = content(size)
    write(store, b"x.f32", data)
    store.sync()
    container = (backing / "x.f32.qatc").read_bytes()
    assert Container.from_buffer(container).length == size
    found = decode_container(container)  # by another decoder, which gives the pad bytes, too
    assert (found.dtype, found.raw) == ("f32", data + bytes(-size % 4))
    with store.open(b"x.f32") as handle:
        assert handle.read(size + 9, 0) == data


def test_a_padded_container_is_appended_to_cut_and_grown_in_its_dtype(store: Store, backing: Path) -> None:
    data = content(10 * CHUNK)
    write(store, b"x.f32", data)
    store.sync()
    write(store, b"x.f32", b"odd", len(data))
    store.sync()
    write(store, b"x.f32", b"e", len(data) + 3)
    store.sync()
    assert decode_container((backing / "x.f32.qatc").read_bytes()).raw == data + b"odde"
    store.truncate(b"x.f32", CHUNK + 2)
    store.sync()
    store.truncate(b"x.f32", CHUNK + 5)
    store.sync()
    found = decode_container((backing / "x.f32.qatc").read_bytes())
    assert (found.dtype, found.raw) == ("f32", data[: CHUNK + 2] + bytes(6))


def test_an_append_lets_the_kernel_copy_what_was_there(backing: Path) -> None:
    io = FaultyIO()
    options = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1)
    with Store(backing, options, io=io) as store:
        write(store, b"x", content(100 * CHUNK))
        store.sync()
        before = len(io.steps)
        write(store, b"x", content(CHUNK, 2), 100 * CHUNK)
        store.sync()
        assert io.steps[before:].count("copy_range") == 1
        assert io.steps[before:].count("pwrite") < 25
    assert stored(backing / "x.qatc") == content(100 * CHUNK) + content(CHUNK, 2)


@pytest.mark.parametrize("size", [3 * CHUNK, 3 * CHUNK + 1, 5 * CHUNK - 1, CHUNK])
def test_cutting_at_and_beside_the_edge_of_a_chunk(store: Store, backing: Path, size: int) -> None:
    data = content(6 * CHUNK)
    write(store, b"x.f32", data)
    store.sync()
    store.truncate(b"x.f32", size)
    store.sync()
    assert stored(backing / "x.f32.qatc")[:size] == data[:size]
    store.truncate(b"x.f32", 6 * CHUNK)
    store.sync()
    assert stored(backing / "x.f32.qatc") == data[:size].ljust(6 * CHUNK, b"\0")


def test_holes_are_encoded_once_for_all(store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []

    class Counting(building.StreamEncoder):
        def encode(self, chunks, row_widths):
            encoded.extend(chunks)
            return super().encode(chunks, row_widths)

        def encode_one(self, chunk, *args, **kwargs):
            encoded.append(chunk)
            return super().encode_one(chunk, *args, **kwargs)

    monkeypatch.setattr(building, "StreamEncoder", Counting)
    with store.create(b"x.f32") as handle:
        handle.write(b"end!", 200 * CHUNK)
    store.sync()
    assert len(encoded) <= 4
    assert stored(backing / "x.f32.qatc") == bytes(200 * CHUNK) + b"end!"


def test_a_commit_counts_what_it_encodes_and_not_what_it_copies(store: Store) -> None:
    write(store, b"x", content(20 * CHUNK))
    store.sync()
    assert store.stats()["chunks_encoded"] == 20
    write(store, b"x", b"p", 3 * CHUNK + 5)
    store.sync()
    assert store.stats()["chunks_encoded"] == 21


def test_an_fsync_writes_a_record_and_waits_for_the_data_and_that_is_all(backing: Path) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1), io=io) as store:
        write(store, b"x", content(100 * CHUNK))
        store.sync()
        with store.open(b"x", os.O_RDWR) as handle:
            handle.write(b"p", 5)
            handle.fsync()
            handle.write(b"p", 6)
            before = len(io.steps)
            handle.fsync()
            assert io.steps[before:] == ["fdatasync", "pwrite", "fdatasync"]


# -- faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["open", "pwrite", "fsync", "rename", "fsync_directory", "chmod", "set_times"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_commit_that_fails_at_any_step_keeps_everything_and_can_be_repeated(
    backing: Path, step: str, error: int
) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1), io=io) as store:
        data = bytearray(content(5 * CHUNK))
        write(store, b"x", bytes(data))
        store.sync()
        handle = store.open(b"x", os.O_RDWR)
        handle.write(b"changed", CHUNK)
        data[CHUNK : CHUNK + 7] = b"changed"
        handle.fsync()
        io.fail(error, step)
        assert errno_of(store.sync) == errno.errorcode[error]
        io.heal()
        assert bytes(handle.read(len(data), 0)) == data
        handle.write(b"more", 0)
        data[:4] = b"more"
        store.sync()
        assert bytes(handle.read(len(data), 0)) == data
        handle.close()
    assert stored(backing / "x.qatc") == data
    assert list((backing / ".qatqfs/staging").iterdir()) == []


@pytest.mark.parametrize("whole", [1, 2, 3])
def test_a_short_write_is_answered_short_and_what_it_counts_is_there(backing: Path, whole: int) -> None:
    fits = whole * CHUNK + 100
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1), io=io) as store:
        data = content(8 * CHUNK)
        write(store, b"x", data)
        store.sync()
        handle = store.open(b"x", os.O_RDWR)
        real = io.perform
        short = iter([fits])

        def perform(name: str, args: tuple):
            if name == "pwrite" and len(args[1]) == 4 * CHUNK:
                return real(name, (args[0], args[1][: next(short)], args[2]))
            if name == "pwrite" and len(args[1]) == 4 * CHUNK - fits:
                raise OSError(errno.ENOSPC, "full")
            return real(name, args)

        io.perform = perform
        new = content(4 * CHUNK, 2)
        done = handle.write(new, CHUNK)
        io.perform = real
        assert done == whole * CHUNK  # the rest of a chunk that was written in part would be lost
        expected = data[:CHUNK] + new[:done] + data[CHUNK + done :]
        assert bytes(handle.read(len(data), 0)) == expected
        store.sync()
        assert read(store, b"x") == expected
        handle.close()


def test_a_failed_commit_in_the_background_is_tried_again(backing: Path) -> None:
    io = FaultyIO()
    options = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, tuning=Tuning(first_retry_s=0.05))
    with Store(backing, options, io=io) as store:
        io.fail(errno.EIO, "rename")
        write(store, b"x", content(3 * CHUNK))
        wait_for(lambda: store.stats().get("commit_failures", 0) >= 2)
        assert read(store, b"x") == content(3 * CHUNK)
        io.heal()
        wait_until_committed(store)
    assert stored(backing / "x.qatc") == content(3 * CHUNK)


# -- when ----------------------------------------------------------------------------------------------


def test_appending_a_little_to_a_large_file_again_and_again_does_not_rewrite_it_each_time(backing: Path) -> None:
    io = FaultyIO()
    size = 24 * MIB
    old = noise(size)
    with Store(backing, StoreOptions(level=Level.FAST), io=io) as store:
        write(store, b"x.bf16", old)
        store.sync()
        before = len(io.steps)
        written = []
        io.after = lambda number, name, args: written.append(_bytes_of(name, args))
        appended = b""
        for i in range(200):
            piece = bytes([i]) * 4 * KIB
            write(store, b"x.bf16", piece, size + len(appended))
            appended += piece
        store.sync()
        assert io.steps[before:].count("rename") <= 2
        assert sum(written) < 3 * size
        assert read(store, b"x.bf16") == old + appended


def _bytes_of(name: str, args: tuple) -> int:
    return len(args[1]) if name == "pwrite" else args[-1] if name == "copy_range" else 0


def test_metadata_changed_during_a_commit_is_kept(open_store, backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    write(store, b"x", content(3 * CHUNK))
    store.sync()
    handle = store.open(b"x", os.O_RDWR)
    handle.write(b"changed", 0)
    store.setxattr(b"x", b"user.gone", b"1")
    real = metadata_copy.copy_metadata

    def meanwhile(*args) -> None:
        monkeypatch.setattr(metadata_copy, "copy_metadata", real)
        real(*args)
        store.chmod(b"x", 0o604)
        store.setxattr(b"x", b"user.late", b"1")
        store.removexattr(b"x", b"user.gone")
        store.utimens(b"x", None, 5_000_000_007)

    monkeypatch.setattr(metadata_copy, "copy_metadata", meanwhile)
    store.sync()
    assert (backing / "x.qatc").stat().st_mode & 0o777 == 0o604
    assert store.getxattr(b"x", b"user.late") == b"1"
    assert errno_of(store.getxattr, b"x", b"user.gone") == "ENODATA"
    assert store.stat(b"x").mtime_ns == 5_000_000_007
    handle.close()


def test_a_chunk_that_does_not_decode_again_is_never_committed(tmp_path, monkeypatch, caplog):
    from qatqfs.codec import payloadencoder

    content = bytes(range(256)) * 40
    with Store(tmp_path) as store:
        with store.create(b"x") as handle:
            handle.write(content, 0)
            real = payloadencoder.encode_smallest

            def faulty(*arguments, **settings):
                strategy, data = real(*arguments, **settings)
                return strategy, data[:-1] + bytes([data[-1] ^ 1])

            with monkeypatch.context() as patch:
                patch.setattr(payloadencoder, "encode_smallest", faulty)
                with pytest.raises(OSError, match="does not decode again"):
                    store.sync()
            assert handle.read(len(content), 0) == content
        store.sync()
        with store.open(b"x") as handle:
            assert handle.read(len(content), 0) == content
    assert "stays in staging" in caplog.text
