"""Files with several names: one content, whichever name is written through, whenever it is committed."""

import errno
import os
from pathlib import Path

import pytest
from faults import FaultyIO, abandon
from helpers import noise, read, stored, write
from strict_decoder import decode_container

from qatqfs.store import Store, StoreOptions

CHUNK = 4096
DATA = noise(3 * CHUNK + 10)


@pytest.mark.parametrize("at", ["x", "y"])
def test_after_a_kill_the_name_that_is_left_has_what_was_written(backing: Path, at: str) -> None:
    io = FaultyIO()
    store = Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1), io=io)
    handle = store.create(b"x")
    handle.write(DATA, 0)
    store.link(b"x", b"y")
    store.unlink(b"y" if at == "x" else b"x")
    abandon(store, io)
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1)) as again:
        assert read(again, at.encode()) == DATA
        again.sync()
    assert stored(backing / f"{at}.qatc") == DATA
    assert list((backing / ".qatqfs/lost+found").iterdir()) == []


def test_a_link_shows_the_same_file_and_counts(store: Store) -> None:
    write(store, b"x", DATA)
    assert store.link(b"x", b"y").nlink == 2
    assert store.stat(b"x").nlink == store.stat(b"y").nlink == 2
    assert store.stat(b"x").key == store.stat(b"y").key
    assert read(store, b"y") == DATA


@pytest.mark.parametrize("committed", [True, False])
def test_a_write_through_one_name_shows_under_the_other_before_and_after_the_commit(
    store: Store, backing: Path, committed: bool
) -> None:
    write(store, b"x", DATA)
    if committed:
        store.sync()
    store.link(b"x", b"y")
    write(store, b"y", b"patch", CHUNK)
    expected = DATA[:CHUNK] + b"patch" + DATA[CHUNK + 5 :]
    assert read(store, b"x") == read(store, b"y") == expected
    store.sync()
    assert read(store, b"x") == read(store, b"y") == expected
    assert stored(backing / "x.qatc") == stored(backing / "y.qatc") == expected
    assert (backing / "x.qatc").stat().st_ino == (backing / "y.qatc").stat().st_ino
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_links_made_in_backing_itself_are_kept_by_a_commit(store: Store, backing: Path) -> None:
    write(store, b"x", DATA)
    store.sync()
    os.link(backing / "x.qatc", backing / "z.qatc")
    write(store, b"x", b"!", 0)
    store.sync()
    assert stored(backing / "z.qatc") == b"!" + DATA[1:]


def test_the_name_that_is_left_gets_what_was_written_through_the_one_that_went(store: Store, backing: Path) -> None:
    write(store, b"x", DATA)
    store.sync()
    store.link(b"x", b"y")
    with store.open(b"x", os.O_RDWR) as handle:
        handle.write(b"late", 5)
        store.unlink(b"x")
        assert store.stat(b"y").nlink == 1
        store.sync()
        assert bytes(handle.read(4, 5)) == b"late"
    assert stored(backing / "y.qatc") == DATA[:5] + b"late" + DATA[9:]
    assert store.list_names() == [b"y"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_handle_whose_name_went_before_anything_was_written_writes_to_the_other(
    open_store, backing: Path, killed: bool
) -> None:
    io = FaultyIO()
    store = Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0), io=io)
    write(store, b"x", DATA)
    store.link(b"x", b"y")
    store.sync()
    handle = store.open(b"x", os.O_RDWR)
    store.unlink(b"x")
    handle.write(b"late", 5)
    handle.truncate(CHUNK)
    if killed:
        abandon(store, io)
        store = open_store()
    store.sync()
    assert read(store, b"y") == DATA[:5] + b"late" + DATA[9:CHUNK]
    assert stored(backing / "y.qatc") == DATA[:5] + b"late" + DATA[9:CHUNK]
    assert list((backing / ".qatqfs/lost+found").iterdir()) == []
    store.close()


def test_a_reader_goes_on_while_the_shared_inode_is_overwritten(store: Store) -> None:
    write(store, b"x", DATA)
    store.link(b"x", b"y")
    store.sync()
    with store.open(b"y") as reader:
        container = reader.node.container()
        write(store, b"x", b"new", 0)
        store.sync()
        assert reader.node.container() is not container
        assert bytes(reader.read(3 * CHUNK, 0)) == b"new" + DATA[3 : 3 * CHUNK]
    assert "corrupt_chunks" not in store.stats()


