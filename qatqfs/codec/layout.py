"""Where the chunks of a container lie: known from its index at once, or found chunk by chunk.

A container without a valid index is walked to its end when it is opened. Walking only as far as somebody reads
would cost less, but the header is covered by no checksum, and a total that is wrong by whole chunks would show a
shortened file without any error.
"""

import array
import copy
import threading
from bisect import bisect_right
from collections.abc import Callable
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
from qatqfs.codec.payload import EXACT_HEADER_SIZE, PayloadHeader, read_payload_header


def check_payload_length(offset: int, length: int, size: int, max_payload_bytes: int) -> None:
    """Check the length field at ``offset`` of a container of ``size`` bytes.

    Raises:
        InvalidContainer: when no payload is so short, or the file is shorter.
        LimitExceeded: above ``max_payload_bytes``.
    """
    if length < EXACT_HEADER_SIZE:
        raise InvalidContainer(f"a payload of {length} bytes at offset {offset} is too short")
    if length > max_payload_bytes:
        raise LimitExceeded("bytes in a payload", length, max_payload_bytes)
    if offset + LENGTH_FIELD_SIZE + length > size:
        raise InvalidContainer(f"the payload of {length} bytes at offset {offset} is cut off")


class CountMismatch(InvalidContainer):
    """The header's counts contradict the chunks, so that not even the length of the content is certain."""


class Layout(Protocol):
    """Finds chunks. Safe for any number of threads. All methods but the constructor may raise QatcError."""

    def place(self, chunk: int) -> tuple[int, int]:
        """Return the offset of the chunk's length field and the bytes of its payload."""

    def values(self, chunk: int) -> tuple[int, int]:
        """Return the first value of the chunk and the one behind its last."""

    def locate(self, value: int) -> int:
        """Return the chunk that holds a value."""


class IndexedLayout:
    """A layout that an index tells.

    Args:
        index: found valid.
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
        """Return the first value of the chunk and the one behind its last."""
        first = chunk * self._per_chunk
        return first, min(first + self._per_chunk, self._total)

    def locate(self, value: int) -> int:
        """Return the chunk that holds a value."""
        return value // self._per_chunk


class WalkedLayout:
    """A layout that is found by reading one chunk header after another.

    Chunks may have any number of values, also none. What the walk cannot get over makes that chunk and all
    behind it unreadable; those before stay readable.

    Args:
        read_at: reads the container.
        size: bytes of the container.
        header: of the container.
        dtype: of its first chunk.
        max_payload_bytes: the longest payload to accept.
    """

    def __init__(
        self, read_at: ReadAt, size: int, header: ContainerHeader, dtype: DType, max_payload_bytes: int
    ) -> None:
        self._read_at = read_at
        self._size = size
        self._header = header
        self._dtype = dtype
        self._max_payload_bytes = max_payload_bytes
        self._lock = threading.Lock()
        # Protected by the lock; a chunk is among them once the walk has passed its header.
        self._starts = array.array("Q")
        self._lengths = array.array("I")
        self._first_values = array.array("Q", [0])
        self._failure: QatcError | None = None

    def place(self, chunk: int) -> tuple[int, int]:
        """Return the offset of the chunk's length field and the bytes of its payload."""
        with self._lock:
            self._walk(lambda: len(self._starts) > chunk)
            return self._starts[chunk], self._lengths[chunk]

    def values(self, chunk: int) -> tuple[int, int]:
        """Return the first value of the chunk and the one behind its last."""
        with self._lock:
            self._walk(lambda: len(self._starts) > chunk)
            return self._first_values[chunk], self._first_values[chunk + 1]

    def locate(self, value: int) -> int:
        """Return the chunk that holds a value."""
        with self._lock:
            self._walk(lambda: self._first_values[-1] > value)
            return bisect_right(self._first_values, value) - 1

    def settle(self) -> None:
        """Walk to the end.

        Damage on the way is left to whoever asks for a chunk behind it: the ones before can be read.

        Raises:
            CountMismatch: when the chunks are sound as far as headers show, but are not what the header says.
            OSError: what reading the file raised.
        """
        with self._lock:
            try:
                self._walk(lambda: len(self._starts) == self._header.chunk_count)
            except CountMismatch:
                raise
            except QatcError:
                return

    def _walk(self, arrived: Callable[[], bool]) -> None:
        """Go on until ``arrived``; raises QatcError when that is out of reach. The lock is held."""
        while not arrived():
            if self._failure is None:
                try:
                    self._step()
                except QatcError as err:
                    self._failure = without_frames(err)
            if self._failure is not None and not arrived():
                raise copy.copy(self._failure)

    def _step(self) -> None:
        number = len(self._starts)
        offset = self._starts[-1] + LENGTH_FIELD_SIZE + self._lengths[-1] if number else CONTAINER_HEADER_SIZE
        if offset + MIN_CHUNK_SIZE > self._size:
            raise InvalidContainer(f"it ends where chunk {number} is due")
        head = read_exactly(self._read_at, offset, MIN_CHUNK_SIZE)
        length = int.from_bytes(head[:LENGTH_FIELD_SIZE], "big")
        check_payload_length(offset, length, self._size, self._max_payload_bytes)
        payload = self._payload_header(number, offset, head[LENGTH_FIELD_SIZE:])
        if payload.dtype is not self._dtype:
            raise MixedDtypes(self._dtype.label, payload.dtype.label)
        stop_value = self._first_values[-1] + payload.count
        if stop_value > self._header.total_values:
            raise CountMismatch(f"chunk {number} has more values than the header says")
        if number + 1 == self._header.chunk_count:
            if offset + LENGTH_FIELD_SIZE + length != self._size:
                raise CountMismatch("bytes are left over behind the last chunk")
            if stop_value != self._header.total_values:
                raise CountMismatch("its chunks have fewer values than the header says")
        self._starts.append(offset)
        self._lengths.append(length)
        self._first_values.append(stop_value)

    @staticmethod
    def _payload_header(number: int, offset: int, head: memoryview) -> PayloadHeader:
        try:
            return read_payload_header(head)
        except QatcError as err:
            raise InvalidContainer(f"chunk {number} at offset {offset} cannot be read ({err})") from err
