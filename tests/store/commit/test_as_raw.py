"""Rules are on the name that a file has when it is committed: programs write a temporary name and rename."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from faults import FaultyIO
from helpers import content, noise, read, stored_names, write
from mounted import errno_of
from strict_decoder import decode_container

from qatqfs.codec import DType
from qatqfs.store import Store, StoreOptions
from qatqfs.store.commit import engine as commit

CHUNK = 4096
RULES: dict[str, object] = {"raw_patterns": ("*.raw", "pool/*"), "dtype_rules": (("*.half", DType.F16),)}

RUNTIMES = {
    "vLLM": (b"block.bin_3.tmp", b"block.raw"),
    "SGLang": (b"page.raw.5f1c2a.tmp", b"page.raw"),
    "LMCache": (b"chunk.raw.tmp", b"chunk.raw"),
    "huggingface_hub": (b"blob.incomplete", b"blob.raw"),
}


@pytest.fixture
def store(open_store) -> Store:
    return open_store(**RULES)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("size", [0, 5, 10 * CHUNK + 3])
def test_a_file_renamed_to_a_raw_name_is_raw_once_committed(
    store: Store, backing: Path, runtime: str, size: int
) -> None:
    temporary, name = RUNTIMES[runtime]
    write(store, temporary, content(size))
    store.chmod(temporary, 0o640)
    store.rename(temporary, name)
    store.utimens(name, 10**18, 10**18 + 7)
    assert read(store, name) == content(size)
    store.sync()
    st = store.stat(name)
    if size:
        assert stored_names(backing) == [name.decode()]
        assert (backing / name.decode()).read_bytes() == content(size)
    assert (st.size, st.mode & 0o7777, st.atime_ns, st.mtime_ns) == (size, 0o640, 10**18, 10**18 + 7)
    assert read(store, name) == content(size)


def test_a_rename_right_after_the_last_close_comes_before_the_commit(open_store, backing: Path) -> None:
    store = open_store(**RULES, workers=4)
    for i in range(30):
        write(store, b"x%d.tmp" % i, content(3 * CHUNK, i))
        store.rename(b"x%d.tmp" % i, b"x%d.raw" % i)
        write(store, b"y%d.tmp" % i, content(3 * CHUNK, i))
        store.rename(b"y%d.tmp" % i, b"y%d.half" % i)
    store.sync()
    assert stored_names(backing) == sorted([f"x{i}.raw" for i in range(30)] + [f"y{i}.half.qatc" for i in range(30)])
    for i in range(30):
        assert decode_container((backing / f"y{i}.half.qatc").read_bytes()).dtype == "f16"


@pytest.mark.parametrize(("name", "expected"), [(b"x.raw", ["x.raw"]), (b"x.half", ["x.half.qatc"])])
def test_a_rename_during_the_commit_counts(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, expected: list[str]
) -> None:
    real = commit.copy_metadata
    renamed: list[bytes] = []

    def rename_meanwhile(*args) -> None:
        if not renamed:
            renamed.append(name)
            store.rename(b"x.tmp", name)
        real(*args)

    monkeypatch.setattr(commit, "copy_metadata", rename_meanwhile)
    write(store, b"x.tmp", content(5 * CHUNK))
    store.sync()
    assert stored_names(backing) == expected
    assert read(store, name) == content(5 * CHUNK)
    if name == b"x.half":
        assert decode_container((backing / "x.half.qatc").read_bytes()).dtype == "f16"


def test_a_dirty_file_renamed_out_of_a_raw_name_is_a_container(store: Store, backing: Path) -> None:
    write(store, b"x.tmp", content(5 * CHUNK))
    store.rename(b"x.tmp", b"x.raw")
    store.rename(b"x.raw", b"x.bin")
    store.sync()
    assert stored_names(backing) == ["x.bin.qatc"]


def test_what_is_committed_stays_as_it_is_until_it_is_written_to(store: Store, backing: Path) -> None:
    write(store, b"x.bin", content(5 * CHUNK))
    write(store, b"y.raw", content(5 * CHUNK))
    store.sync()
    store.rename(b"x.bin", b"x.raw")
    store.rename(b"y.raw", b"y.bin")
    store.sync()
    assert stored_names(backing) == ["x.raw.qatc", "y.bin"]
    write(store, b"x.raw", b"changed", 5)
    store.sync()
    with store.open(b"y.bin", os.O_WRONLY | os.O_TRUNC) as handle:
        handle.write(b"new", 0)
    store.sync()
    assert stored_names(backing) == ["x.raw", "y.bin.qatc"]
    assert (backing / "x.raw").read_bytes() == content(5 * CHUNK)[:5] + b"changed" + content(5 * CHUNK)[12:]


def test_an_open_file_that_has_become_raw_is_read_written_and_cut(store: Store, backing: Path) -> None:
    with store.create(b"x.tmp") as handle, store.open(b"x.tmp") as reader:
        handle.write(content(5 * CHUNK), 0)
        store.rename(b"x.tmp", b"x.raw")
        store.sync()
        handle.write(b"more", 5 * CHUNK)
        assert reader.read(100, 5 * CHUNK - 2) == content(5 * CHUNK)[-2:] + b"more"
        handle.truncate(CHUNK)
        handle.fsync()
        assert (reader.attributes().size, store.stat(b"x.raw").size) == (CHUNK, CHUNK)
    assert (backing / "x.raw").read_bytes() == content(CHUNK)


def test_files_with_several_names_stay_containers(store: Store, backing: Path) -> None:
    write(store, b"x.tmp", content(5 * CHUNK))
    store.link(b"x.tmp", b"other")
    store.rename(b"x.tmp", b"x.raw")
    store.sync()
    assert stored_names(backing) == ["other.qatc", "x.raw.qatc"]


def test_a_name_that_no_raw_file_may_have_stays_a_container(open_store, backing: Path) -> None:
    store = open_store(raw_patterns=("*",))
    write(store, b"x", content(CHUNK))
    store.rename(b"x", b"y")
    write(store, b"z.qatc", content(CHUNK))
    store.sync()
    assert stored_names(backing) == ["y", "z.qatc.qatc"]


def test_a_file_with_a_damaged_chunk_stays_a_container(open_store, backing: Path) -> None:
    store = open_store()
    write(store, b"x.raw", noise(10 * CHUNK))
    store.sync()
    store.close()
    damaged = bytearray((backing / "x.raw.qatc").read_bytes())
    damaged[5 * CHUNK] ^= 1
    (backing / "x.raw.qatc").write_bytes(damaged)
    store = open_store(**RULES)
    write(store, b"x.raw", b"changed", 5)
    store.sync()
    assert stored_names(backing) == ["x.raw.qatc"]
    with store.open(b"x.raw") as handle:
        assert handle.read(7, 5) == b"changed"


def test_holes_stay_holes(store: Store, backing: Path) -> None:
    with store.create(b"x.tmp") as handle:
        handle.write(b"end", 200 << 20)
    store.rename(b"x.tmp", b"x.raw")
    store.sync()
    st = (backing / "x.raw").stat()
    assert (st.st_size, st.st_blocks * 512 < 16 << 20) == ((200 << 20) + 3, True)


@pytest.mark.parametrize("operation", ["pwrite", "rename", "unlink", "chmod", "fsync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_commit_that_fails_is_tried_again_and_changes_nothing(backing: Path, operation: str, error: int) -> None:
    io = FaultyIO()
    options = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, **RULES)  # type: ignore[arg-type]
    with Store(backing, options, io=io) as store:
        write(store, b"x.tmp", content(3 * CHUNK, 1))
        store.sync()
        write(store, b"x.tmp", content(5 * CHUNK))
        store.rename(b"x.tmp", b"x.raw")
        io.fail(error, operation)
        errno_of(store.sync)
        assert read(store, b"x.raw") == content(5 * CHUNK)
        io.heal()
        store.sync()
        assert read(store, b"x.raw") == content(5 * CHUNK)
        assert stored_names(backing) == ["x.raw"]


def test_writers_and_a_commit_at_once_lose_nothing(open_store, backing: Path) -> None:
    for i in range(20):
        store = open_store(**RULES)
        handle = store.create(b"x.tmp")
        store.rename(b"x.tmp", b"x.raw")
        stop = threading.Event()
        written = bytearray()

        def keep_writing(handle=handle, written=written, stop=stop) -> None:
            while not stop.is_set():
                written += b"%08d" % len(written)
                handle.write(written[-8:], len(written) - 8)

        writer = threading.Thread(target=keep_writing)
        writer.start()
        time.sleep(0.005 * (i % 4))
        store.sync()
        stop.set()
        writer.join()
        store.sync()
        handle.close()
        assert read(store, b"x.raw") == written
        assert (backing / "x.raw").read_bytes() == written
        store.unlink(b"x.raw")
        store.close()
