"""Names of a store: listing, renaming and removing, with containers and raw files side by side."""

import os
import stat
from pathlib import Path

import pytest
from helpers import read, write
from mounted import errno_of

from qatqfs.store import Store
from qatqfs.store.system.files import RENAME_EXCHANGE, RENAME_NOREPLACE


def put_raw(backing: Path, name: str, data: bytes, mtime: int) -> None:
    (backing / name).write_bytes(data)
    os.utime(backing / name, (mtime, mtime))


def test_listing_shows_logical_names_once_and_hides_the_stores_own(store: Store, backing: Path) -> None:
    write(store, b"a", b"1")
    write(store, b"b.qatc", b"2")
    store.mkdir(b"d")
    store.symlink(b"link", b"a")
    (backing / "raw.json").write_text("{}")
    (backing / "a").write_text("raw twin")
    assert sorted(store.list_names()) == [b"a", b"b.qatc", b"d", b"link", b"raw.json"]
    assert errno_of(store.stat, b".qatqfs") == "ENOENT"
    assert errno_of(store.mkdir, b".qatqfs") == "EPERM"
    assert errno_of(store.create, b".qatqfs") == "EPERM"
    assert errno_of(store.list_names, b".qatqfs/staging") == "ENOENT"


def test_a_name_that_ends_in_the_suffix_is_stored_with_a_second_one(store: Store, backing: Path) -> None:
    write(store, b"b.qatc", b"data")
    assert (backing / "b.qatc.qatc").is_file()
    assert read(store, b"b.qatc") == b"data"


@pytest.mark.parametrize("make", ["mkdir", "symlink", "mknod"])
def test_only_regular_files_may_have_a_name_that_ends_in_the_suffix(store: Store, make: str) -> None:
    arguments = {"mkdir": (), "symlink": (b"target",), "mknod": (stat.S_IFIFO | 0o600,)}[make]
    assert errno_of(getattr(store, make), b"d.qatc", *arguments) == "EINVAL"


def test_nothing_is_made_where_a_file_is_whatever_way_it_is_stored(store: Store, backing: Path) -> None:
    write(store, b"x", b"1")
    (backing / "raw").write_text("r")
    for name in (b"x", b"raw"):
        assert errno_of(store.mkdir, name) == "EEXIST"
        assert errno_of(store.symlink, name, b"t") == "EEXIST"


@pytest.mark.parametrize(("raw_mtime", "expected"), [(9_000_000_000, b"raw"), (1, b"container")])
def test_of_a_container_and_a_raw_file_the_later_one_is_served(
    store: Store, backing: Path, raw_mtime: int, expected: bytes
) -> None:
    write(store, b"x", b"container")
    store.sync()
    put_raw(backing, "x", b"raw", raw_mtime)
    assert read(store, b"x") == expected


def test_the_container_is_served_on_a_tie(store: Store, backing: Path) -> None:
    write(store, b"x", b"container")
    store.utimens(b"x", None, 5_000_000_000)
    store.sync()
    put_raw(backing, "x", b"raw", 5)
    assert store.stat(b"x").mtime_ns == 5_000_000_000
    assert read(store, b"x") == b"container"


def test_unlinking_removes_both_of_a_container_and_a_raw_file(store: Store, backing: Path) -> None:
    write(store, b"x", b"container")
    put_raw(backing, "x", b"raw", 1)
    store.unlink(b"x")
    assert store.list_names() == []


