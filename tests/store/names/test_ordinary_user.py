"""A store of a user who is not root: modes, owners and directories that keep it from renaming or opening."""

import contextlib
import gc
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultyIO, Killed, QuietIO, abandon
from helpers import content, read, write
from mounted import errno_of
from ordinary import as_ordinary_user, own_directory

from qatqfs.store import Store, StoreOptions
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import birth_time_ns

CHUNK = 4096
OTHER = 54399


def opened(backing: Path, io: BackingIO | None = None) -> Store:
    return Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1), io=io)


def mode_of(store: Store, path: bytes) -> int:
    return stat.S_IMODE(store.stat(path).mode)


@pytest.fixture
def user() -> Iterator[Callable[[Callable[[Path], object]], None]]:
    """Does work as an ordinary user, who is given a directory."""
    with own_directory() as base:
        yield lambda work: as_ordinary_user(base, work)


Run = Callable[[Callable[[Path], object]], None]


@pytest.mark.parametrize("mode", [0o444, 0o400, 0o200, 0o000, 0o644, 0o4755])
@pytest.mark.parametrize("directory", [0o555, 0o500, 0o311, 0o600, 0o000, 0o755])
def test_a_file_is_committed_whatever_modes_it_and_its_directory_get(user: Run, mode: int, directory: int) -> None:
    def work(base: Path) -> None:
        with opened(base) as store:
            store.mkdir(b"d")
            write(store, b"d/x", content(5 * CHUNK))
            store.chmod(b"d/x", mode)
            store.utimens(b"d/x", None, 1_234_567_890)
            store.chmod(b"d", directory)
            store.sync()
            assert list((base / ".qatqfs/staging").iterdir()) == []
            store.chmod(b"d", 0o755)
            assert read(store, b"d/x") == content(5 * CHUNK)
            assert mode_of(store, b"d/x") == mode
            assert store.stat(b"d/x").mtime_ns == 1_234_567_890
        with opened(base) as store:
            assert store.stat(b"d/x").size == 5 * CHUNK
            assert read(store, b"d/x") == content(5 * CHUNK)
            assert mode_of(store, b"d/x") == mode

    user(work)


@pytest.mark.parametrize("mode", [0o444, 0o200, 0o000, 0o644])
@pytest.mark.parametrize("directory", [0o555, 0o600, 0o000, 0o755])
@pytest.mark.parametrize("old", [0, 3 * CHUNK])
def test_it_is_after_a_kill(user: Run, mode: int, directory: int, old: int) -> None:
    def work(base: Path) -> None:
        io = FaultyIO()
        store = opened(base, io)
        store.mkdir(b"d")
        write(store, b"d/x", content(old, 1))
        store.sync()
        handle = store.open(b"d/x", os.O_RDWR)
        handle.write(content(5 * CHUNK), 0)
        store.chmod(b"d/x", mode)
        store.chmod(b"d", directory)
        abandon(store, io)
        with opened(base) as store:
            assert store.recovered == 1
            store.sync()
            assert list((base / ".qatqfs/staging").iterdir()) == []
            assert list((base / ".qatqfs/lost+found").iterdir()) == []
            assert mode_of(store, b"d") == directory
            store.chmod(b"d", 0o755)
            assert mode_of(store, b"d/x") == mode
            assert read(store, b"d/x") == content(5 * CHUNK)

    user(work)


def test_a_kill_at_any_step_of_a_commit_in_place_loses_nothing_and_changes_no_mode(user: Run) -> None:
    def work(base: Path) -> None:
        gc.freeze()  # what is there already, or each collection looks through all of it
        step = 0
        while True:
            backing = base / f"b{step}"
            backing.mkdir()
            io = FaultyIO()
            store = opened(backing, io)
            store.mkdir(b"d")
            write(store, b"d/x", content(3 * CHUNK, 1))
            store.sync()
            handle = store.open(b"d/x", os.O_RDWR)
            handle.write(content(5 * CHUNK), 0)
            store.chmod(b"d/x", 0o400)
            store.chmod(b"d", 0o000)
            abandon(store, io)
            io = FaultyIO()
            io.kill_in(step)
            done = False
            with contextlib.suppress(Killed, OSError):
                store = opened(backing, io)
                store.sync()
                done = True
            abandon(store, io)
            gc.collect()  # of a store that was killed while it opened: it holds the lock
            with opened(backing, QuietIO()) as store:
                assert mode_of(store, b"d") == 0o000, step
                store.sync()
                store.chmod(b"d", 0o755)
                assert read(store, b"d/x") == content(5 * CHUNK), step
                assert mode_of(store, b"d/x") == 0o400, step
            if done and len(io.steps) < step:
                assert step > 20
                return
            step += 1

    try:
        user(work)
    finally:
        gc.unfreeze()


def test_attributes_of_a_read_only_file_are_kept(user: Run) -> None:
    def work(base: Path) -> None:
        with opened(base) as store:
            write(store, b"x", content(CHUNK))
            try:
                store.setxattr(b"x", b"user.note", b"kept")
            except OSError:
                return  # a filesystem without
            store.chmod(b"x", 0o444)
            store.sync()
            assert store.getxattr(b"x", b"user.note") == b"kept"
            assert mode_of(store, b"x") == 0o444

    user(work)


