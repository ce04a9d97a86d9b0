"""What another boot, or a log that cannot be read, leaves in doubt: never served as if it were whole, never dropped."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import FaultyIO, abandon
from helpers import lost_and_found, read, reboot, staged, write_and_keep_open
from strict_decoder import decode_container

from qatqfs.store import Store, StoreError, StoreOptions
from qatqfs.store.names.tree import Tree
from qatqfs.store.private import lost_files, open_backing
from qatqfs.store.staging import records as staginglog
from qatqfs.store.system.files import Fd

CHUNK = 4096
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, durable_after=0.0)
DATA = bytes(range(256)) * 50


def kill_after(backing: Path, work: Callable[[Store], object]) -> None:
    io = FaultyIO()
    store = Store(backing, OPTIONS, io=io)
    kept = work(store)  # noqa: F841  an open handle must stay open until the end
    abandon(store, io)


def committed(backing: Path) -> None:
    with Store(backing, OPTIONS) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)


def test_a_new_file_that_was_never_synced_is_in_lost_and_found_after_a_reboot(
    backing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kill_after(backing, write_and_keep_open(DATA))
    (entry, _) = staged(backing)
    reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert (store.recovered, store.in_doubt) == (0, 1)
        assert store.stats()["files_in_doubt"] == 1
        assert read(store, b"x") == b""
    name = f"x.{entry.stem}.qatc"
    assert lost_and_found(backing) == {name: DATA}
    assert lost_files(open_backing(backing)) == [name]
    assert staged(backing) == []
    assert (
        f"x: {len(DATA)} bytes in staging entry {entry.stem} may be torn, because the machine went down" in caplog.text
    )
    assert f"is kept in lost+found as {name}" in caplog.text


def test_changes_that_were_never_synced_are_in_lost_and_found_with_the_rest_of_the_file(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(backing)
    kill_after(backing, write_and_keep_open(b"patch", 100))
    reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert read(store, b"x") == DATA
    assert list(lost_and_found(backing).values()) == [DATA[:100] + b"patch" + DATA[105:]]


def write_sync_and_append(store: Store) -> object:
    handle = store.create(b"x")
    handle.write(DATA, 0)
    handle.fsync()
    handle.write(b"appended", len(DATA))
    return handle


def test_what_was_synced_stays_under_its_name_and_what_was_written_since_is_in_lost_and_found(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after(backing, write_sync_and_append)
    reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert (store.recovered, store.in_doubt) == (1, 1)
        assert read(store, b"x") == DATA
    assert decode_container((backing / "x.qatc").read_bytes()).raw == DATA
    assert list(lost_and_found(backing).values()) == [DATA + b"appended"]


def test_a_file_that_has_what_was_synced_has_the_mtime_of_that(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(store: Store) -> object:
        handle = store.create(b"x")
        handle.write(DATA, 0)
        store.utimens(b"x", None, 1_000_000_007)
        handle.fsync()
        handle.write(b"appended", len(DATA))
        return handle

    kill_after(backing, work)
    reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert store.stat(b"x").mtime_ns == 1_000_000_007
        store.sync()
        assert store.stat(b"x").mtime_ns == 1_000_000_007


def test_a_copy_is_durable_before_what_it_was_made_of_is_cut(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_after(backing, write_sync_and_append)
    reboot(monkeypatch)
    io = FaultyIO()
    with Store(backing, OPTIONS, io=io):
        steps = list(io.steps)
    cut = len(steps) - 1 - steps[::-1].index("ftruncate")
    assert steps[cut - 3 : cut] == ["fsync", "rename", "fsync_directory"]


def test_a_copy_for_which_there_is_no_space_refuses_the_store_and_loses_nothing(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after(backing, write_sync_and_append)
    reboot(monkeypatch)
    full = FaultyIO()
    full.fail(errno.ENOSPC, "pwrite")
    with pytest.raises(StoreError, match="no space to keep a copy of 'x'"):
        Store(backing, OPTIONS, io=full)
    with Store(backing, OPTIONS) as store:  # it is not locked either
        assert read(store, b"x") == DATA
    assert list(lost_and_found(backing).values()) == [DATA + b"appended"]


def test_a_file_that_was_emptied_and_not_synced_is_as_before_and_the_log_says_so(
    backing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    committed(backing)
    kill_after(backing, lambda store: store.open(b"x", os.O_RDWR | os.O_TRUNC))
    reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert read(store, b"x") == DATA
    assert lost_and_found(backing) == {}
    assert f"x: has {len(DATA)} bytes again" in caplog.text


def test_what_was_only_touched_is_not_in_doubt(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(backing)

    def touch(store: Store) -> object:
        handle = store.open(b"x", os.O_RDWR)
        handle.write(DATA[:5], 0)
        handle.fsync()
        store.utimens(b"x", None, 123)
        return handle

    kill_after(backing, touch)
    reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert read(store, b"x") == DATA
    assert lost_and_found(backing) == {}


def test_a_second_reboot_before_it_is_in_lost_and_found_changes_nothing(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_after(backing, write_and_keep_open(DATA))
    reboot(monkeypatch)
    kill_after(backing, lambda store: None)
    kill_after(backing, lambda store: None)  # in the same boot it is in doubt still
    reboot(monkeypatch, b"yet another boot")
    with Store(backing, OPTIONS) as store:
        assert read(store, b"x") == b""
    assert list(lost_and_found(backing).values()) == [DATA]


def test_nothing_in_lost_and_found_is_ever_replaced(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_after(backing, write_and_keep_open(DATA))
    (entry, _) = staged(backing)
    (backing / f".qatqfs/lost+found/x.{entry.stem}.qatc").write_bytes(b"there before")
    reboot(monkeypatch)
    with Store(backing, OPTIONS):
        pass
    assert (backing / f".qatqfs/lost+found/x.{entry.stem}.qatc").read_bytes() == b"there before"
    assert decode_container((backing / f".qatqfs/lost+found/x.{entry.stem}-2.qatc").read_bytes()).raw == DATA


def test_content_whose_container_is_torn_is_kept(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io = FaultyIO()
    store = Store(backing, OPTIONS, io=io)
    handle = store.create(b"x")
    handle.write(DATA, 0)
    io.before = lambda number, name, args: io.die() if name == "unlink" else None  # it is in place, the entry not gone
    abandon_quietly(store, io)
    stored = (backing / "x.qatc").read_bytes()
    (backing / "x.qatc").write_bytes(stored[:100] + bytes(len(stored) - 100))
    reboot(monkeypatch)
    with Store(backing, OPTIONS):
        pass
    assert list(lost_and_found(backing).values()) == [DATA]
    handle.close()


def abandon_quietly(store: Store, io: FaultyIO) -> None:
    try:
        store.sync()
    except BaseException:
        abandon(store, io)


def damage(log: Path, at: int) -> None:
    content = bytearray(log.read_bytes())
    content[at] ^= 1
    log.write_bytes(content)


def test_an_entry_whose_log_is_damaged_in_the_middle_is_in_doubt(
    backing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    committed(backing)

    def write_twice(store: Store) -> object:
        handle = store.open(b"x", os.O_RDWR)
        handle.write(b"one", 0)
        handle.write(b"two", 2 * CHUNK)
        return handle

    kill_after(backing, write_twice)
    (_, log) = staged(backing)
    damage(log, log.stat().st_size - 60)  # the VALID before the last
    with Store(backing, OPTIONS) as store:
        assert (store.recovered, store.in_doubt) == (0, 1)
        assert read(store, b"x") == DATA
    (content,) = lost_and_found(backing).values()
    assert content == b"one" + DATA[3 : 2 * CHUNK] + b"two" + DATA[2 * CHUNK + 3 :]
    assert "its log is damaged" in caplog.text


def test_what_was_synced_before_a_log_was_damaged_stays_and_is_sure_from_then_on(backing: Path) -> None:
    committed(backing)

    def write(store: Store) -> object:
        handle = store.open(b"x", os.O_RDWR)
        handle.write(b"one", 0)
        handle.fsync()
        for chunk in (1, 2, 3):
            handle.write(b"two", chunk * CHUNK)
        return handle

    kill_after(backing, write)
    (_, log) = staged(backing)
    damage(log, log.stat().st_size - 60)
    kept = []

    def append(store: Store) -> object:
        kept.append(store.open(b"x", os.O_RDWR))
        kept[0].write(b"three", len(DATA))
        return kept

    kill_after(backing, append)
    with Store(backing, OPTIONS) as store:
        assert (store.recovered, store.in_doubt) == (1, 0)
        assert read(store, b"x") == b"one" + DATA[3:] + b"three"
    (content,) = lost_and_found(backing).values()
    assert content[CHUNK : CHUNK + 3] == content[2 * CHUNK : 2 * CHUNK + 3] == content[3 * CHUNK :][:3] == b"two"


@pytest.mark.parametrize("damaged", [b"", b"rubbish", None])
def test_a_data_file_whose_log_cannot_be_read_is_kept_as_it_is(
    backing: Path, caplog: pytest.LogCaptureFixture, damaged: bytes | None
) -> None:
    kill_after(backing, write_and_keep_open(DATA))
    (data, log) = staged(backing)
    if damaged is None:
        log.unlink()
    else:
        log.write_bytes(damaged)
    with Store(backing, OPTIONS) as store:
        assert (store.recovered, store.in_doubt) == (0, 1)
    assert staged(backing) == []
    assert lost_and_found(backing) == {data.name: DATA} | ({log.name: damaged} if damaged is not None else {})
    assert lost_files(open_backing(backing)) == [data.name]
    assert f"staging file {data.name} of {len(DATA)} bytes has" in caplog.text


def test_a_redo_file_without_a_log_is_kept(backing: Path) -> None:
    committed(backing)
    stored = (backing / "x.qatc").read_bytes()
    (backing / ".qatqfs/staging/0123.redo").write_bytes(stored)
    with Store(backing, OPTIONS) as store:
        assert store.in_doubt == 1
    assert lost_and_found(backing) == {"0123.redo.qatc": DATA}


def test_what_is_half_made_or_half_removed_goes_without_a_word(backing: Path, caplog: pytest.LogCaptureFixture) -> None:
    Store(backing, OPTIONS).close()
    staging = backing / ".qatqfs/staging"
    (staging / "a.data").write_bytes(b"")
    os.truncate(staging / "a.data", 10 * CHUNK)
    (staging / "b.data").write_bytes(b"")
    for name in ("b.log", "c.log", "d.new", "e.relog", "f.pre"):
        (staging / name).write_bytes(b"rubbish")
    with Store(backing, OPTIONS) as store:
        assert (store.recovered, store.in_doubt) == (0, 0)
    assert (staged(backing), lost_and_found(backing), caplog.text) == ([], {}, "")


def test_a_data_file_that_cannot_be_removed_keeps_its_log(backing: Path) -> None:
    io = FaultyIO()
    store = Store(backing, OPTIONS, io=io)
    handle = store.create(b"x")
    handle.write(DATA, 0)
    io.fail(errno.EIO, "unlink", when=lambda args: args[1].endswith(b".data"))
    store.unlink(b"x")
    handle.close()
    assert [path.suffix for path in staged(backing)] == [".data", ".log"]
    abandon(store, io)
    with Store(backing, OPTIONS) as store:
        assert store.in_doubt == 0
    assert (staged(backing), lost_and_found(backing)) == ([], {})


@pytest.mark.parametrize("rebooted", [False, True])
def test_a_file_deeper_than_any_system_call_reaches_is_recovered(
    backing: Path, monkeypatch: pytest.MonkeyPatch, rebooted: bool
) -> None:
    path = b"/".join([b"d" * 242] * 40)
    deep = path + b"/x"

    def work(store: Store) -> object:
        for stop in range(242, len(path) + 1, 243):
            store.mkdir(path[:stop])
        handle = store.create(deep)
        handle.write(DATA, 0)
        handle.fsync()
        return handle

    kill_after(backing, work)
    if rebooted:
        reboot(monkeypatch)
    with Store(backing, OPTIONS) as store:
        assert read(store, deep) == DATA
        store.sync()
        assert read(store, deep) == DATA
    assert lost_and_found(backing) == {}


def test_a_path_that_no_record_takes_is_searched_for(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staginglog, "_MAX_BODY", 64)
    long = b"n" * 100

    def work(store: Store) -> object:
        kept = write_and_keep_open(DATA)(store)
        store.rename(b"x", long)
        return kept

    kill_after(backing, work)
    with Store(backing, OPTIONS) as store:
        assert read(store, long) == DATA
    assert lost_and_found(backing) == {}


@pytest.mark.parametrize("rebooted", [False, True])
def test_an_error_does_not_count_as_absence(
    backing: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rebooted: bool
) -> None:
    committed(backing)
    kill_after(backing, write_sync_and_append)
    content = DATA + b"appended"
    before = staged(backing)
    if rebooted:
        reboot(monkeypatch)

    def fails(tree: Tree, entry: Fd) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "open_regular", fails)
        with Store(backing, OPTIONS) as store:
            assert store.recovered == 0
    assert staged(backing) == before
    assert "cannot be recovered and is kept" in caplog.text
    with Store(backing, OPTIONS) as store:
        assert read(store, b"x") == (DATA if rebooted else content)
    assert list(lost_and_found(backing).values()) == ([content] if rebooted else [])
