import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qatqfs.store.staging.records import OPEN_END, Base, LogWriter, replay
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd, Identity

BOOT, OTHER_BOOT = b"B" * 16, b"O" * 16
IDENTITY = Identity(ino=7, btime_ns=12345, size=72, head=b"QATC".ljust(32, b"\1"))
NEXT_IDENTITY = Identity(ino=8, btime_ns=23456, size=999, head=b"QATC".ljust(32, b"\2"))


def log_bytes(tmp: Path, write, boot: bytes = BOOT) -> bytes:
    path = tmp / "log"
    fd = Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    write(LogWriter(BackingIO(), fd, boot))
    return path.read_bytes()


def everything(log: LogWriter) -> None:
    log.base(Base(IDENTITY, 4096))
    log.path(b"a/b")
    log.size(5000, 5000)
    log.valid(0, 2)
    log.sync(8000, 111)
    log.path(b"a/c")
    log.size(100, 100)
    log.intent(NEXT_IDENTITY)
    log.done()
    log.unlink()


def test_all_records_of_the_running_boot_count(tmp_path: Path) -> None:
    state = replay(log_bytes(tmp_path, everything), BOOT)
    assert state.base == Base(IDENTITY, 4096)
    assert state.valid == [(0, 2)]
    assert state.low_size == 100
    assert (state.durable_size, state.durable_mtime_ns) == (8000, 111)
    assert state.paths == [b"a/b", b"a/c"]
    assert state.intents == [NEXT_IDENTITY]
    assert state.unlinked
    assert state.done
    assert state.current_boot


def test_of_an_earlier_boot_only_what_the_last_sync_covers_counts(tmp_path: Path) -> None:
    state = replay(log_bytes(tmp_path, everything), OTHER_BOOT)
    assert state.low_size == 5000
    assert not state.done
    assert not state.current_boot


def test_intents_and_an_unlink_of_an_earlier_boot_count(tmp_path: Path) -> None:
    state = replay(log_bytes(tmp_path, everything), OTHER_BOOT)
    assert state.intents == [NEXT_IDENTITY]
    assert state.unlinked


def test_over_the_container_of_an_intent_only_what_follows_counts(tmp_path: Path) -> None:
    def write(log: LogWriter) -> None:
        log.base(Base(IDENTITY, 4096))
        log.valid(0, 2)
        log.size(5000, 100)
        log.intent(NEXT_IDENTITY)
        log.valid(7, 1)
        log.size(9000, 6000)

    state = replay(log_bytes(tmp_path, write), BOOT)
    assert state.since(0) == ([(0, 2), (7, 8)], 100)
    assert state.since(1) == ([(7, 8)], 6000)


def test_path_hints_of_an_earlier_boot_all_count(tmp_path: Path) -> None:
    assert replay(log_bytes(tmp_path, everything), OTHER_BOOT).paths == [b"a/b", b"a/c"]


def test_without_a_sync_nothing_of_an_earlier_boot_counts(tmp_path: Path) -> None:
    def unsynced(log: LogWriter) -> None:
        log.base(Base(IDENTITY, 4096))
        log.valid(0, 1)

    state = replay(log_bytes(tmp_path, unsynced), OTHER_BOOT)
    assert state.base is None
    assert state.valid == []


def test_a_sync_covers_as_many_records_as_it_says(tmp_path: Path) -> None:
    def write(log: LogWriter) -> None:
        log.base(Base(IDENTITY, 4096))
        log.valid(0, 1)
        log.valid(1, 1)
        log.sync_covering(5000, 7, 2)

    state = replay(log_bytes(tmp_path, write), OTHER_BOOT)
    assert state.valid == [(0, 1)]
    assert (state.durable_size, state.durable_mtime_ns) == (5000, 7)


def test_a_sync_of_less_that_comes_later_takes_nothing_back(tmp_path: Path) -> None:
    def write(log: LogWriter) -> None:
        log.base(Base(IDENTITY, 4096))
        log.valid(0, 1)
        log.sync(9000, 8)
        log.valid(1, 1)
        log.sync_covering(5000, 7, 1)

    state = replay(log_bytes(tmp_path, write), OTHER_BOOT)
    assert state.valid == [(0, 1)]
    assert (state.durable_size, state.durable_mtime_ns) == (9000, 8)


