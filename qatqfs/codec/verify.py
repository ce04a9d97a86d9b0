"""Checks every byte of a container: structure, chunks, index and checksums. It always walks."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from qatqfs.codec.buffers import KEPT_BYTES, Buffer, as_bytes
from qatqfs.codec.checksum import FNV_OFFSET, fnv1a64
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    LENGTH_FIELD_SIZE,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import ChecksumMismatch, InvalidContainer, MixedDtypes, QatcError
from qatqfs.codec.fileaccess import TAIL_SIZE, ReadAt, read_exactly, reader_of
from qatqfs.codec.index_frame import IndexFrame, read_index, trailing_frame
from qatqfs.codec.layout import check_payload_length
from qatqfs.codec.limits import Limits
from qatqfs.codec.payload import PayloadHeader, decode_payload, read_payload_header

_LIKELY_RATIO = 8
"""Largest plausible ratio of claimed content to stored bytes. Tensors have less than two."""

Progress = Callable[[int], None]
"""Called with the number of bytes of the file checked since the last call."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a container.

    Attributes:
        chunk: number of the unreadable chunk, ``None`` if the whole container is concerned.
        offset: in the file, ``None`` if that is unknown.
        error: what is wrong.
        logical_offset: start of the chunk in the content, ``None`` if that is unknown.
    """

    chunk: int | None
    offset: int | None
    error: QatcError
    logical_offset: int | None = None


def verify_container(
    read_at: ReadAt, size: int, *, limits: Limits | None = None, progress: Progress | None = None
) -> Iterator[Problem]:
    """Walk a container, decode all of it, and yield what is wrong.

    The index is not used to find chunks, but is compared with the walk. Only after damage that the walk cannot pass
    does the index say where to continue. One chunk is in memory at a time.

    Args:
        read_at: ``read_at(offset, size)`` returns that part of the file.
        size: of the file, in bytes.
        limits: what to refuse although the format allows it.
        progress: see :data:`Progress`.

    Raises:
        OSError: what ``read_at`` raised.
    """
    return _Verifier(read_at, size, limits or Limits(), progress or _no_progress, None).run()


def decode_container(buf: Buffer, out: Buffer | None = None, *, limits: Limits | None = None) -> memoryview:
    """Decode a whole container in memory, and check all that :func:`verify_container` checks.

    Args:
        buf: the container.
        out: writable, at least as long as the content and its pad; ``None`` for fresh memory. If the header claims an
            implausible size, that memory grows with the decoded chunks. After an error its content is undefined.
        limits: what to refuse although the format allows it.

    Returns:
        The content without pad bytes; if ``out`` was given, its beginning.

    Raises:
        QatcError: the first thing that is wrong.
        ValueError: if ``out`` is read-only or too small.
    """
    view = as_bytes(buf)
    content = _content_for(view) if out is None else _ContentInto(out)
    verifier = _Verifier(reader_of(view), len(view), limits or Limits(), _no_progress, content)
    for problem in verifier.run():
        raise problem.error
    return content.result()


def _content_for(view: memoryview) -> "_Content":
    """Return where to put the content of a container: memory of the claimed size, if that is plausible."""
    with contextlib.suppress(QatcError):
        header = ContainerHeader.parse(view)
        size = header.total_values * read_payload_header(view[CONTAINER_HEADER_SIZE + LENGTH_FIELD_SIZE :]).dtype.width
        if size <= _LIKELY_RATIO * len(view):
            return _ContentInto(np.empty(size, np.uint8).data)
    return _Content()


class _Content:
    """Collects decoded chunks in memory that grows with them."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def place(self, size: int) -> Buffer | None:
        """Return memory for the ``size`` bytes of the next chunk, ``None`` if any memory will do."""
        return None

    def keep(self, raw: memoryview, size: int) -> None:
        """Keep the first ``size`` bytes of a verified chunk."""
        self._parts += raw[:size]

    def result(self) -> memoryview:
        """Return all that was kept."""
        return memoryview(self._parts)


class _ContentInto(_Content):
    """Lets chunks be decoded to their place in the caller's buffer."""

    def __init__(self, out: Buffer) -> None:
        super().__init__()
        self._out = as_bytes(out)
        self._size = 0

    def place(self, size: int) -> Buffer | None:
        return self._out[self._size : self._size + size]  # decoding refuses a slice that is too short

    def keep(self, raw: memoryview, size: int) -> None:
        self._size += size

    def result(self) -> memoryview:
        return self._out[: self._size]


def _no_progress(count: int) -> None:
    pass