def test_mode_times_and_attributes_of_the_inode_stay(store: Store) -> None:
    write(store, b"x", DATA)
    store.link(b"x", b"y")
    store.chmod(b"y", 0o640)
    store.setxattr(b"x", b"user.k", b"v")
    with store.open(b"x", os.O_RDWR) as handle:
        handle.write(b"1", 0)
        store.utimens(b"x", 1_000_000_001, 2_000_000_003)
    store.sync()
    found = store.stat(b"y")
    assert (found.mode & 0o777, found.atime_ns, found.mtime_ns) == (0o640, 1_000_000_001, 2_000_000_003)
    assert store.getxattr(b"y", b"user.k") == b"v"


def test_truncating_and_appending_through_different_names(store: Store) -> None:
    write(store, b"x", DATA)
    store.link(b"x", b"y")
    store.truncate(b"x", 2 * CHUNK + 1)
    store.sync()
    write(store, b"y", b"tail", 2 * CHUNK + 1)
    assert read(store, b"x") == DATA[: 2 * CHUNK + 1] + b"tail"
    store.sync()
    assert read(store, b"x") == DATA[: 2 * CHUNK + 1] + b"tail"


def test_a_raw_file_with_two_names_stays_raw_when_it_is_rewritten(store: Store, backing: Path) -> None:
    (backing / "r").write_bytes(b"old")
    store.link(b"r", b"s")
    with store.open(b"r", os.O_WRONLY | os.O_TRUNC) as handle:
        handle.write(b"new!", 0)
    assert (backing / "s").read_bytes() == b"new!"


def test_a_commit_that_is_overtaken_by_the_removal_of_all_names_leaves_the_open_file_alone(
    backing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0), io=io) as store:
        write(store, b"x", DATA)
        store.sync()
        store.link(b"x", b"y")
        with store.open(b"x", os.O_RDWR) as handle:
            handle.write(b"patch", CHUNK)

            def remove_both(number: int, name: str, args: tuple) -> None:
                if name == "fsync" and handle.node.lock._is_owned():  # the last one before the names would get it
                    io.heal()
                    store.unlink(b"x")
                    store.unlink(b"y")

            io.before = remove_both
            store.sync()
            assert bytes(handle.read(len(DATA), 0)) == DATA[:CHUNK] + b"patch" + DATA[CHUNK + 5 :]
    assert not caplog.records
    assert list((backing / ".qatqfs/staging").iterdir()) == []


@pytest.mark.parametrize("recovered", [False, True])
def test_a_sync_of_a_directory_commits_what_was_written_by_a_name_elsewhere(
    open_store, backing: Path, recovered: bool
) -> None:
    store = open_store()
    store.mkdir(b"d")
    write(store, b"x", DATA)
    write(store, b"other", DATA)
    store.sync()
    store.link(b"x", b"d/x")
    with store.open(b"x", os.O_RDWR) as one, store.open(b"other", os.O_RDWR) as other:
        one.write(b"patch", 0)
        other.write(b"patch", 0)
        if recovered:
            store.close(commit=False)
            store = open_store()
        store.sync(b"d")
        assert stored(backing / "d/x.qatc") == b"patch" + DATA[5:]
        assert stored(backing / "other.qatc") == DATA  # a barrier for d is none for the rest


@pytest.mark.parametrize("error", [errno.EPERM, errno.EINVAL])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of several users")
def test_a_file_whose_owner_cannot_be_given_keeps_it(backing: Path, error: int) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=4096, idle_seconds=3600.0), io=io) as store:
        with store.create(b"x") as handle:
            handle.write(b"content", 0)
        store.chown(b"x", 54321, 54322)
        io.fail(error, "chown")  # as in a container without the capability, or without that user
        store.sync()
        st = store.stat(b"x")
        assert (st.uid, st.gid) == (54321, 54322)
        assert decode_container((backing / "x.qatc").read_bytes()).raw[:7] == b"content"
