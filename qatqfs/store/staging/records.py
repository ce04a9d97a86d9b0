"""The append-only log of a staging entry: what its data file means, record by record.

A record is a 36-byte head and a body::

    crc32 u32 | body length u32 | sequence u64 | boot id 16 bytes | type u8 | 3 zero bytes | body

All numbers are little-endian. The CRC covers everything after it. Sequences count up by one. Reading stops at the
first record that is cut, damaged or out of sequence. What follows was never acknowledged, or was torn by a loss of
power.

Which records are sure depends on the boot in which they were written. All records of the running boot are sure,
because killing the daemon loses nothing that write(2) handed to the kernel. Of an earlier boot, and of a damaged log,
only the records that the last SYNC covers are sure. PATH, INTENT and UNLINK always count, because recovery checks them
against the files that it finds. What the other records add up to is in doubt: it is true if the machine went down in
good order, and may be torn if it lost power. Nothing here can tell, so recovery keeps that content in lost+found.

A SYNC covers all records before it, or as many as it says. One that is written while the writer goes on covers the
records that were there when the data file began to be made durable.

Once the container that an INTENT names is in place, it has everything that earlier VALID and SIZE records describe, so
they count no more. Later ones say what the container does not have. If there are none, the entry is done with.

Between SYNCs, the logical size and mtime are the data file's own, because its inode survives the daemon. So the log
needs no record of each change. Punching holes into the data file moves its mtime; meanwhile a TIME record has the
logical one.

Times are nanoseconds since 1970, modulo 2^64. The earliest time that filesystems have is in December 1901.

Record bodies, by type:

========  ===========================================================================================
BASE      identity of the container this entry builds on (56 bytes), chunk size in bytes u64 (VALID's chunk_size)
VALID     first chunk u64, count u64: the data file has these chunks, or the base has nothing for them
SIZE      logical size u64, lowest size since the base u64: base content from there on is gone
PATH      logical path, a hint where to look for the base; empty: one of several names went, look everywhere
SYNC      logical size u64, mtime u64, and perhaps a count of records u64: the data file is durable as it was
          when there were so many records, or up to this one
TIME      mtime u64: the logical mtime, while the data file's own differs; empty: the data file's own is right again
INTENT    identity of the container that is about to replace the base
UNLINK    empty: the last name is about to be removed
DONE      empty: the container that the last INTENT names got its name, and has all of the content
========  ===========================================================================================
"""

import enum
import errno
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from qatqfs.store.staging.view import chunks_of
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd, Identity

OPEN_END = 1 << 62
"""Count of a VALID record that covers every chunk from its first one on."""
_HEAD = struct.Struct("<IIQ16sB3x")
_CRC_SIZE = 4
_BOOT_OFFSET = 16
_PAIR = struct.Struct("<QQ")
_TIME = struct.Struct("<Q")
_U64 = (1 << 64) - 1
_EARLIEST_NS = -(1 << 31) * 1_000_000_000
_BASE = struct.Struct(f"<{Identity.PACKED_SIZE}sQ")
_SYNC_COVERING = struct.Struct("<QQQ")
_MAX_BODY = 1 << 20
"""Bytes of the longest body that is written and read. A longer path is not logged, and recovery looks everywhere then.
System calls take paths of 4,096 bytes, but repeated mkdir and chdir lead deeper."""


class RecordType(enum.IntEnum):
    """The type byte of a log record."""

    BASE = 1
    VALID = 2
    SIZE = 3
    PATH = 4
    SYNC = 5
    INTENT = 6
    UNLINK = 7
    DONE = 8
    TIME = 9


_HINTS = (RecordType.PATH, RecordType.INTENT, RecordType.UNLINK)


@dataclass(frozen=True, slots=True)
class Base:
    """The BASE record: the container that an entry builds on, and the bytes of a chunk in VALID records."""

    identity: Identity
    chunk_size: int


