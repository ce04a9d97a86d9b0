"""What is there after the process died, and after the power went."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import pytest
from dying import CHUNK, DATA, OPTIONS, die_after, reopen
from faults import FaultyIO, Killed, abandon
from helpers import ANOTHER_BOOT, read, reboot, staged, write_and_keep_open
from strict_decoder import decode_container

from qatqfs.store import Store, StoreOptions
from qatqfs.store.staging import records as staginglog
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd
from qatqfs.store.system.identity import Identity
from qatqfs.store.tuning import Tuning

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # threads are killed


def test_what_was_written_is_there_after_a_kill_at_once_and_after_the_commit(backing: Path) -> None:
    die_after(backing, write_and_keep_open(DATA))
    with reopen(backing) as store:
        assert store.recovered == 1
        assert read(store, b"x") == DATA
        store.sync()
        assert read(store, b"x") == DATA
    assert decode_container((backing / "x.qatc").read_bytes()).raw == DATA
    assert staged(backing) == []


def test_a_write_into_a_committed_file_survives_a_kill(backing: Path) -> None:
    with reopen(backing) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
    die_after(backing, write_and_keep_open(b"patch", 100))
    with reopen(backing) as store:
        assert read(store, b"x") == DATA[:100] + b"patch" + DATA[105:]


def test_a_truncation_survives_a_kill(backing: Path) -> None:
    with reopen(backing) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)

    def shrink(store: Store) -> object:
        handle = store.open(b"x", os.O_RDWR)
        handle.truncate(10)
        handle.truncate(20)
        return handle

    die_after(backing, shrink)
    with reopen(backing) as store:
        assert read(store, b"x") == DATA[:10] + bytes(10)


def test_the_mtime_survives_a_kill(backing: Path) -> None:
    def work(store: Store) -> object:
        handle = store.create(b"x")
        handle.write(DATA, 0)
        store.utimens(b"x", None, 1_234_567_890_123_456_789)
        return handle

    die_after(backing, work)
    with reopen(backing) as store:
        assert store.stat(b"x").mtime_ns == 1_234_567_890_123_456_789
        store.sync()
        assert store.stat(b"x").mtime_ns == 1_234_567_890_123_456_789


@pytest.mark.parametrize("target_exists", [False, True])
def test_a_file_renamed_while_dirty_is_found_under_its_new_name(backing: Path, target_exists: bool) -> None:
    if target_exists:
        with reopen(backing) as store, store.create(b"y") as handle:
            handle.write(b"old", 0)

    def work(store: Store) -> object:
        store.mkdir(b"d")
        kept = write_and_keep_open(DATA, path=b"d/x")(store)
        store.rename(b"d/x", b"y")
        return kept

    die_after(backing, work)
    with reopen(backing) as store:
        assert read(store, b"y") == DATA
        store.sync()
    assert decode_container((backing / "y.qatc").read_bytes()).raw == DATA
    assert list((backing / ".qatqfs/lost+found").iterdir()) == []


def test_a_kill_between_the_logged_and_the_real_rename_loses_nothing(backing: Path) -> None:
    def work(store: Store) -> object:
        kept = write_and_keep_open(DATA)(store)
        node = next(iter(store.tree.nodes.values()))
        assert node.staging is not None
        node.staging.log.path(b"elsewhere")
        return kept

    die_after(backing, work)
    with reopen(backing) as store:
        assert store.list_names() == [b"x"]
        assert read(store, b"x") == DATA


def test_a_kill_between_the_logged_and_the_real_unlink_loses_nothing(backing: Path) -> None:
    def work(store: Store) -> object:
        kept = write_and_keep_open(DATA)(store)
        node = next(iter(store.tree.nodes.values()))
        assert node.staging is not None
        node.staging.log.unlink()
        return kept

    die_after(backing, work)
    with reopen(backing) as store:
        assert read(store, b"x") == DATA


def test_an_unlinked_file_does_not_come_back(backing: Path) -> None:
    def work(store: Store) -> object:
        kept = write_and_keep_open(DATA)(store)
        store.unlink(b"x")
        return kept

    die_after(backing, work)
    with reopen(backing) as store:
        assert (store.recovered, store.list_names()) == (0, [])
    assert staged(backing) == []
    assert list((backing / ".qatqfs/lost+found").iterdir()) == []


def test_what_was_renamed_away_while_nobody_looked_goes_to_lost_and_found(backing: Path) -> None:
    die_after(backing, write_and_keep_open(DATA))
    (backing / "x.qatc").rename(backing / "moved-by-hand.qatc")
    with reopen(backing) as store:
        store.sync()
        assert store.list_names() == [b"moved-by-hand"]
    (found,) = (backing / ".qatqfs/lost+found").iterdir()
    assert decode_container(found.read_bytes()).raw == DATA
    assert staged(backing) == []


@pytest.mark.parametrize("change", ["unlink", "rename"])
def test_what_a_commit_has_put_in_place_is_not_lost_when_its_name_goes_before_the_entry_does(
    backing: Path, change: str
) -> None:
    def work(store: Store) -> None:
        with store.create(b"x") as handle:
            handle.write(DATA, 0)
            handle.fsync()

            def after_the_swap(path: bytes) -> None:
                if change == "unlink":
                    store.unlink(b"x")
                else:
                    store.rename(b"x", b"y")
                os.kill(os.getpid(), signal.SIGKILL)

            store.tree.fsync_parent = after_the_swap  # type: ignore[method-assign]
            store.sync()

    die_after(backing, work)
    with reopen(backing) as store:
        assert store.recovered == 0
        assert store.list_names() == ([] if change == "unlink" else [b"y"])
        if change == "rename":
            assert read(store, b"y") == DATA
    assert not list((backing / ".qatqfs" / "lost+found").iterdir())


def test_a_file_of_the_same_name_made_by_somebody_else_is_not_touched(backing: Path) -> None:
    die_after(backing, write_and_keep_open(DATA))
    foreign = backing / "foreign"
    shutil.copy(backing / "x.qatc", foreign)
    os.unlink(backing / "x.qatc")
    os.rename(foreign, backing / "x.qatc")
    before = (backing / "x.qatc").read_bytes()
    with reopen(backing) as store:
        store.sync()
    assert (backing / "x.qatc").read_bytes() == before
    (found,) = (backing / ".qatqfs/lost+found").iterdir()
    assert decode_container(found.read_bytes()).raw == DATA


@pytest.mark.parametrize("step", ["encoded", "intent", "renamed"])
def test_a_kill_at_any_step_of_a_commit_loses_nothing(backing: Path, step: str) -> None:
    from qatqfs.store.commit import metadata_copy

    def work(store: Store) -> object:
        kept = write_and_keep_open(DATA)(store)

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if step == "encoded":
            metadata_copy.copy_metadata = die
        elif step == "intent":
            os.rename = die
        else:
            store.tree.rekey = die  # type: ignore[method-assign]
        store.sync()
        return kept

    die_after(backing, work)
    with reopen(backing) as store:
        assert store.recovered == (0 if step == "renamed" else 1)
        assert read(store, b"x") == DATA
        store.sync()
    assert decode_container((backing / "x.qatc").read_bytes()).raw == DATA
    assert staged(backing) == []


def test_what_was_synced_survives_a_power_cut(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(store: Store) -> object:
        handle = store.create(b"x")
        handle.write(DATA, 0)
        handle.fsync()
        handle.write(b"not synced", len(DATA))
        return handle

    die_after(backing, work)
    reboot(monkeypatch)
    with reopen(backing) as store:
        assert read(store, b"x") == DATA
        store.sync()
        assert read(store, b"x") == DATA


def test_a_new_log_is_written_for_an_entry_of_an_earlier_boot(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(store: Store) -> object:
        handle = store.create(b"x")
        handle.write(DATA, 0)
        handle.fsync()
        return handle

    die_after(backing, work)
    reboot(monkeypatch)
    reopen(backing).close(commit=False)
    (log,) = (backing / ".qatqfs/staging").glob("*.log")
    state = staginglog.replay(log.read_bytes(), ANOTHER_BOOT)
    assert state.current_boot
    assert state.durable_size == len(DATA)
    with reopen(backing) as store:
        assert read(store, b"x") == DATA


def test_after_a_power_cut_an_unsynced_file_is_as_it_was_before(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reopen(backing) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
    die_after(backing, write_and_keep_open(b"never synced"))
    reboot(monkeypatch)
    with reopen(backing) as store:
        assert store.recovered == 0
        assert read(store, b"x") == DATA
    assert staged(backing) == []


def test_half_made_entries_are_swept_away(backing: Path) -> None:
    reopen(backing).close()
    staging = backing / ".qatqfs/staging"
    for name in ("a.data", "b.new", "c.log", "d.relog"):
        (staging / name).write_bytes(b"rubbish")
    with reopen(backing) as store:
        assert store.recovered == 0
    assert staged(backing) == []


def test_a_read_only_store_says_how_many_files_wait_and_touches_nothing(backing: Path) -> None:
    die_after(backing, write_and_keep_open(DATA))
    before = staged(backing)
    with Store(backing, StoreOptions(read_only=True)) as store:
        assert store.recovered == 1
        assert read(store, b"x") == b""
    assert staged(backing) == before


def test_a_log_of_the_first_form_with_everything_copied_up_is_understood(backing: Path) -> None:
    with reopen(backing) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
    identity = Identity.of(os.open(backing / "x.qatc", os.O_RDONLY))
    staging = backing / ".qatqfs/staging"
    content = b"changed" + DATA[7:] + b"and longer" * CHUNK
    (staging / "e.data").write_bytes(content)
    log = staginglog.LogWriter(
        BackingIO(), Fd(os.open(staging / "e.log", os.O_RDWR | os.O_CREAT)), staginglog.current_boot_id()
    )
    log.base(staginglog.Base(identity, 2 * CHUNK))
    log.path(b"x")
    log.valid(0, -(-len(DATA) // (2 * CHUNK)))
    with reopen(backing) as store:
        assert read(store, b"x") == content
        store.sync()
    assert decode_container((backing / "x.qatc").read_bytes()).raw == content


@pytest.mark.parametrize("power", [False, True])
def test_a_log_that_grew_long_is_written_anew_by_a_sync_and_says_the_same(
    backing: Path, power: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(DATA)

    def work(store: Store) -> object:
        with store.create(b"x") as handle:
            handle.write(DATA, 0)
        store.sync()
        handle = store.open(b"x", os.O_RDWR)
        handle.truncate(2 * CHUNK + 5)
        handle.truncate(3 * CHUNK)
        store.rename(b"x", b"y")
        for i in range(100):
            handle.write(b"%d" % i, 10)
            handle.fsync()
        return handle

    content[2 * CHUNK + 5 :] = bytes(CHUNK - 5)
    content[10:12] = b"99"
    options = dataclasses.replace(OPTIONS, tuning=Tuning(long_log_bytes=1000))
    die_after(backing, work, options)
    (log,) = (backing / ".qatqfs/staging").glob("*.log")
    assert log.stat().st_size < 2000
    if power:
        reboot(monkeypatch)
    with reopen(backing) as store:
        assert read(store, b"y") == content
        store.sync()
        assert read(store, b"y") == content


def test_a_committed_entry_whose_removal_failed_is_removed_later(backing: Path) -> None:
    io = FaultyIO()
    with Store(backing, OPTIONS, io=io) as store:
        handle = store.create(b"x")
        handle.write(DATA, 0)
        io.fail(5, "unlink", when=lambda args: args[1].endswith(b".log"))
        with pytest.raises(OSError, match="Input/output error"):
            store.sync()
        assert decode_container((backing / "x.qatc").read_bytes()).raw == DATA
        assert read(store, b"x") == DATA
        io.heal()
        store.sync()
        assert staged(backing) == []
        handle.close()


def test_what_a_cut_took_does_not_come_back_when_the_kill_came_before_its_record(backing: Path) -> None:
    with reopen(backing) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
    io = FaultyIO()
    store = Store(backing, OPTIONS, io=io)
    handle = store.open(b"x", os.O_RDWR)
    handle.write(b"x", 2 * CHUNK)
    io.after = lambda number, name, args: io.die() if name == "ftruncate" else None
    with pytest.raises(Killed):
        handle.truncate(10)
    abandon(store, io)
    for _ in range(2):  # the second time what the first recovery found has to be in the log
        io = FaultyIO()
        store = Store(backing, OPTIONS, io=io)
        assert read(store, b"x")[:10] == DATA[:10]
        handle = store.open(b"x", os.O_RDWR)
        handle.truncate(len(DATA))
        assert read(store, b"x") == DATA[:10].ljust(len(DATA), b"\0")
        abandon(store, io)


def test_a_committed_entry_is_removed_before_its_file_is_committed_again(backing: Path) -> None:
    io = FaultyIO()
    store = Store(backing, OPTIONS, io=io)
    handle = store.create(b"x")
    handle.write(DATA, 0)
    io.fail(5, "unlink", when=lambda args: args[1].endswith(b".log"))
    with pytest.raises(OSError, match="Input/output error"):
        store.sync()
    handle.write(b"again", 0)
    with pytest.raises(OSError, match="Input/output error"):
        store.sync()
    abandon(store, io)
    with reopen(backing) as store:
        assert read(store, b"x") == b"again" + DATA[5:]
        store.sync()
    assert list((backing / ".qatqfs/lost+found").iterdir()) == []
    assert staged(backing) == []