def test_renaming_moves_both_of_a_container_and_a_raw_file(store: Store, backing: Path) -> None:
    write(store, b"x", b"container")
    put_raw(backing, "x", b"raw", 1)
    store.rename(b"x", b"y")
    assert (store.list_names(), read(store, b"y")) == ([b"y"], b"container")


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("target", [None, "container", "dirty", "raw"])
def test_renaming_replaces_whatever_was_there(store: Store, backing: Path, committed: bool, target: str | None) -> None:
    if target == "raw":
        put_raw(backing, "y", b"old", 9_000_000_000)
    elif target is not None:
        write(store, b"y", b"old")
    if target == "container":
        store.sync()
    with store.create(b"x") as handle:
        handle.write(b"new", 0)
        if committed:
            store.sync()
        store.rename(b"x", b"y")
        handle.write(b"er", 3)
        assert bytes(handle.read(10, 0)) == b"newer"
    store.sync()
    assert store.list_names() == [b"y"]
    assert read(store, b"y") == b"newer"


def test_a_dirty_file_in_a_renamed_directory_is_committed_at_its_new_place(store: Store, backing: Path) -> None:
    store.mkdir(b"d")
    store.mkdir(b"d/e")
    with store.create(b"d/e/x") as handle:
        handle.write(b"data", 0)
        store.rename(b"d", b"f")
        store.sync()
    assert (backing / "f/e/x.qatc").stat().st_size > 72
    assert read(store, b"f/e/x") == b"data"


def test_rename_with_noreplace(store: Store, backing: Path) -> None:
    write(store, b"x", b"1")
    put_raw(backing, "y", b"2", 1)
    assert errno_of(store.rename, b"x", b"y", RENAME_NOREPLACE) == "EEXIST"
    store.rename(b"x", b"z", RENAME_NOREPLACE)
    assert read(store, b"z") == b"1"


def test_rename_with_exchange_swaps_dirty_and_committed_files(store: Store) -> None:
    write(store, b"x", b"1")
    store.sync()
    with store.create(b"y") as handle:
        handle.write(b"2", 0)
        store.rename(b"x", b"y", RENAME_EXCHANGE)
        assert (read(store, b"x"), read(store, b"y")) == (b"2", b"1")
    store.sync()
    assert (read(store, b"x"), read(store, b"y")) == (b"2", b"1")


def test_a_container_and_a_raw_file_cannot_be_exchanged(store: Store, backing: Path) -> None:
    write(store, b"x", b"1")
    put_raw(backing, "r", b"2", 1)
    assert errno_of(store.rename, b"x", b"r", RENAME_EXCHANGE) == "EINVAL"
    assert errno_of(store.rename, b"x", b"absent", RENAME_EXCHANGE) == "ENOENT"
    assert errno_of(store.rename, b"x", b"y", 4) == "EINVAL"


def test_files_and_directories_do_not_replace_each_other(store: Store) -> None:
    write(store, b"x", b"1")
    store.mkdir(b"d")
    assert errno_of(store.rename, b"x", b"d") == "EISDIR"
    assert errno_of(store.rename, b"d", b"x") == "ENOTDIR"
    assert errno_of(store.unlink, b"d") == "EISDIR"
    assert errno_of(store.rmdir, b"x") == "ENOTDIR"


def test_a_raw_file_is_not_renamed_to_a_name_that_means_a_container(store: Store, backing: Path) -> None:
    put_raw(backing, "r", b"2", 1)
    assert errno_of(store.rename, b"r", b"r.qatc") == "EXDEV"  # mv(1) then copies


def test_symlinks_get_a_second_name(store: Store) -> None:
    store.symlink(b"s", b"x")
    store.link(b"s", b"t")
    assert store.readlink(b"t") == b"x"


def test_directories_get_no_second_name_and_taken_names_are_refused(store: Store, backing: Path) -> None:
    write(store, b"x", b"1")
    put_raw(backing, "r", b"2", 1)
    store.mkdir(b"d")
    assert errno_of(store.link, b"d", b"e") == "EPERM"
    for taken in (b"x", b"r", b"d"):
        assert errno_of(store.link, b"x", taken) == "EEXIST"
    assert errno_of(store.link, b"r", b"r.qatc") == "EXDEV"
    assert errno_of(store.link, b"x", b".qatqfs") == "EPERM"
    assert errno_of(store.link, b"absent", b"y") == "ENOENT"


