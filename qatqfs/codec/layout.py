"""Where the chunks of a container are: known at once from its index, or found chunk by chunk.

A container without a valid index is walked to its end when it is opened. A walk only as far as is read would cost less.
But no checksum covers the header, so a total that is wrong by whole chunks would show a shorter file without any
error.
"""

import array
import copy
import struct
from bisect import bisect_right
from typing import Protocol

import numpy as np

from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    LENGTH_FIELD_SIZE,
    MIN_CHUNK_SIZE,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidContainer, LimitExceeded, MixedDtypes, QatcError, without_frames
from qatqfs.codec.fileaccess import ReadAt, read_exactly
from qatqfs.codec.index_frame import IndexFrame
from qatqfs.codec.payload import EXACT_HEADER_SIZE, MAX_VALUES, payload_head, read_payload_header
from qatqfs.codec.strategies import STRATEGIES

_CHUNK_HEAD = struct.Struct(">I8sQ4s8x5s3s")
"""A length field and the parts of what :func:`payload_head` makes. Only the length and the count vary freely."""
_WINDOW_BYTES = 256 * 1024
_SMALL_CHUNK_BYTES = 16 * 1024
"""Chunks below this size share a window with the headers of many others."""


def _usual_heads(dtype: DType) -> frozenset[tuple[bytes, bytes, bytes, bytes]]:
    """Return the constant parts of the heads of common payloads of a dtype."""
    heads = (payload_head(one.id, 1.0, 0, dtype, 0) for one in STRATEGIES.values() if dtype in one.dtypes)
    parts = (_CHUNK_HEAD.unpack(bytes(LENGTH_FIELD_SIZE) + head) for head in heads)
    return frozenset((fixed, scale, body, wire) for _, fixed, _, scale, body, wire in parts)


_USUAL_HEADS = {dtype: _usual_heads(dtype) for dtype in DType}


def check_payload_length(offset: int, length: int, size: int, max_payload_bytes: int) -> None:
    """Check the length field at ``offset`` of a container of ``size`` bytes.

    Raises:
        InvalidContainer: if no payload is so short, or the file ends before the payload.
        LimitExceeded: above ``max_payload_bytes``.
    """
    if length < EXACT_HEADER_SIZE:
        raise InvalidContainer(f"a payload of {length} bytes at offset {offset} is too short")
    if length > max_payload_bytes:
        raise LimitExceeded("bytes in a payload", length, max_payload_bytes)
    if offset + LENGTH_FIELD_SIZE + length > size:
        raise InvalidContainer(f"the payload of {length} bytes at offset {offset} is cut off")


class CountMismatch(InvalidContainer):
    """The counts in the header contradict the chunks, so even the length of the content is not certain."""


class Layout(Protocol):
    """Finds chunks. Safe for any number of threads. All methods may raise QatcError."""

    def place(self, chunk: int) -> tuple[int, int]:
        """Return the offset of the chunk's length field and the bytes of its payload."""

    def values(self, chunk: int) -> tuple[int, int]:
        """Return the first value of the chunk and the one after its last."""

    def locate(self, value: int) -> int:
        """Return the chunk that holds a value."""


class IndexedLayout:
    """A layout from an index.

    Args:
        index: one that was found valid.
        total_values: of the container.
    """

    def __init__(self, index: IndexFrame, total_values: int) -> None:
        self._lengths = index.payload_lengths
        self._per_chunk = index.values_per_chunk
        self._total = total_values
        sizes = np.asarray(index.payload_lengths, np.uint64) + np.uint64(LENGTH_FIELD_SIZE)
        starts = np.cumsum(sizes) - sizes + np.uint64(CONTAINER_HEADER_SIZE)
        self._starts = array.array("Q", starts.astype(np.uint64).tobytes())

    def place(self, chunk: int) -> tuple[int, int]:
        """Return the offset of the chunk's length field and the bytes of its payload."""
        return self._starts[chunk], self._lengths[chunk]

    def values(self, chunk: int) -> tuple[int, int]:
        """Return the first value of the chunk and the one after its last."""
        first = chunk * self._per_chunk
        return first, min(first + self._per_chunk, self._total)

    def locate(self, value: int) -> int:
        """Return the chunk that holds a value."""
        return value // self._per_chunk


