"""Every step of every operation, stopped by a kill and by a loss of power."""

import dataclasses
import errno
import os
from pathlib import Path
from unittest.mock import patch

import pytest
from crashes import (
    CHUNK,
    OPTIONS,
    History,
    Scenario,
    kill_everywhere,
    lose_power_everywhere,
    reboot_everywhere,
)
from helpers import noise

from qatqfs.store import Store
from qatqfs.store.commit import metadata_copy
from qatqfs.store.staging.log import EntryLog
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.calls import RENAME_EXCHANGE
from qatqfs.store.system.fd import Fd

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # threads are killed

OLD = noise(5 * CHUNK + 100, 1)
OTHER = noise(2 * CHUNK, 2)
NEW = noise(3 * CHUNK + 50, 3)
RAW_RULE = dataclasses.replace(OPTIONS, raw_patterns=("raw",))
POWER_SEEDS = int(os.environ.get("QATQFS_POWER_SEEDS", "3"))


def nothing(store: Store, history: History) -> None:
    pass


def old_file(store: Store, history: History) -> None:
    with store.create(b"x") as handle:
        handle.write(OLD, 0)
    history.start(b"x", OLD)


def two_files(store: Store, history: History) -> None:
    old_file(store, history)
    with store.create(b"y") as handle:
        handle.write(OTHER, 0)
    history.start(b"y", OTHER)


def dirty_file(store: Store, history: History) -> object:
    """A committed file with changes of several kinds that are synced but not committed."""
    old_file(store, history)
    store.sync()
    handle = store.open(b"x", os.O_RDWR)
    change(handle, history)
    handle.fsync()
    history.start(b"x", history.now(b"x"))
    return handle


def change(handle, history: History) -> None:
    history.write(handle, "x", noise(10, 4), CHUNK + 7)
    history.write(handle, "x", noise(2 * CHUNK, 5), 2 * CHUNK - 5)
    history.write(handle, "x", noise(CHUNK, 6), 4 * CHUNK)


def files_in_doubt(store: Store, history: History) -> object:
    """A file that was written to after it was synced, and a new one that never was."""
    kept = [dirty_file(store, history)]
    history.write(kept[0], "x", noise(CHUNK, 22), 7 * CHUNK)
    history.write(kept[0], "x", noise(20, 23), 5)
    kept.append(store.create(b"n"))
    kept[1].write(NEW, 0)
    history.start(b"n", b"")
    history.versions[b"n"].append(NEW)
    history.acknowledged[b"n"] = 1
    return kept


def create(store: Store, history: History) -> object:
    kept = []
    history.does(lambda: kept.append(store.create(b"n")), n=b"")
    history.makes_durable(kept[0].fsync, b"n")
    return kept


def write_new(store: Store, history: History) -> object:
    kept = []
    history.does(lambda: kept.append(store.create(b"n")), n=b"")
    history.write(kept[0], "n", NEW, 0)
    history.makes_durable(kept[0].fsync, b"n")
    history.write(kept[0], "n", noise(CHUNK, 7), len(NEW))
    return kept