def test_nothing_leads_out_of_the_backing_directory(store: Store, backing: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.qatc").write_bytes(b"x")
    (backing / "way").symlink_to(outside)
    for call in (store.stat, store.open, store.create, store.unlink):
        assert errno_of(call, b"way/secret") == "ENOTDIR"
    assert errno_of(store.stat, b"../outside") == "EINVAL"
    (backing / "y.qatc").symlink_to(outside / "secret.qatc")
    assert errno_of(store.open, b"y") == "ENOENT"
    assert store.list_names() == [b"way", b"y.qatc"] or store.list_names() == [b"y.qatc", b"way"]


def test_raw_files_are_served_and_written_in_place(store: Store, backing: Path) -> None:
    (backing / "r.json").write_bytes(b"hello")
    with store.open(b"r.json", os.O_RDWR) as handle:
        handle.write(b"J", 0)
        handle.truncate(4)
    assert (backing / "r.json").read_bytes() == b"Jell"


def test_a_raw_file_that_is_rewritten_becomes_a_container(store: Store, backing: Path) -> None:
    (backing / "r.json").write_bytes(b"old")
    (backing / "r.json").chmod(0o600)
    reader = store.open(b"r.json")
    with store.open(b"r.json", os.O_WRONLY | os.O_TRUNC) as handle:
        handle.write(b"new", 0)
        assert bytes(reader.read(10, 0)) == b"new"
    store.sync()
    reader.close()
    assert not (backing / "r.json").exists()
    assert (backing / "r.json.qatc").stat().st_mode & 0o777 == 0o600
    assert read(store, b"r.json") == b"new"


def test_a_raw_rule_creates_raw_files_and_keeps_them_raw(open_store, backing: Path) -> None:
    store = open_store(raw_patterns=("*.idx", "pool/*"))
    store.mkdir(b"pool")
    for name in (b"a.idx", b"pool/x"):
        write(store, name, b"raw bytes")
        with store.open(name, os.O_WRONLY | os.O_TRUNC) as handle:
            handle.write(b"again", 0)
        assert (backing / os.fsdecode(name)).read_bytes() == b"again"


def test_special_files_and_symlinks_pass_through(store: Store, backing: Path) -> None:
    store.mknod(b"fifo", stat.S_IFIFO | 0o640)
    store.symlink(b"s", b"no/such/target")
    assert stat.S_ISFIFO((backing / "fifo").lstat().st_mode)
    assert (store.stat(b"fifo").mode & 0o777) == 0o640
    assert store.readlink(b"s") == b"no/such/target"
    assert errno_of(store.open, b"fifo") == "ENXIO"
    assert errno_of(store.open, b"s") == "ELOOP"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_chown_of_a_symlink_changes_the_symlink(store: Store, backing: Path) -> None:
    write(store, b"x", b"1")
    store.symlink(b"s", b"x.qatc")
    store.chown(b"s", 1234, 2345)
    assert ((backing / "s").lstat().st_uid, (backing / "x.qatc").stat().st_uid) == (1234, os.geteuid())


def test_names_longer_than_the_suffix_leaves_are_refused(store: Store) -> None:
    limit = store.statvfs().f_namemax
    write(store, b"n" * limit, b"fits")
    assert errno_of(store.create, b"n" * (limit + 1)) == "ENAMETOOLONG"
    assert errno_of(store.stat, b"n" * (limit + 1)) == "ENOENT"


def test_any_bytes_make_a_name(store: Store) -> None:
    name = bytes(set(range(1, 256)) - {ord("/")})[:200]
    write(store, name, b"data")
    assert store.list_names() == [name]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a fifo away")
def test_a_fifo_made_for_another_owner_keeps_its_set_id_bits(store: Store, backing: Path) -> None:
    store.mknod(b"fifo", stat.S_IFIFO | 0o6755, 0, (54321, 54322))
    assert stat.S_IMODE((backing / "fifo").stat().st_mode) == 0o6755