@dataclass(slots=True)
class LogState:
    """What records add up to.

    Attributes:
        base: the container that the entry builds on, ``None`` when the log is not usable.
        valid: chunk ranges ``(first, stop)`` that the data file holds.
        low_size: lowest logical size since the base in bytes, ``None`` when it never shrank.
        durable_size: logical size at the last SYNC in bytes, ``None`` without one.
        durable_mtime_ns: mtime at the last SYNC in nanoseconds.
        kept_mtime_ns: the logical mtime in nanoseconds, if the data file's own differs.
        paths: path hints, oldest first.
        intents: identities of containers that were about to replace the base.
        unlinked: an UNLINK record counts.
        done: a DONE record counts, so the entry is not needed, whatever became of the file since.
        current_boot: every record was written in the running boot.
        damaged: intact records follow a damaged one, so some acknowledged records are lost.
        cut_short: something that is no intact record follows the last one.
        doubtful: records count that are not sure.
        next_sequence: sequence number of the next record to append.
        good_length: bytes of the log up to the end of the last intact record.
    """

    base: Base | None = None
    valid: list[tuple[int, int]] = field(default_factory=list)
    low_size: int | None = None
    durable_size: int | None = None
    durable_mtime_ns: int = 0
    kept_mtime_ns: int | None = None
    _lows: list[int] = field(default_factory=list)
    _marks: list[tuple[int, int]] = field(default_factory=list)  # entries of valid and _lows before each INTENT
    paths: list[bytes] = field(default_factory=list)
    intents: list[Identity] = field(default_factory=list)
    unlinked: bool = False
    done: bool = False
    current_boot: bool = True
    damaged: bool = False
    cut_short: bool = False
    doubtful: bool = False
    next_sequence: int = 0
    good_length: int = 0

    @property
    def is_sure(self) -> bool:
        """Whether every record counts, whether or not a SYNC covers it."""
        return self.current_boot and not self.damaged

    def since(self, intent: int) -> tuple[list[tuple[int, int]], int | None]:
        """Return the VALID ranges and the lowest size that count over one container.

        Args:
            intent: 0 for the base, n for the container of the n-th INTENT.
        """
        valid_before, lows_before = self._marks[intent - 1] if intent else (0, 0)
        return self.valid[valid_before:], min(self._lows[lows_before:], default=None)

    def is_self_contained(self, size: int, intent: int = 0) -> bool:
        """Whether the data file has all of the content, so that no container is needed.

        Args:
            size: of the data file in bytes.
            intent: which container, as for :meth:`since`.
        """
        valid, low = self.since(intent)
        if self.base is None or not any(stop >= OPEN_END for _, stop in valid):
            return True  # a log of the first form: everything was copied up before anything was written
        reached = 0
        for first, stop in sorted(valid):
            if first > reached:
                break
            reached = max(reached, stop)
        return reached >= chunks_of(min(size, low if low is not None else size), self.base.chunk_size)


@dataclass(frozen=True, slots=True)
class _Record:
    sequence: int
    type: RecordType
    boot: bytes
    body: bytes
    end: int