def test_a_write_only_file_can_be_opened_for_writing_and_keeps_its_attributes(user: Run) -> None:
    def work(base: Path) -> None:
        with opened(base) as store:
            write(store, b"x", content(2 * CHUNK))
            set_so = errno_of(store.setxattr, b"x", b"user.note", b"kept")
            assert set_so in (None, "EOPNOTSUPP")
            store.chmod(b"x", 0o200)
            store.sync()
        with opened(base) as store:
            assert store.stat(b"x").size == 2 * CHUNK
            with store.open(b"x", os.O_WRONLY) as handle:
                handle.write(b"changed", 10)
            store.sync()
            assert mode_of(store, b"x") == 0o200
            store.chmod(b"x", 0o600)
            assert read(store, b"x") == content(2 * CHUNK)[:10] + b"changed" + content(2 * CHUNK)[17:]
            assert errno_of(store.getxattr, b"x", b"user.note") == set_so

    user(work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of several users")
@pytest.mark.parametrize("directory", [0o777, 0o1777])
def test_another_users_file_keeps_its_owner(user: Run, directory: int) -> None:
    places: list[Path] = []

    def prepare(base: Path) -> None:
        places.append(base)
        with opened(base) as store:
            store.mkdir(b"d")
            write(store, b"d/x", content(3 * CHUNK, 1))

    def work(base: Path) -> None:
        with opened(base) as store:
            with store.open(b"d/x", os.O_RDWR) as handle:
                handle.write(content(5 * CHUNK), 0)
            store.sync()
            assert list((base / ".qatqfs/staging").iterdir()) == []
            st = store.stat(b"d/x")
            assert (st.uid, st.gid, stat.S_IMODE(st.mode)) == (OTHER, OTHER, 0o666)
            assert read(store, b"d/x") == content(5 * CHUNK)

    with own_directory() as base:
        as_ordinary_user(base, prepare)
        os.chmod(base / "d", directory)
        os.chown(base / "d", OTHER, OTHER)
        os.chown(base / "d/x.qatc", OTHER, OTHER)
        os.chmod(base / "d/x.qatc", 0o666)
        as_ordinary_user(base, work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of several users")
def test_what_the_store_may_not_read_is_refused_when_it_is_opened() -> None:
    def prepare(base: Path) -> None:
        with opened(base) as store:
            write(store, b"x", content(CHUNK))

    def work(base: Path) -> None:
        with opened(base) as store:
            assert errno_of(store.open, b"x", os.O_WRONLY) == "EACCES"
            assert errno_of(store.open, b"x", os.O_WRONLY | os.O_TRUNC) == "EACCES"

    with own_directory() as base:
        as_ordinary_user(base, prepare)
        os.chown(base / "x.qatc", OTHER, OTHER)
        os.chmod(base / "x.qatc", 0o622)
        as_ordinary_user(base, work)


def test_a_raw_file_in_a_directory_that_must_not_change_stays_raw(user: Run) -> None:
    def work(base: Path) -> None:
        (base / "d").mkdir()
        (base / "d/x").write_bytes(b"raw")
        (base / "d").chmod(0o555)
        with opened(base) as store, store.open(b"d/x", os.O_WRONLY | os.O_TRUNC) as handle:
            handle.write(b"new", 0)
        assert (base / "d/x").read_bytes() == b"new"

    user(work)


def test_a_file_in_a_directory_that_cannot_be_opened_is_made_durable(user: Run) -> None:
    def work(base: Path) -> None:
        with opened(base) as store:
            store.mkdir(b"d")
            with store.create(b"d/x") as handle:
                handle.write(b"content", 0)
                store.chmod(b"d", 0o300)
                handle.fsync()
                store.chmod(b"d", 0o000)
                handle.write(b"more", 7)
                handle.fsync()
            store.chmod(b"d", 0o700)

    user(work)


@pytest.mark.parametrize("content_of_note", [b"", b"../../outside", b"gone", b"x.qatc\0", b"no/such"])
def test_a_note_that_says_nothing_of_a_file_in_backing_changes_none(tmp_path: Path, content_of_note: bytes) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    st = outside.stat()
    backing = tmp_path / "a" / "backing"
    backing.mkdir(parents=True)
    with opened(backing) as store:
        write(store, b"x", b"content")
    fd = os.open(outside, os.O_RDONLY)
    note = f"{st.st_ino}-{birth_time_ns(fd)}-0.mode"
    os.close(fd)
    (backing / ".qatqfs/staging" / note).write_bytes(content_of_note)
    (backing / ".qatqfs/staging/nonsense.mode").write_bytes(b"x.qatc")
    with opened(backing) as store:
        assert read(store, b"x") == b"content"
        assert mode_of(store, b"x") == 0o644
    assert stat.S_IMODE(outside.stat().st_mode) == stat.S_IMODE(st.st_mode)
    assert list((backing / ".qatqfs/staging").iterdir()) == []