def write_into(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    change(handle, history)
    history.makes_durable(handle.fsync, b"x")
    history.write(handle, "x", noise(3 * CHUNK, 8), 100)
    history.write(handle, "x", noise(CHUNK, 9), 5 * CHUNK + 50)
    return handle


def truncate(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    history.truncate(handle, "x", 3 * CHUNK + 10)
    history.truncate(handle, "x", 6 * CHUNK)
    history.makes_durable(handle.fsync, b"x")
    history.truncate(handle, "x", CHUNK - 1)
    history.write(handle, "x", noise(50, 10), CHUNK + 100)
    return handle


def empty_and_rewrite(store: Store, history: History) -> object:
    kept = []
    history.does(lambda: kept.append(store.open(b"x", os.O_RDWR | os.O_TRUNC)), x=b"")
    history.write(kept[0], "x", NEW, 0)
    history.makes_durable(kept[0].fsync, b"x")
    return kept


def rename(store: Store, history: History) -> None:
    history.does(lambda: store.rename(b"x", b"z"), x=None, z=OLD)
    history.makes_durable(lambda: store.fsync_directory(b""), b"x", b"z")


def rename_over(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    history.write(handle, "x", noise(2 * CHUNK, 11), 50)
    history.makes_durable(handle.fsync, b"x")
    history.does(lambda: store.rename(b"x", b"y"), x=None, y=history.now(b"x"))
    history.write(handle, "y", noise(10, 12), 0)
    history.makes_durable(handle.fsync, b"x", b"y")
    return handle


def exchange(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    history.write(handle, "x", noise(10, 13), 5)
    one, other = history.now(b"x"), history.now(b"y")
    history.does(lambda: store.rename(b"x", b"y", RENAME_EXCHANGE), x=other, y=one)
    return handle


def unlink(store: Store, history: History) -> None:
    history.does(lambda: store.unlink(b"x"), x=None)
    history.makes_durable(lambda: store.fsync_directory(b""), b"x")


def unlink_dirty(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    history.write(handle, "x", noise(10, 14), 5)
    history.makes_durable(handle.fsync, b"x")
    history.does(lambda: store.unlink(b"x"), x=None)
    written = b"nobody sees this"
    # Unless the power goes before the unlink is on the disk: then the block may be the new one.
    history.versions[b"x"].insert(-1, written + (history.versions[b"x"][-2] or b"")[len(written) :])
    history.acknowledged[b"x"] += 1
    handle.write(written, 0)
    return handle


def commit_new(store: Store, history: History) -> object:
    kept = []
    history.does(lambda: kept.append(store.create(b"n")), n=b"")
    history.write(kept[0], "n", NEW, 0)
    store.sync()
    history.makes_durable(kept[0].fsync, b"n")
    return kept


def commit_changes(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    change(handle, history)
    history.makes_durable(handle.fsync, b"x")
    store.sync()
    history.write(handle, "x", noise(10, 15), 2 * CHUNK)
    store.sync()
    return handle


def commit_while_writing(store: Store, history: History) -> object:
    """A commit during which a chunk is changed and another appended, and one more after that."""
    handle = store.open(b"x", os.O_RDWR)
    change(handle, history)
    history.makes_durable(handle.fsync, b"x")
    real = metadata_copy.copy_metadata

    def write_meanwhile(*args: object) -> None:
        metadata_copy.copy_metadata = real
        history.write(handle, "x", noise(20, 16), 3 * CHUNK + 1)
        history.write(handle, "x", noise(CHUNK, 17), 6 * CHUNK)
        real(*args)

    metadata_copy.copy_metadata = write_meanwhile
    try:
        store.sync()
    finally:
        metadata_copy.copy_metadata = real
    history.write(handle, "x", noise(30, 18), CHUNK - 10)
    history.makes_durable(handle.fsync, b"x")
    store.sync()
    return handle


def write_at_the_end_of_a_commit(store: Store, history: History) -> object:
    """A chunk is written when the commit has made the data file durable and has still to take its place."""
    handle = store.open(b"x", os.O_RDWR)
    change(handle, history)
    history.makes_durable(handle.fsync, b"x")
    real = EntryLog.fsync_data

    def then_write(log: EntryLog, data: Fd) -> None:
        EntryLog.fsync_data = real
        real(log, data)
        history.write(handle, "x", noise(CHUNK, 26), 0)  # which staging did not hold

    with patch.object(EntryLog, "fsync_data", then_write):
        store.sync()
    return handle


def sync_with_a_long_log(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    for number, long in enumerate((False, True, False)):  # the second writes the log anew
        history.write(handle, "x", noise(CHUNK + 5, 27 + number), number * CHUNK)
        with patch.object(EntryLog, "is_long", long):
            history.makes_durable(handle.fsync, b"x")
    return handle


def two_names(store: Store, history: History) -> None:
    old_file(store, history)
    store.link(b"x", b"y")
    history.start(b"y", OLD)


def link(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    history.write(handle, "x", noise(10, 19), 5)
    history.does(lambda: store.link(b"x", b"y"), y=history.now(b"x"))
    history.makes_durable(handle.fsync, b"x", b"y")
    store.sync()
    return handle


def commit_two_names(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    shrinks = noise(16, 20) * (2 * CHUNK // 16)  # so that everything after it moves in the container
    new = shrinks + OLD[len(shrinks) :]
    history.does(lambda: handle.write(shrinks, 0), x=new, y=new)
    history.makes_durable(handle.fsync, b"x", b"y")
    store.sync()
    return handle


def unlink_one_of_two(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    new = noise(10, 21) + OLD[10:]
    history.does(lambda: handle.write(new[:10], 0), x=new, y=new)
    history.makes_durable(handle.fsync, b"x", b"y")
    history.does(lambda: store.unlink(b"x"), x=None)
    store.sync()
    return handle


def sync_during_the_commit(store: Store, history: History) -> object:
    """A file that is new and not durable when its commit begins, and synced before it ends."""
    kept = []
    history.does(lambda: kept.append(store.create(b"n")), n=b"")
    history.write(kept[0], "n", NEW, 0)
    real = metadata_copy.copy_metadata

    def sync_meanwhile(*args: object) -> None:
        metadata_copy.copy_metadata = real
        real(*args)
        history.makes_durable(kept[0].fsync, b"n")

    metadata_copy.copy_metadata = sync_meanwhile
    try:
        store.sync()
    finally:
        metadata_copy.copy_metadata = real
    return kept


def commit_as_raw(store: Store, history: History) -> object:
    """What programs do: write under another name, rename, and only then it meets a rule."""
    handle = store.open(b"x", os.O_RDWR)
    history.write(handle, "x", noise(2 * CHUNK, 22), CHUNK + 7)
    history.makes_durable(handle.fsync, b"x")
    history.does(lambda: store.rename(b"x", b"raw"), x=None, raw=history.now(b"x"))
    history.makes_durable(handle.fsync, b"x", b"raw")
    history.makes_durable(store.sync, b"raw")
    history.write(handle, "raw", noise(10, 23), 5)
    return handle


def commit_new_as_raw(store: Store, history: History) -> object:
    kept = []
    history.does(lambda: kept.append(store.create(b"n")), n=b"")
    history.write(kept[0], "n", NEW, 0)
    history.does(lambda: store.rename(b"n", b"raw"), n=None, raw=NEW)
    history.makes_durable(kept[0].fsync, b"n", b"raw")
    store.sync()
    return kept


def write_during_a_sync_that_nobody_waits_for(store: Store, history: History) -> object:
    handle = store.open(b"x", os.O_RDWR)
    change(handle, history)
    real = EntryLog.fsync_data

    def write_meanwhile(log: EntryLog, data: Fd) -> None:
        EntryLog.fsync_data = real
        history.write(handle, "x", noise(CHUNK, 24), 6 * CHUNK)
        real(log, data)
        history.write(handle, "x", noise(20, 25), 5)

    EntryLog.fsync_data = write_meanwhile
    try:
        history.makes_durable(store.secure_staging, b"x")
    finally:
        EntryLog.fsync_data = real
    history.makes_durable(store.secure_staging, b"x")
    store.sync()
    return handle


def commit_during_a_sync_that_nobody_waits_for(store: Store, history: History) -> object:
    """A new file whose container takes its place between the two halves of what makes it durable."""
    kept = []
    history.does(lambda: kept.append(store.create(b"n")), n=b"")
    history.write(kept[0], "n", NEW, 0)
    io, real = store.tree.context.io, EntryLog.fsync_data

    def commit_meanwhile(log: EntryLog, data: Fd) -> None:
        EntryLog.fsync_data = real
        real(log, data)
        io.syncfs = lambda fd: None  # else the end of the commit would make it durable
        store.sync()
        del io.syncfs

    EntryLog.fsync_data = commit_meanwhile
    try:
        history.makes_durable(store.secure_staging, b"n")
    finally:
        EntryLog.fsync_data = real
    return kept


def recover(store: Store, history: History) -> None:
    store.sync()


SCENARIOS = [
    Scenario("create", nothing, create),
    Scenario("write a new file", nothing, write_new),
    Scenario("write into a file", old_file, write_into),
    Scenario("sync with a long log", old_file, sync_with_a_long_log),
    Scenario("truncate", old_file, truncate),
    Scenario("empty and rewrite", old_file, empty_and_rewrite),
    Scenario("rename", old_file, rename, one_of=(b"x", b"z"), kept=OLD),
    Scenario("rename over", two_files, rename_over, one_of=(b"x", b"y"), kept=OLD[-CHUNK:]),
    Scenario("exchange", two_files, exchange, one_of=(b"x", b"y"), kept=OLD[-CHUNK:]),
    Scenario("unlink", old_file, unlink),
    Scenario("unlink while dirty", old_file, unlink_dirty),
    Scenario("commit a new file", nothing, commit_new),
    Scenario("commit changes", old_file, commit_changes),
    Scenario("commit while writing", old_file, commit_while_writing),
    Scenario("write at the end of a commit", old_file, write_at_the_end_of_a_commit),
    Scenario("sync during the commit", nothing, sync_during_the_commit),
    Scenario("link and commit", old_file, link, one_of=(b"x", b"y")),
    Scenario("commit a file with two names", two_names, commit_two_names),
    Scenario("unlink one of two names and commit", two_names, unlink_one_of_two, kept=OLD[-CHUNK:]),
    Scenario("commit as raw", old_file, commit_as_raw, one_of=(b"x", b"raw"), options=RAW_RULE),
    Scenario("commit a new file as raw", nothing, commit_new_as_raw, one_of=(b"n", b"raw"), options=RAW_RULE),
    Scenario("write during a sync that nobody waits for", old_file, write_during_a_sync_that_nobody_waits_for),
    Scenario("commit during a sync that nobody waits for", nothing, commit_during_a_sync_that_nobody_waits_for),
    Scenario("recover and commit", dirty_file, recover, dirty=True),
    Scenario("recover what is in doubt", files_in_doubt, recover, dirty=True),
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "trial"
    path.mkdir()
    return path


def report(capsys: pytest.CaptureFixture, text: str) -> None:
    with capsys.disabled():
        print(f"\n  {text}", end=" ")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_kill_at_any_step_loses_nothing_acknowledged(scenario: Scenario, base: Path, capsys) -> None:
    points = kill_everywhere(scenario, base)
    report(capsys, f"{scenario.name}: killed at {points} points")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_kill_at_any_step_and_a_reboot_lose_nothing_acknowledged(
    scenario: Scenario, base: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = reboot_everywhere(scenario, base, monkeypatch)
    report(capsys, f"{scenario.name}: killed at {points} points, then another boot")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_a_loss_of_power_at_any_step_loses_nothing_synced(
    scenario: Scenario, base: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = lose_power_everywhere(scenario, base, POWER_SEEDS, monkeypatch)
    report(capsys, f"{scenario.name}: power lost at {points} points")


WITHOUT_LINKS = [Scenario("create", nothing, create), Scenario("write a new file", nothing, write_new)]


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """BACKING is on a filesystem without hard links."""

    def refuse(io: BackingIO, fd: Fd, directory: int, name: bytes) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(BackingIO, "link_open", refuse)


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("scenario", WITHOUT_LINKS, ids=lambda s: s.name)
def test_a_kill_loses_nothing_acknowledged_where_there_are_no_links(scenario: Scenario, base: Path, capsys) -> None:
    points = kill_everywhere(scenario, base)
    report(capsys, f"{scenario.name}: killed at {points} points")


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("scenario", WITHOUT_LINKS, ids=lambda s: s.name)
def test_a_loss_of_power_loses_nothing_synced_where_there_are_no_links(
    scenario: Scenario, base: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = lose_power_everywhere(scenario, base, POWER_SEEDS, monkeypatch)
    report(capsys, f"{scenario.name}: power lost at {points} points")