class _Window:
    """A part of a file that moves along with the walk, and in which headers are found.

    Args:
        read_at: reads the file.
        size: of the file, in bytes.
        head: the beginning of the file, as far as it has been read.
    """

    def __init__(self, read_at: ReadAt, size: int, head: memoryview) -> None:
        self._read_at = read_at
        self._size = size
        self._start = 0
        self._part = head

    def at(self, offset: int) -> tuple[memoryview, int]:
        """Return bytes of the file, and where in them the head of the chunk at an offset starts."""
        at = offset - self._start
        if at + MIN_CHUNK_SIZE > len(self._part):
            near = offset - self._start - len(self._part) < _SMALL_CHUNK_BYTES
            wanted = min(_WINDOW_BYTES, self._size - offset) if near else MIN_CHUNK_SIZE
            self._part = read_exactly(self._read_at, offset, wanted)
            self._start, at = offset, 0
        return self._part, at


class WalkedLayout:
    """A layout that is found by reading every chunk header once. After that it does not need the file.

    Chunks may have any number of values, also none. If the walk meets damage that it cannot pass, that chunk and all
    after it are unreadable. Those before it stay readable.

    Args:
        read_at: reads the container.
        size: of the container, in bytes.
        head: its first bytes.
        dtype: of its first chunk.
        max_payload_bytes: the longest payload to accept.

    Raises:
        CountMismatch: if the headers of the chunks are valid, but contradict the header of the container.
        OSError: what reading the file raised.
    """

    def __init__(self, read_at: ReadAt, size: int, head: memoryview, dtype: DType, max_payload_bytes: int) -> None:
        header = ContainerHeader.parse(head)
        self._header = header
        self._dtype = dtype
        self._size = size
        self._max_payload_bytes = max_payload_bytes
        self._usual = _USUAL_HEADS[dtype]
        self._window = _Window(read_at, size, head)
        self._starts = array.array("Q", [CONTAINER_HEADER_SIZE])  # of each chunk, and of what follows the last
        self._first_values = array.array("Q", [0])
        self._failure: QatcError | None = None
        try:
            while len(self._starts) <= header.chunk_count:
                self._step()
        except CountMismatch:
            raise
        except QatcError as err:  # raised for each chunk from here on
            self._failure = without_frames(err)
        del self._window

    @property
    def sound(self) -> bool:
        """Whether the walk met no damage."""
        return self._failure is None

    @property
    def memory_bytes(self) -> int:
        """Memory that this layout uses."""
        return self._starts.itemsize * len(self._starts) + self._first_values.itemsize * len(self._first_values)

    def place(self, chunk: int) -> tuple[int, int]:
        """Return the offset of the chunk's length field and the bytes of its payload."""
        self._check(chunk)
        start = self._starts[chunk]
        return start, self._starts[chunk + 1] - start - LENGTH_FIELD_SIZE

    def values(self, chunk: int) -> tuple[int, int]:
        """Return the first value of the chunk and the one after its last."""
        self._check(chunk)
        return self._first_values[chunk], self._first_values[chunk + 1]

    def locate(self, value: int) -> int:
        """Return the chunk that holds a value."""
        if self._failure is not None and value >= self._first_values[-1]:
            raise copy.copy(self._failure)
        return bisect_right(self._first_values, value) - 1

    def _check(self, chunk: int) -> None:
        if self._failure is not None and chunk >= len(self._starts) - 1:
            raise copy.copy(self._failure)

    def _step(self) -> None:
        number = len(self._starts) - 1
        offset = self._starts[-1]
        if offset + MIN_CHUNK_SIZE > self._size:
            raise InvalidContainer(f"it ends where chunk {number} is due")
        buf, at = self._window.at(offset)
        length, fixed, count, scale, body, wire = _CHUNK_HEAD.unpack_from(buf, at)
        check_payload_length(offset, length, self._size, self._max_payload_bytes)
        if (fixed, scale, body, wire) not in self._usual or count > MAX_VALUES:
            count = self._checked_count(number, offset, buf[at + LENGTH_FIELD_SIZE : at + MIN_CHUNK_SIZE])
        stop = offset + LENGTH_FIELD_SIZE + length
        stop_value = self._first_values[-1] + count
        if stop_value > self._header.total_values:
            raise CountMismatch(f"chunk {number} has more values than the header says")
        if number + 1 == self._header.chunk_count:
            if stop != self._size:
                raise CountMismatch("bytes are left over after the last chunk")
            if stop_value != self._header.total_values:
                raise CountMismatch("its chunks have fewer values than the header says")
        self._starts.append(stop)
        self._first_values.append(stop_value)

    def _checked_count(self, number: int, offset: int, head: memoryview) -> int:
        """Return the value count of a payload with an uncommon head; raises QatcError if the head is not legal."""
        try:
            payload = read_payload_header(head)
        except QatcError as err:
            raise InvalidContainer(f"chunk {number} at offset {offset} cannot be read ({err})") from err
        if payload.dtype is not self._dtype:
            raise MixedDtypes(self._dtype.label, payload.dtype.label)
        return payload.count
