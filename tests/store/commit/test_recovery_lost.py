"""What recovery moves to lost+found, and how it completes it."""

from pathlib import Path

import pytest
from dying import CHUNK, DATA, die_after, reopen
from helpers import read, reboot, staged, write_and_keep_open
from strict_decoder import decode_container

from qatqfs.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # threads are killed


def patched_and_left_behind(backing: Path) -> bytes:
    """A committed file of which one chunk was changed before the daemon died; returns its content."""
    with reopen(backing) as store, store.create(b"x") as handle:
        handle.write(DATA, 0)
    die_after(backing, write_and_keep_open(b"patch", 100))
    return DATA[:100] + b"patch" + DATA[105:]


def test_what_goes_to_lost_and_found_is_completed_with_a_container_that_was_moved(backing: Path) -> None:
    content = patched_and_left_behind(backing)
    (backing / "deep/er").mkdir(parents=True)
    (backing / "x.qatc").rename(backing / "deep/er/moved.qatc")
    with reopen(backing) as store:
        store.sync()
        assert read(store, b"deep/er/moved") == DATA
    (found,) = (backing / ".qatqfs/lost+found").iterdir()
    assert decode_container(found.read_bytes()).raw == content


def test_what_goes_to_lost_and_found_has_zeros_for_what_is_nowhere(
    backing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = patched_and_left_behind(backing)
    (backing / "x.qatc").unlink()
    with reopen(backing) as store:
        store.sync()
    (found,) = (backing / ".qatqfs/lost+found").iterdir()
    assert decode_container(found.read_bytes()).raw == content[:CHUNK].ljust(len(content), b"\0")
    assert "with zeros for what only that had" in caplog.text


def test_a_rename_that_got_to_the_disk_without_its_record_is_found(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(store: Store) -> object:
        handle = store.create(b"x")
        handle.write(DATA, 0)
        handle.fsync()
        return handle

    die_after(backing, work)
    (backing / "d").mkdir()
    (backing / "x.qatc").rename(backing / "d/y.qatc")
    reboot(monkeypatch)
    with reopen(backing) as store:
        assert read(store, b"d/y") == DATA
        store.sync()
    assert decode_container((backing / "d/y.qatc").read_bytes()).raw == DATA
    assert list((backing / ".qatqfs/lost+found").iterdir()) == []


def test_what_builds_on_a_container_that_cannot_be_read_waits_for_better_days(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = patched_and_left_behind(backing)

    def unreadable(*args: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("qatqfs.store.reading.container.pread_exact", unreadable)
        with reopen(backing) as store:
            assert store.recovered == 0
    assert [path.suffix for path in staged(backing)] == [".data", ".log"]
    with reopen(backing) as store:
        assert read(store, b"x") == content