def test_what_is_in_doubt_counts_for_who_asks_for_it(tmp_path: Path) -> None:
    state = replay(log_bytes(tmp_path, everything), OTHER_BOOT, doubtful=True)
    assert (state.low_size, state.done, state.is_sure, state.doubtful) == (100, True, False, True)


def test_a_log_that_goes_on_behind_damage_is_damaged(tmp_path: Path) -> None:
    whole = log_bytes(tmp_path, everything)
    second = replay(whole[:150], BOOT).good_length
    broken = bytearray(whole)
    broken[second + 40] ^= 1
    state = replay(bytes(broken), BOOT)
    assert (state.good_length, state.damaged, state.is_sure) == (second, True, False)


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_log_whose_last_record_is_torn_is_not_damaged(tmp_path: Path, cut: int) -> None:
    state = replay(log_bytes(tmp_path, everything)[:-cut], BOOT)
    assert (state.damaged, state.cut_short, state.is_sure) == (False, cut != 36, True)


@given(st.lists(st.integers(0, 20_000), max_size=5), st.integers(0, (1 << 64) - 1), st.integers(-(1 << 31), 1 << 33))
def test_whatever_is_written_can_be_read(lengths: list[int], number: int, seconds: int) -> None:
    fd = Fd(os.memfd_create("log"))
    log = LogWriter(BackingIO(), fd, BOOT)
    log.base(Base(IDENTITY, 4096))
    for length in lengths:
        log.path(b"p" * length)
    log.valid(number, OPEN_END)
    log.sync(number, seconds * 10**9)
    log.sync_covering(number, seconds * 10**9, number)
    state = replay(os.pread(fd.number, 1 << 20, 0), BOOT)
    assert state.next_sequence == log.count == len(lengths) + 4
    assert state.paths == [b"p" * length for length in lengths]


def test_a_path_too_long_for_a_record_may_be_anywhere(tmp_path: Path) -> None:
    state = replay(log_bytes(tmp_path, lambda log: (log.base(Base(IDENTITY, 4096)), log.path(b"p" * (1 << 21)))), BOOT)
    assert state.paths == [b""]


def test_a_cut_log_counts_up_to_its_last_whole_record(tmp_path: Path) -> None:
    whole = log_bytes(tmp_path, everything)
    ends = {replay(whole[:cut], BOOT).good_length for cut in range(len(whole) + 1)}
    assert len(ends) == 11  # nothing, and after each of ten records
    for cut in range(len(whole) + 1):
        assert replay(whole[:cut], BOOT).good_length <= cut


@given(st.data())
def test_a_flipped_bit_ends_the_log_before_it(data: st.DataObject) -> None:
    fd = Fd(os.memfd_create("log"))
    everything(LogWriter(BackingIO(), fd, BOOT))
    whole = bytearray(os.pread(fd.number, 1 << 16, 0))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    assert replay(bytes(whole), BOOT).good_length <= at


@given(st.binary(max_size=300))
def test_rubbish_is_an_empty_log(rubbish: bytes) -> None:
    assert replay(rubbish, BOOT).base is None


def test_appending_goes_on_behind_the_last_good_record(tmp_path: Path) -> None:
    torn = log_bytes(tmp_path, everything)[:-10]
    state = replay(torn, BOOT)
    path = tmp_path / "again"
    path.write_bytes(torn)
    fd = Fd(os.open(path, os.O_RDWR))
    LogWriter(BackingIO(), fd, BOOT, sequence=state.next_sequence, offset=state.good_length).path(b"new")
    assert replay(path.read_bytes(), BOOT).paths == [b"a/b", b"a/c", b"new"]


def test_coverage_needs_every_chunk(tmp_path: Path) -> None:
    def write(log: LogWriter) -> None:
        log.base(Base(IDENTITY, 4096))
        log.valid(3, 2)
        log.valid(0, 2)
        log.valid(9, OPEN_END)

    state = replay(log_bytes(tmp_path, write), BOOT)
    assert state.is_self_contained(2 * 4096)
    assert not state.is_self_contained(2 * 4096 + 1)