class _Verifier:
    """One pass over one container."""

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        limits: Limits,
        progress: Progress,
        content: _Content | None,
    ) -> None:
        self._read_at = read_at
        self._size = size
        self._limits = limits
        self._progress = progress
        self._content = content
        self._offset = CONTAINER_HEADER_SIZE  # of the next length field
        self._values = 0  # in the chunks so far
        self._state = FNV_OFFSET
        self._state_before = FNV_OFFSET  # before the last chunk that was checked
        self._index: IndexFrame | None = None
        self._dtype: DType | None = None
        self._next_known = False  # whether the walk can continue after a refused chunk
        self._recycled = bytearray()

    def run(self) -> Iterator[Problem]:
        """Yield what is wrong; raises OSError."""
        try:
            header = self._open()
        except QatcError as err:
            yield Problem(None, 0, err)
            return
        self._progress(CONTAINER_HEADER_SIZE)
        sound = True
        for number in range(header.chunk_count):
            offset, values = self._offset, self._values
            try:
                self._check_chunk(number, number == header.chunk_count - 1, header)
            except QatcError as err:
                sound = False
                width = self._dtype.width if self._dtype is not None else 0
                yield Problem(number, offset, err, values * width if width or not values else None)
                if not self._recover(number, header):
                    return
            self._progress(self._offset - offset)
        if sound:
            yield from self._check_whole(header)

    def _open(self) -> ContainerHeader:
        head = read_exactly(self._read_at, 0, min(self._size, TAIL_SIZE))
        header = ContainerHeader.parse(head)
        self._limits.check(header, self._size)
        self._index = read_index(self._read_at, self._size, head, header)
        self._dtype = self._index.dtype if self._index else None
        return header

    def _check_chunk(self, number: int, is_last: bool, header: ContainerHeader) -> None:
        """Check the next chunk and move past it; raises QatcError, and ``_next_known`` is set then."""
        self._next_known = False
        offset = self._offset
        length = int.from_bytes(read_exactly(self._read_at, offset, LENGTH_FIELD_SIZE), "big")
        check_payload_length(offset, length, self._size, self._limits.max_payload_bytes)
        if self._index is not None and self._index.payload_lengths[number] != length:
            raise InvalidContainer(f"chunk {number} has another length than the index says")
        stored = read_exactly(self._read_at, offset, LENGTH_FIELD_SIZE + length)
        self._state_before = self._state
        self._state = fnv1a64(stored, self._state)
        payload = stored[LENGTH_FIELD_SIZE:]
        chunk = read_payload_header(payload)
        first_value = self._values
        self._offset += len(stored)
        self._values += chunk.count
        if self._values > header.total_values:
            raise InvalidContainer(f"chunk {number} has more values than the header says")
        self._next_known = True
        self._dtype = self._dtype or chunk.dtype
        if chunk.dtype is not self._dtype:
            raise MixedDtypes(self._dtype.label, chunk.dtype.label)
        if self._index is not None and self._values != self._value_after(number, header):
            raise InvalidContainer(f"chunk {number} has another number of values than the index says")
        if is_last:
            self._check_frame(payload, chunk, header.chunk_count)
        raw = decode_payload(payload, self._buffer(chunk), max_values=self._limits.max_chunk_values)
        size = len(raw)
        if is_last and self._index is not None:
            size = self._index.true_length - first_value * self._dtype.width
            if any(raw[size:]):
                raise InvalidContainer("a pad byte after the content is not zero")
        if self._content is not None:
            self._content.keep(raw, size)

    def _buffer(self, chunk: PayloadHeader) -> Buffer | None:
        """Return memory for a decoded chunk: its place in the content, or one buffer for all chunks."""
        if chunk.count > self._limits.max_chunk_values:
            return None  # decoding refuses it
        place = self._content.place(chunk.raw_size) if self._content is not None else None
        if place is not None:
            return place
        if chunk.raw_size > len(self._recycled):
            if chunk.raw_size > KEPT_BYTES:
                return None
            self._recycled = bytearray(chunk.raw_size)
        return self._recycled

    def _check_frame(self, payload: memoryview, chunk: PayloadHeader, chunk_count: int) -> None:
        frame = trailing_frame(payload, chunk, chunk_count)
        if frame != (len(payload) - IndexFrame.size(chunk_count) if self._index else None):
            raise InvalidContainer("the index frame in the last chunk is damaged")

    def _value_after(self, number: int, header: ContainerHeader) -> int:
        assert self._index is not None
        return min((number + 1) * self._index.values_per_chunk, header.total_values)

    def _recover(self, number: int, header: ContainerHeader) -> bool:
        """Move from a damaged chunk to the next one; return ``False`` if its place is unknown."""
        if self._index is None:
            return self._next_known
        lengths = self._index.payload_lengths[: number + 1]
        self._offset = CONTAINER_HEADER_SIZE + sum(lengths) + LENGTH_FIELD_SIZE * len(lengths)
        self._values = self._value_after(number, header)
        return True

    def _check_whole(self, header: ContainerHeader) -> Iterator[Problem]:
        if self._offset != self._size:
            left = self._size - self._offset
            yield Problem(None, self._offset, InvalidContainer(f"{left} bytes are left over after the last chunk"))
        if self._values != header.total_values:
            text = f"its chunks have {self._values} values, its header says {header.total_values}"
            yield Problem(None, 8, InvalidContainer(text))
        if self._state != header.checksum:
            yield Problem(None, 24, ChecksumMismatch(header.checksum, self._state))
        if self._index is not None and self._index.state_before_last != self._state_before:
            error = InvalidContainer("the index has another checksum state than the chunks before the last")
            yield Problem(None, None, error)
