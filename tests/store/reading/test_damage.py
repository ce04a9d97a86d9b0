"""Known damage is forgotten when the file is repaired, even if the repair restores size and mtime."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mounted import errno_of

from qatqfs.store import Store
from qatqfs.store.options import OnCorrupt

CHUNK = 4096
DATA = np.random.default_rng(1).bytes(5 * CHUNK)


def committed(store: Store, backing: Path) -> bytearray:
    """A file of five chunks; returns its container."""
    with store.create(b"x") as handle:
        handle.write(DATA, 0)
    store.sync()
    return bytearray((backing / "x.qatc").read_bytes())


def overwrite(path: Path, content: bytes) -> None:
    """Change a file in place and leave its size and mtime as they were."""
    st = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert path.stat().st_size == st.st_size


@pytest.mark.parametrize("at", [-CHUNK // 2, 0])
@pytest.mark.parametrize("open_elsewhere", [False, True])
def test_a_container_repaired_in_place_is_good_at_the_next_open(
    store: Store, backing: Path, at: int, open_elsewhere: bool
) -> None:
    good = committed(store, backing)
    bad = bytearray(good)
    bad[at] ^= 1
    overwrite(backing / "x.qatc", bad)
    elsewhere = store.open(b"x") if open_elsewhere and at else None

    def read() -> bytes:
        with store.open(b"x") as handle:
            return bytes(handle.read(len(DATA), 0))

    for _ in range(2):
        assert errno_of(read) == "EIO"
    overwrite(backing / "x.qatc", good)
    assert read() == DATA
    if elsewhere is not None:
        assert bytes(elsewhere.read(len(DATA), 0)) == DATA
        elsewhere.close()


def test_a_container_damaged_in_place_is_noticed_at_the_next_open(store: Store, backing: Path) -> None:
    good = committed(store, backing)
    with store.open(b"x") as elsewhere:
        overwrite(backing / "x.qatc", b"XXXX")
        assert errno_of(store.open, b"x") == "EIO"
        overwrite(backing / "x.qatc", good)
        with store.open(b"x") as handle:
            assert bytes(handle.read(len(DATA), 0)) == DATA
        assert bytes(elsewhere.read(len(DATA), 0)) == DATA


def test_a_damaged_file_that_looks_absent_comes_back_when_it_is_repaired(open_store, backing: Path) -> None:
    store = open_store(on_corrupt=OnCorrupt.ENOENT)
    good = committed(store, backing)
    bad = bytearray(good)
    bad[-CHUNK // 2] ^= 1
    overwrite(backing / "x.qatc", bad)
    with store.open(b"x") as handle:
        assert errno_of(handle.read, len(DATA), 0) == "EIO"
    assert errno_of(store.open, b"x") == "ENOENT"
    overwrite(backing / "x.qatc", good)
    with store.open(b"x") as handle:
        assert bytes(handle.read(len(DATA), 0)) == DATA


@pytest.mark.parametrize("change", ["chmod", "rename", "nothing"])
def test_what_changes_only_metadata_drops_no_decoded_chunk(store: Store, backing: Path, change: str) -> None:
    committed(store, backing)
    with store.open(b"x") as handle:
        assert bytes(handle.read(len(DATA), 0)) == DATA
        decoded, tag = store.stats()["chunks_decoded"], handle.node.content_tag()
        if change == "chmod":
            store.chmod(b"x", 0o600)
        elif change == "rename":
            store.rename(b"x", b"y")
        with store.open(b"y" if change == "rename" else b"x") as again:
            assert bytes(again.read(len(DATA), 0)) == DATA
            assert again.node.content_tag() == tag
        assert store.stats()["chunks_decoded"] == decoded


def test_a_commit_leaves_no_container_behind_that_the_next_open_takes_for_changed(store: Store, backing: Path) -> None:
    with store.create(b"x") as handle:
        handle.write(DATA, 0)
        store.sync()
        container = handle.node.container()
        with store.open(b"x") as again:
            assert again.node.container() is container


def torn(good: bytes) -> Iterator[bytes]:
    """A file whose last blocks were not on disk when power was lost: a good beginning, then zeros."""
    end = len(good)
    starts = {*range(0, end, 512), *range(0, end, 4096), *range(end - 150, end)}
    for start in sorted(starts):
        yield good[:start] + bytes(end - start)


@pytest.mark.parametrize("length", [3 * CHUNK - 1, 2 * CHUNK + 1, CHUNK - 1, 3 * CHUNK], ids=str)
def test_a_torn_container_gives_the_right_bytes_or_an_error(store: Store, backing: Path, length: int) -> None:
    with store.create(b"x") as handle:
        handle.write(DATA[:length], 0)
    store.sync()
    good = (backing / "x.qatc").read_bytes()

    def read() -> bytes:
        with store.open(b"x") as handle:
            return bytes(handle.read(length + 2, 0))

    failed = 0
    for bad in torn(good):
        (backing / "x.qatc").write_bytes(bad)
        if errno_of(read) is None:
            assert read() == DATA[:length]
        else:
            assert errno_of(read) == "EIO"
            failed += 1
    assert failed > 100
