"""What a draft asks of the disk while it grows."""

import errno
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from strict_decoder import decode_container

from qatqfs.codec import DType, Level, encode_payload
from qatqfs.store.staging import draftfile
from qatqfs.store.staging.draft import Draft
from qatqfs.store.system.backing import BackingIO, Buffer
from qatqfs.store.system.files import Fd

PAGE = 4096
UNIT = 8192


class Disk(BackingIO):
    """Notes the writes of several buffers."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, int, bool]] = []
        self.most = 1 << 30  # bytes that one call writes
        self.error: int | None = None

    def pwritev(self, fd: Fd, buffers: Sequence[Buffer], offset: int, *, uncached: bool = False) -> int:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        left = self.most
        some = []
        for buffer in buffers:
            some.append(memoryview(buffer)[:left])
            left -= len(some[-1])
        done = super().pwritev(fd, some, offset, uncached=uncached)
        self.writes.append((offset, done, uncached))
        return done


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def disk_waiter() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def draft_in(path: Path, disk: Disk, disk_waiter: Executor, grown: list[int]) -> Draft:
    area: Any = SimpleNamespace(
        io=disk,
        open_new=lambda name: Fd(os.open(path / os.fsdecode(name), os.O_RDWR | os.O_CREAT)),
        abandon=lambda name, fd: None,
    )
    return Draft(area, b"e", DType.BF16, UNIT, Level.FAST, grown.append, disk_waiter)


def content(chunks: int) -> list[bytes]:
    rng = random.Random(chunks)
    return [rng.randbytes(UNIT) for _ in range(chunks)]


def payloads(raws: list[bytes], *, last: bool) -> list[bytes]:
    return [encode_payload(raw, DType.BF16, appendable=last and raw is raws[-1]) for raw in raws]


def test_a_change_of_a_chunk_that_was_claimed_makes_it_stale(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    draft = draft_in(tmp_path, disk, disk_waiter, [])
    draft.claimed = 5
    draft.note_change(5, 9)
    assert draft.stale == set()
    draft.note_change(4, 5)
    assert draft.stale == {4}
    draft.note_change(2, 9)
    assert draft.stale == {2, 3, 4}


def test_no_page_is_written_twice_while_chunks_come(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    grown: list[int] = []
    draft, raws = draft_in(tmp_path, disk, disk_waiter, grown), content(40)
    made = payloads(raws, last=True)
    header = len(disk.writes)
    for first in range(0, 40, 4):
        draft.append(made[first : first + 4])
        assert grown[-1] == draft.size == os.fstat(draft.fd.number).st_size
    writes = disk.writes[header:]
    assert all((offset + size) % PAGE == 0 for offset, size, _ in writes)
    assert all(offset % PAGE == 0 for offset, _, _ in writes[1:])
    draft.finish(len(raws) * UNIT)
    assert decode_container((tmp_path / os.fsdecode(draft.name)).read_bytes()).raw == b"".join(raws)


def test_what_is_held_back_is_in_the_file_once_it_is_settled(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    draft, raws = draft_in(tmp_path, disk, disk_waiter, []), content(9)
    made = payloads(raws, last=False)
    draft.append(made)
    draft.flush()
    assert [draft.payload(chunk) for chunk in range(9)] == made


@pytest.mark.parametrize("back_to", [0, 1, 5, 8])
def test_a_draft_goes_on_anew_from_any_chunk(tmp_path: Path, disk: Disk, disk_waiter: Executor, back_to: int) -> None:
    draft, raws = draft_in(tmp_path, disk, disk_waiter, []), content(9)
    draft.append(payloads(raws, last=False))
    draft.rewind(back_to)
    other = raws[:back_to] + content(12)[: 11 - back_to]
    draft.append(payloads(other, last=True)[back_to:])
    draft.finish(len(other) * UNIT)
    assert decode_container((tmp_path / os.fsdecode(draft.name)).read_bytes()).raw == b"".join(other)


def test_a_draft_begins_like_another_whose_last_page_is_held_back(
    tmp_path: Path, disk: Disk, disk_waiter: Executor
) -> None:
    old, raws = draft_in(tmp_path, disk, disk_waiter, []), content(9)
    made = payloads(raws, last=True)
    old.append(made)
    old.flush()
    new = draft_in(tmp_path, disk, disk_waiter, [])
    new.take_prefix(*old.prefix(7))
    new.append(made[7:])
    new.finish(len(raws) * UNIT)
    assert decode_container((tmp_path / os.fsdecode(new.name)).read_bytes()).raw == b"".join(raws)


def test_only_what_is_beyond_much_leaves_the_page_cache(
    tmp_path: Path, disk: Disk, disk_waiter: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draftfile, "_CACHED_BYTES", 10 * UNIT)
    draft, raws = draft_in(tmp_path, disk, disk_waiter, []), content(40)
    for payload in payloads(raws, last=True):
        draft.append([payload])
    draft.finish(len(raws) * UNIT)
    assert {uncached for _, _, uncached in disk.writes} == {False, True}
    assert all(uncached is (offset >= 10 * UNIT) for offset, _, uncached in disk.writes)
    assert decode_container((tmp_path / os.fsdecode(draft.name)).read_bytes()).raw == b"".join(raws)


@pytest.mark.parametrize("most", [1, 17, 4096, 20_000])
def test_what_a_short_write_leaves_is_written_behind_it(
    tmp_path: Path, disk: Disk, disk_waiter: Executor, most: int
) -> None:
    disk.most = most
    draft, raws = draft_in(tmp_path, disk, disk_waiter, []), content(30)
    made = payloads(raws, last=True)
    for first in range(0, 20, 5):
        draft.append(made[first : first + 5])
    draft.rewind(13)
    draft.append(made[13:30])
    draft.finish(len(raws) * UNIT)
    assert decode_container((tmp_path / os.fsdecode(draft.name)).read_bytes()).raw == b"".join(raws)


def test_after_an_error_nothing_more_is_written(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    draft, raws = draft_in(tmp_path, disk, disk_waiter, []), content(9)
    made = payloads(raws, last=True)
    draft.append(made[:4])
    disk.error = errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        draft.append(made[4:8])
    disk.error = None
    for more in (draft.flush, lambda: draft.finish(8 * UNIT), lambda: draft.append(made[8:])):
        with pytest.raises((OSError, ValueError), match="has failed"):
            more()


def test_no_chunks_are_nothing_to_append(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    draft = draft_in(tmp_path, disk, disk_waiter, [])
    draft.append([])
    assert draft.count == 0


def test_what_is_held_back_keeps_no_payload_alive(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    draft, raws = draft_in(tmp_path, disk, disk_waiter, []), content(3)
    draft.append(payloads(raws, last=False))
    held = draft._file._gathered
    assert sum(map(len, held)) < PAGE
    assert all(isinstance(buffer, bytes) for buffer in held)


def test_what_settling_writes_is_on_disk_and_not_reserved(tmp_path: Path, disk: Disk, disk_waiter: Executor) -> None:
    grown: list[int] = []
    draft = draft_in(tmp_path, disk, disk_waiter, grown)
    draft.append(payloads(content(3), last=False))
    before = grown[-1]
    draft.flush()
    assert grown[-1] == os.fstat(draft.fd.number).st_size > before