def current_boot_id() -> bytes:
    """Return the 16 bytes that name this boot of the machine (random(4))."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


class LogWriter:
    """Appends records to an open log file. The caller serializes calls. Every method that appends raises OSError.

    Args:
        io: makes the changes.
        fd: the log, writable.
        boot_id: 16 bytes from :func:`current_boot_id`.
        sequence: number of the first record written.
        offset: where that record goes, in bytes.
    """

    def __init__(self, io: BackingIO, fd: Fd, boot_id: bytes, *, sequence: int = 0, offset: int = 0) -> None:
        self._io = io
        self._fd = fd
        self._boot_id = boot_id
        self._sequence = sequence
        self._offset = offset

    @property
    def length(self) -> int:
        """Bytes of the log so far."""
        return self._offset

    @property
    def count(self) -> int:
        """Records so far."""
        return self._sequence

    def _append(self, kind: RecordType, body: bytes) -> None:
        if len(body) > _MAX_BODY:  # reading the log would stop here, and lose what follows
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        rest = _HEAD.pack(0, len(body), self._sequence, self._boot_id, kind)[_CRC_SIZE:] + body
        record = struct.pack("<I", zlib.crc32(rest)) + rest
        # One small pwrite at a fixed offset: the next record overwrites a failed or short one.
        if self._io.pwrite(self._fd, record, self._offset) != len(record):
            self._io.ftruncate(self._fd, self._offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # only a full disk cuts a small write
        self._offset += len(record)
        self._sequence += 1

    def base(self, base: Base) -> None:
        """Log the container that the entry builds on."""
        self._append(RecordType.BASE, _BASE.pack(base.identity.pack(), base.chunk_size))

    def valid(self, first: int, count: int) -> None:
        """Log that the data file has ``count`` chunks from ``first`` on."""
        self._append(RecordType.VALID, _PAIR.pack(first, count))

    def size(self, size: int, low: int) -> None:
        """Log the logical size and the lowest one since the base, in bytes."""
        self._append(RecordType.SIZE, _PAIR.pack(size, low))

    def path(self, path: bytes) -> None:
        """Log where the base is or is about to be; a path too long for a record is logged as anywhere."""
        self._append(RecordType.PATH, path if len(path) <= _MAX_BODY else b"")

    def sync(self, size: int, mtime_ns: int) -> None:
        """Log that the data file is durable as it is. The caller makes the log durable afterwards."""
        self._append(RecordType.SYNC, _PAIR.pack(size, mtime_ns & _U64))

    def sync_covering(self, size: int, mtime_ns: int, records: int) -> None:
        """As :meth:`sync`, for the data file as it was when the log had so many records."""
        self._append(RecordType.SYNC, _SYNC_COVERING.pack(size, mtime_ns & _U64, records))

    def time(self, mtime_ns: int | None) -> None:
        """Log the logical mtime while the data file's own differs; ``None``: the data file's own is right again."""
        self._append(RecordType.TIME, b"" if mtime_ns is None else _TIME.pack(mtime_ns & _U64))

    def intent(self, identity: Identity) -> None:
        """Log the container that is about to replace the base."""
        self._append(RecordType.INTENT, identity.pack())

    def unlink(self) -> None:
        """Log that the last name is about to be removed."""
        self._append(RecordType.UNLINK, b"")

    def done(self) -> None:
        """Log that the container of the last INTENT got its name."""
        self._append(RecordType.DONE, b"")


def _time_ns(stored: int) -> int:
    return stored if stored - (1 << 64) < _EARLIEST_NS else stored - (1 << 64)


class SilentWriter(LogWriter):
    """Appends nothing. The log of an entry in doubt stays as it was found, until its content is in lost+found."""

    def _append(self, kind: RecordType, body: bytes) -> None:
        pass


def _record_at(data: bytes, pos: int) -> _Record | None:
    """Read the record at a position, ``None`` if it is cut or damaged."""
    if pos + _HEAD.size > len(data):
        return None
    crc, length, sequence, boot, kind = _HEAD.unpack_from(data, pos)
    end = pos + _HEAD.size + length
    if length > _MAX_BODY or end > len(data) or kind not in RecordType.__members__.values():
        return None
    if zlib.crc32(data[pos + _CRC_SIZE : end]) != crc:
        return None
    return _Record(sequence, RecordType(kind), boot, data[pos + _HEAD.size : end], end)


def _records(data: bytes) -> list[_Record]:
    records: list[_Record] = []
    pos = 0
    while (record := _record_at(data, pos)) is not None and record.sequence == len(records):
        records.append(record)
        pos = record.end
    return records


def _goes_on(data: bytes, records: list[_Record]) -> bool:
    """Whether intact records lie somewhere after those that could be read in sequence."""
    if not records:
        return False
    boot = records[-1].boot
    at = data.find(boot, records[-1].end)
    while at >= 0:
        record = _record_at(data, at - _BOOT_OFFSET)
        if record is not None and record.sequence >= len(records):
            return True
        at = data.find(boot, at + 1)
    return False


def _covered(records: list[_Record]) -> tuple[int, _Record | None]:
    """Return how many records a SYNC covers, and the last SYNC that covers as many."""
    most, last = 0, None
    for number, record in enumerate(records):
        if record.type is RecordType.SYNC:
            covers = number + 1
            if len(record.body) == _SYNC_COVERING.size:
                covers = min(covers, _SYNC_COVERING.unpack(record.body)[2])
            if covers >= most:
                most, last = covers, record
    return most, last


def replay(data: bytes, boot_id: bytes, *, doubtful: bool = False) -> LogState:
    """Work out what a log says after the daemon or the machine went down.

    Args:
        data: the whole log file.
        boot_id: the running boot's, from :func:`current_boot_id`.
        doubtful: count records that are not sure, too.

    Returns:
        The state. Its ``base`` is ``None`` when nothing in the log counts. Damaged logs raise nothing.
    """
    records = _records(data)
    good_length = records[-1].end if records else 0

    def unusable() -> LogState:
        return LogState(
            next_sequence=len(records),
            good_length=good_length,
            current_boot=all(record.boot == boot_id for record in records),
            damaged=_goes_on(data, records),
            cut_short=good_length < len(data),
        )

    state = unusable()
    state.doubtful = doubtful and not state.is_sure
    # Recovery writes a new log for an entry of an earlier boot, so no log mixes boots.
    covered, sync = _covered(records)
    counted = len(records) if state.doubtful or state.is_sure else covered
    try:
        for number, record in enumerate(records):
            if number < counted or record.type in _HINTS:
                _apply(state, record)
        if sync is not None:  # once more, because the last SYNC in the log may cover fewer records
            _apply(state, sync)
    except (struct.error, ValueError):
        return unusable()
    return state


def _apply(state: LogState, record: _Record) -> None:
    body = record.body
    if record.type is RecordType.BASE:
        packed, chunk_size = _BASE.unpack(body)
        state.base = Base(Identity.unpack(packed), chunk_size)
    elif record.type is RecordType.VALID:
        first, count = _PAIR.unpack(body)
        state.valid.append((first, first + count))
    elif record.type is RecordType.SIZE:
        _, low = _PAIR.unpack(body)
        state._lows.append(low)
        state.low_size = min(state._lows)
    elif record.type is RecordType.PATH:
        state.paths.append(body)
    elif record.type is RecordType.SYNC:
        state.durable_size, mtime = _PAIR.unpack(body[: _PAIR.size])
        state.durable_mtime_ns = _time_ns(mtime)
    elif record.type is RecordType.TIME:
        state.kept_mtime_ns = _time_ns(*_TIME.unpack(body)) if body else None
    elif record.type is RecordType.INTENT:
        state.intents.append(Identity.unpack(body))
        state._marks.append((len(state.valid), len(state._lows)))
    elif record.type is RecordType.UNLINK:
        state.unlinked = True
    elif record.type is RecordType.DONE:
        state.done = True
