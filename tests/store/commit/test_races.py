"""Races that once lost data, each played step by step."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faults import FaultyIO, abandon
from helpers import looks_ahead
from mounted import errno_of

from qatqfs.codec import ContainerWriter, DType, FileSink, encode_payload
from qatqfs.store import Store, StoreOptions
from qatqfs.store.commit import engine as commit
from qatqfs.store.names import node as node
from qatqfs.store.system.backing import BackingIO

NEVER_IDLE = StoreOptions(idle_seconds=3600.0)
OLD, NEW = b"old!" * 50_000, b"NEW!" * 50_000


def test_a_container_that_was_slow_to_open_does_not_come_back_over_a_newer_commit(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(backing, NEVER_IDLE) as store, store.create(b"x") as handle:
        handle.write(OLD, 0)
    opening, committed = threading.Event(), threading.Event()
    real = node.ContainerFile

    def slow(*arguments, **keywords):
        opened = real(*arguments, **keywords)
        if threading.current_thread().name == "late":
            opening.set()
            committed.wait(20)
        return opened

    monkeypatch.setattr(node, "ContainerFile", slow)
    with Store(backing, NEVER_IDLE) as store:
        handles = []
        late = threading.Thread(target=lambda: handles.append(store.open(b"x", os.O_RDWR)), name="late")
        late.start()
        assert opening.wait(20)
        with store.open(b"x", os.O_WRONLY | os.O_TRUNC) as writer:
            writer.write(NEW, 0)
        store.sync()
        committed.set()
        late.join(20)
        with handles[0] as handle:
            assert handle.read(len(NEW), 0) == NEW
            handle.write(b"##", 0)
    with Store(backing) as store, store.open(b"x") as handle:
        assert handle.read(len(NEW), 0) == b"##" + NEW[2:]


CONTENT = np.random.default_rng(5).bytes(4 << 20)
EDITED_AT = 3_500_000  # behind what is copied before the first interruption


class CutShort(BackingIO):
    """Copies half and dies or fails; or dies once so many redo files have got their name."""

    copying: Callable[[], None] | None = None
    redo_files_to_live = 1 << 30

    def copy_range(self, source, offset, target, target_offset, size):
        if self.copying is None:
            return super().copy_range(source, offset, target, target_offset, size)
        super().copy_range(source, offset, target, target_offset, size // 2)
        return self.copying()

    def rename(self, source_directory, source, directory, name, flags=0):
        super().rename(source_directory, source, directory, name, flags)
        if name.endswith(b".redo"):
            self.redo_files_to_live -= 1
            if not self.redo_files_to_live:
                os._exit(9)


def in_a_process(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(9)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("length", [10, 70_000])
@pytest.mark.parametrize("first_try", ["killed", "failed"])
def test_a_second_try_to_commit_a_file_of_two_names_keeps_what_the_first_left(
    backing: Path, first_try: str, length: int
) -> None:
    with Store(backing, NEVER_IDLE) as store:
        with store.create(b"a") as handle:
            handle.write(CONTENT, 0)
        store.sync()
        store.link(b"a", b"b")

    def fail() -> int:
        raise OSError(5, "EIO")

    def first() -> None:
        io = CutShort()
        store = Store(backing, NEVER_IDLE, io=io)
        handle = store.open(b"a", os.O_RDWR)
        io.copying = (lambda: os._exit(9)) if first_try == "killed" else fail
        io.redo_files_to_live = 2
        for _ in range(2):
            handle.write(b"X" * length, EDITED_AT)
            try:
                store.sync()
            except OSError:
                continue

    def second() -> None:
        io = CutShort()
        io.redo_files_to_live = 1
        Store(backing, NEVER_IDLE, io=io).sync()

    in_a_process(first)
    if first_try == "killed":
        in_a_process(second)
    expected = CONTENT[:EDITED_AT] + b"X" * length + CONTENT[EDITED_AT + length :]
    with Store(backing, NEVER_IDLE) as store:
        for name in (b"a", b"b"):
            with store.open(name) as handle:
                assert handle.read(len(expected), 0) == expected
    assert not list((backing / ".qatqfs" / "lost+found").iterdir())


def test_a_file_that_was_cut_in_chunks_of_an_odd_size_is_committed_when_it_is_written_anew(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(2).bytes(2002 * 5)
    with (backing / "x.f32.qatc").open("wb") as file:
        writer = ContainerWriter(FileSink(file), DType.BF16, 1001)
        for i in range(5):
            writer.append(encode_payload(values[i * 2002 : (i + 1) * 2002], DType.BF16, appendable=i == 4))
        writer.finish(len(values))
    content = np.random.default_rng(3).bytes(9 << 20)
    with Store(backing, NEVER_IDLE) as store:
        with store.open(b"x.f32", os.O_RDWR) as handle:
            handle.write(b"1", 0)
            handle.truncate(0)
            looked = looks_ahead(monkeypatch)
            for offset in range(0, len(content), 1 << 18):
                handle.write(content[offset : offset + (1 << 18)], offset)
            assert looked.acquire(timeout=20)
        store.sync()
        assert store.stats()["dirty_files"] == 0
        with store.open(b"x.f32") as handle:
            assert handle.read(len(content), 0) == content


def test_a_fault_of_ours_in_one_file_does_not_keep_others_from_being_committed(
    backing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qatqfs.store.encoding import plan as building

    class Faulty(building.StreamEncoder):
        def encode_one(self, chunk, *arguments, **settings):
            if bytes(chunk[:4]) == b"bad!":
                raise ZeroDivisionError("a bug")
            return super().encode_one(chunk, *arguments, **settings)

    with Store(backing, NEVER_IDLE) as store, store.create(b"a") as bad, store.create(b"b") as good:
        bad.write(b"bad!", 0)
        good.write(b"good", 0)
        with monkeypatch.context() as patch:
            patch.setattr(building, "StreamEncoder", Faulty)
            with pytest.raises(ZeroDivisionError):
                store.sync()
            assert store.stats()["dirty_files"] == 1
        assert bad.read(10, 0) == b"bad!"
        store.sync()
        assert store.stats()["dirty_files"] == 0


@pytest.mark.parametrize("failing", ["intent", "rename", "fsync_directory"])
@pytest.mark.parametrize("same", [False, True])
def test_what_is_written_after_a_failed_commit_of_a_file_of_two_names_survives_a_kill(
    backing: Path, failing: str, same: bool
) -> None:
    io = FaultyIO()
    options = StoreOptions(idle_seconds=3600.0, chunk_size=4096)
    store = Store(backing, options, io=io)
    content = CONTENT[:20_000]
    handle = store.create(b"a")
    handle.write(content, 0)
    store.sync()
    store.link(b"a", b"b")
    handle.write(content if same else content[::-1], 0)
    logged = []

    def fail(number: int, name: str, args: tuple) -> None:
        if name == "pwrite" and len(args[1]) == 92:  # an INTENT
            logged.append(number)
        if (failing == "intent" and len(logged) == (1 if same else 2)) or (logged and name == failing):
            raise OSError(5, "EIO")

    io.before = fail
    with pytest.raises(OSError, match="EIO"):
        store.sync()
    io.heal()
    handle.write(b"##", 5)  # into a chunk that staging held before
    expected = bytearray(content if same else content[::-1])
    expected[5:7] = b"##"
    abandon(store, io)
    with Store(backing, options) as again:
        for _ in range(2):
            for name in (b"a", b"b"):
                with again.open(name) as reader:
                    assert bytes(reader.read(len(expected) + 1, 0)) == expected
            again.sync()
    assert not list((backing / ".qatqfs" / "lost+found").iterdir())


@pytest.mark.parametrize("step", ["unlink", "fsync_directory", "pwrite", "fdatasync", "set_times"])
def test_a_commit_of_a_file_of_two_names_whose_staging_stays_behind_is_not_played_again(
    backing: Path, step: str
) -> None:
    options = StoreOptions(idle_seconds=3600.0, chunk_size=4096)
    for seed in range(6):  # recovery meets the entries in any order
        io = FaultyIO()
        store = Store(backing, options, io=io)
        name, other = b"a%d" % seed, b"b%d" % seed
        expected = bytearray(CONTENT[:20_000])
        handle = store.create(name)
        handle.write(expected, 0)
        store.sync()
        store.link(name, other)
        handle.write(b"first", 0)
        expected[:5] = b"first"
        copied = []

        def fail(number: int, kind: str, args: tuple, copied: list = copied, seed: int = seed) -> None:
            if kind == "copy_range":
                copied.append(kind)
            elif copied and kind == step:
                copied.append(kind)
                if (
                    kind != "pwrite" or len(copied) > 2 + seed % 2
                ):  # the first, or the second, record behind the copying
                    raise OSError(5, "EIO")

        io.before = fail
        is_done = step in ("pwrite", "fdatasync")  # that the entry is done with need not be recorded
        assert errno_of(store.sync) == (None if is_done else "EIO")
        assert copied[-1] == step
        io.heal()
        handle.write(b"second", 9000)
        expected[9000:9006] = b"second"
        abandon(store, io)
        with Store(backing, options) as again:
            for _ in range(2):
                for path in (name, other):
                    with again.open(path) as reader:
                        assert bytes(reader.read(len(expected) + 1, 0)) == expected
                again.sync()
        assert not list((backing / ".qatqfs/staging").iterdir())
        assert not list((backing / ".qatqfs/lost+found").iterdir())


@pytest.mark.parametrize("failing", ["pwrite", "corrupt"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_write_that_fails_during_a_commit_loses_nothing_of_what_was_there(
    backing: Path, monkeypatch: pytest.MonkeyPatch, failing: str, killed: bool
) -> None:
    options = StoreOptions(idle_seconds=3600.0, chunk_size=4096, workers=1)
    io = FaultyIO()
    store = Store(backing, options, io=io)
    expected = bytearray(CONTENT[:40_000])
    with store.create(b"x") as handle:
        handle.write(expected, 0)
    store.sync()
    if failing == "corrupt":
        stored = bytearray((backing / "x.qatc").read_bytes())
        stored[len(stored) * 55 // 100] ^= 1  # in the middle of the sixth of ten chunks
        (backing / "x.qatc").write_bytes(stored)
    handle = store.open(b"x", os.O_RDWR)
    handle.write(b"changed", 0)
    expected[:7] = b"changed"
    real = commit.copy_metadata

    def write_meanwhile(*args: object) -> None:
        monkeypatch.setattr(commit, "copy_metadata", real)
        real(*args)
        if failing == "pwrite":
            io.fail(28, "pwrite")
        with pytest.raises(OSError, match=r"No space|checksum"):
            handle.write(bytes(expected[4096 : 5 * 4096 + 100]), 4096)  # copies the sixth chunk up first
        io.heal()

    monkeypatch.setattr(commit, "copy_metadata", write_meanwhile)
    store.sync()
    good = 5 * 4096
    assert bytes(handle.read(good, 0)) == expected[:good]
    if killed:
        abandon(store, io)
        store = Store(backing, options)
    store.sync()
    with store.open(b"x") as reader:
        assert bytes(reader.read(good, 0)) == expected[:good]
        assert bytes(reader.read(len(expected), good + 4096)) == expected[good + 4096 :]
        if failing != "corrupt":
            assert bytes(reader.read(len(expected), 0)) == expected
    store.close()
