"""Opens a container and decodes any of its chunks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.checksum import HASHED_TOGETHER
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    LENGTH_FIELD_SIZE,
    MIN_CHUNK_SIZE,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidContainer, MixedDtypes, QatcError, without_frames
from qatqfs.codec.fileaccess import TAIL_SIZE, ReadAt, read_exactly, reader_of, reader_of_fd
from qatqfs.codec.index_frame import IndexFrame, read_index, trailing_frame
from qatqfs.codec.layout import IndexedLayout, Layout, WalkedLayout, check_payload_length
from qatqfs.codec.limits import Limits
from qatqfs.codec.payload import (
    EXACT_HEADER_SIZE,
    PayloadHeader,
    decode_payload,
    decode_payloads,
    read_payload_header,
    result_buffer,
)

HEAD_SIZE = CONTAINER_HEADER_SIZE + MIN_CHUNK_SIZE
"""Bytes that are read from the start of a container: its header, and the length and header of the first chunk."""

_NOTHING: Mapping[int, memoryview] = {}


def claimed_length(head: Buffer) -> int:
    """Return the size of the content, with its pad, that the first :data:`HEAD_SIZE` bytes of a container claim.

    Raises:
        QatcError: they do not belong to a container.
    """
    view = as_bytes(head)
    header = ContainerHeader.parse(view)
    return header.total_values * read_payload_header(view[HEAD_SIZE - EXACT_HEADER_SIZE :]).dtype.width


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """One chunk, as its own header describes it.

    Attributes:
        offset: of its length field in the file.
        payload_length: encoded bytes. The last chunk includes the index frame at its end.
        payload: the header of its payload.
    """

    offset: int
    payload_length: int
    payload: PayloadHeader


class Container:
    """A container whose chunks can be decoded in any order, by any number of threads at once.

    It is made by :meth:`open`, :meth:`from_buffer` or :meth:`from_fd`. It remembers only where the chunks of the file
    are.

    Attributes:
        dtype: of its values.
        length: of its content, in bytes.
        total_values: number of values. A last value that has pad bytes counts too.
        chunk_count: number of chunks.
        header: the container's header.
        header_bytes: the 32 bytes of the header in the file.
        index: the index, ``None`` if there is none, or if it does not agree with the file.
        walked: where the chunks are, if there is no index.
    """

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        limits: Limits,
        head: memoryview,
        index: IndexFrame | None,
        dtype: DType,
        walked: WalkedLayout | None,
    ) -> None:
        self._read_at = read_at
        self._size = size
        self._limits = limits
        self.header = ContainerHeader.parse(head)
        self.header_bytes = bytes(head[:CONTAINER_HEADER_SIZE])
        self.index = index
        self.dtype = dtype
        self.total_values = self.header.total_values
        self.chunk_count = self.header.chunk_count
        self.length = index.true_length if index else self.total_values * dtype.width
        self.walked: WalkedLayout | None = None
        self._layout: Layout
        if index is not None:
            self._layout = IndexedLayout(index, self.total_values)
        else:
            if walked is None:
                limits.check_walk(self.header)
            self.walked = walked or WalkedLayout(read_at, size, head, dtype, limits.max_payload_bytes)
            self._layout = self.walked

    @classmethod
    def open(
        cls, read_at: ReadAt, size: int, *, limits: Limits | None = None, walked: WalkedLayout | None = None
    ) -> "Container":
        """Open a container with two reads; one for a file of at most 64 KiB, three for a very long index.

        Without a valid index every chunk's header is read, unless ``walked`` is given.

        Args:
            read_at: ``read_at(offset, size)`` returns that part of the file. All methods call it, in their
                caller's thread.
            size: of the file, in bytes.
            limits: what to refuse although the format allows it.
            walked: the attribute of that name from an earlier object for the same state of the same file.

        Raises:
            QatcError: if this is not a container. A damaged first chunk is found here only if there is no valid
                index, because the dtype is nowhere else then.
            OSError: what ``read_at`` raised.
        """
        limits = limits or Limits()
        head = read_exactly(read_at, 0, size if size <= TAIL_SIZE else HEAD_SIZE)
        header = ContainerHeader.parse(head)
        limits.check(header, size)
        index = read_index(read_at, size, head, header)
        dtype = index.dtype if index else read_payload_header(head[HEAD_SIZE - EXACT_HEADER_SIZE :]).dtype
        return cls(read_at, size, limits, head, index, dtype, walked)

    @classmethod
    def from_buffer(cls, buf: Buffer, *, limits: Limits | None = None) -> "Container":
        """Open a container in memory without copying it; raises QatcError as :meth:`open`."""
        view = as_bytes(buf)
        return cls.open(reader_of(view), len(view), limits=limits)

    @classmethod
    def from_fd(cls, fd: int, *, limits: Limits | None = None) -> "Container":
        """Open the container in a regular file by its descriptor, which must stay open while the container is read.

        Raises:
            QatcError, OSError: as :meth:`open`.
        """
        return cls.open(reader_of_fd(fd), os.fstat(fd).st_size, limits=limits)

    def __repr__(self) -> str:
        return f"<Container of {self.length} bytes of {self.dtype.label} in {self.chunk_count} chunks>"

    @property
    def indexed(self) -> bool:
        """Whether an index says where the chunks are, so that opening read no chunk headers."""
        return self.index is not None

    def span(self, chunk: int) -> tuple[int, int]:
        """Return the offsets in the content where a chunk's content starts and ends.

        Raises:
            IndexError: if there is no such chunk.
            QatcError: if the walk met damage before this chunk.
        """
        self._check_number(chunk)
        first, stop = self._layout.values(chunk)
        return first * self.dtype.width, min(stop * self.dtype.width, self.length)

    def locate(self, offset: int) -> int:
        """Return the chunk that holds the byte at an offset of the content.

        Raises:
            IndexError: if the content has no such byte.
            QatcError: as :meth:`span`.
        """
        if not 0 <= offset < self.length:
            raise IndexError(f"offset {offset} is not in a content of {self.length} bytes")
        return self._layout.locate(offset // self.dtype.width)

    def stored_offset(self, chunk: int) -> int:
        """Return the offset in the file of a chunk's length field.

        Raises:
            IndexError, QatcError, OSError: as :meth:`span`.
        """
        self._check_number(chunk)
        return self._layout.place(chunk)[0]

    def chunk_header(self, chunk: int) -> ChunkHeader:
        """Read the header of one chunk.

        Raises:
            IndexError, QatcError, OSError: as :meth:`read_chunk`, for what the header shows.
        """
        self._check_number(chunk)
        offset, length = self._place(chunk)
        head = read_exactly(self._read_at, offset, MIN_CHUNK_SIZE)
        return ChunkHeader(offset, length, self._check_header(chunk, head, length))

    def raw_chunk(self, chunk: int) -> bytes:
        """Return the encoded payload of a chunk without the index frame, for a verbatim copy. It is not decoded.

        Raises:
            IndexError, QatcError, OSError: as :meth:`read_chunk`, for what shows without decoding.
        """
        payload, _ = self._payload(chunk)
        return bytes(payload)

    def read_chunk(self, chunk: int, out: Buffer | None = None) -> memoryview:
        """Decode and verify one chunk.

        Args:
            chunk: its number.
            out: writable, at least as long as the chunk's content; ``None`` for fresh memory. After an error
                its content is undefined.

        Returns:
            The bytes of content that the chunk holds, without pad bytes.

        Raises:
            IndexError: if there is no such chunk.
            QatcError: if the chunk is damaged, cannot be found, exceeds the limits, or does not agree with the
                index or with the other chunks. MixedDtypes for another dtype.
            OSError: what reading the file raised.
            ValueError: if ``out`` is read-only or too small.
        """
        payload, header = self._payload(chunk)
        start, stop = self.span(chunk)
        if stop - start != header.raw_size:
            return self._read_padded(payload, stop - start, out)
        return decode_payload(payload, out, max_values=self._limits.max_chunk_values, dtype=self.dtype)

    def read_chunks(
        self, first: int, count: int, outs: Sequence[Buffer] | None = None
    ) -> list[memoryview | QatcError | OSError]:
        """Decode and verify consecutive chunks, with one read of the file, and hash them together.

        Args:
            first: number of the first chunk.
            count: how many chunks; all of them are in memory at once.
            outs: one buffer for each, as for :meth:`read_chunk`; ``None`` for fresh memory.

        Returns:
            For each chunk, what :meth:`read_chunk` would return, or the QatcError or OSError that it would raise.

        Raises:
            IndexError: if there are no such chunks.
            ValueError: if a buffer is read-only or too small, or there are not as many buffers as chunks.
        """
        if not 0 <= first <= first + count <= self.chunk_count:
            raise IndexError(f"chunks {first} to {first + count - 1} are not among {self.chunk_count}")
        if outs is not None and len(outs) != count:
            raise ValueError(f"{len(outs)} buffers for {count} chunks")
        results: list[memoryview | QatcError | OSError] = []
        whole: list[tuple[int, memoryview, Buffer | None]] = []
        numbers = range(first, first + count)
        stored = self._read_run(numbers)
        places: Sequence[Buffer | None] = [None] * count if outs is None else outs
        for chunk, out in zip(numbers, places, strict=True):
            try:
                payload, header = self._payload(chunk, stored)
                start, stop = self.span(chunk)
                if stop - start != header.raw_size:
                    results.append(self._read_padded(payload, stop - start, out))
                else:
                    whole.append((len(results), payload, out))
                    results.append(payload)  # replaced below
            except (QatcError, OSError) as err:
                results.append(without_frames(err))
        given = [out for _, _, out in whole if out is not None]
        decoded = decode_payloads(
            [payload for _, payload, _ in whole],
            given if outs is not None else None,
            max_values=self._limits.max_chunk_values,
            dtype=self.dtype,
        )
        for (i, _, _), found in zip(whole, decoded, strict=True):
            results[i] = found
        return results

    def read(self, offset: int, size: int, out: Buffer | None = None) -> memoryview:
        """Return exactly the bytes of a range of the content, cut only at the end of the content.

        Args:
            offset: of the first byte, at least 0.
            size: number of bytes, at least 0.
            out: writable, at least as long as the result; ``None`` for fresh memory. After an error its content
                is undefined.

        Raises:
            QatcError: if any chunk of the range is damaged or missing. A good prefix is never returned.
            OSError: what reading the file raised.
            ValueError: if offset or size is negative, or ``out`` is read-only or too small.
        """
        if offset < 0 or size < 0:
            raise ValueError(f"offset and size must not be negative, but are {offset} and {size}")
        stop = min(offset + size, self.length)
        if offset < stop:
            self.locate(stop - 1)  # otherwise a false length would decide how much memory is allocated
        result = result_buffer(max(stop - offset, 0), out).data
        position = offset
        while position < stop:
            chunk = self.locate(position)
            start, end = self.span(chunk)
            if position > start or end > stop:
                part = self.read_chunk(chunk)[position - start : stop - start]
                result[position - offset : position - offset + len(part)] = part
                position += len(part)
            else:
                position = self._read_whole(chunk, result[position - offset :], stop)
        return result

    def _read_whole(self, first: int, result: memoryview, stop: int) -> int:
        """Decode the chunks from ``first`` on that end at or before ``stop`` into ``result``; return where they end."""
        start = end = self.span(first)[0]
        outs: list[Buffer] = []
        while len(outs) < HASHED_TOGETHER and first + len(outs) < self.chunk_count:
            a, b = self.span(first + len(outs))
            if b > stop:
                break
            outs.append(result[a - start : b - start])
            end = b
        for found in self.read_chunks(first, len(outs), outs):
            if isinstance(found, Exception):
                raise found
        return end

    def _read_padded(self, payload: memoryview, size: int, out: Buffer | None) -> memoryview:
        """Decode the last chunk of a content that is not a whole number of values."""
        raw = decode_payload(payload, max_values=self._limits.max_chunk_values, dtype=self.dtype)
        if any(raw[size:]):
            raise InvalidContainer("a pad byte after the content is not zero")
        if out is None:
            return raw[:size]
        view = result_buffer(size, out).data
        view[:] = raw[:size]
        return view

    def _check_number(self, chunk: int) -> None:
        if not 0 <= chunk < self.chunk_count:
            raise IndexError(f"chunk {chunk} is not among {self.chunk_count}")

    def _place(self, chunk: int) -> tuple[int, int]:
        offset, length = self._layout.place(chunk)
        check_payload_length(offset, length, self._size, self._limits.max_payload_bytes)
        return offset, length

    def _check_header(self, chunk: int, head: memoryview, length: int) -> PayloadHeader:
        """Compare a length field and the payload header after it with the layout."""
        if int.from_bytes(head[:LENGTH_FIELD_SIZE], "big") != length:
            raise InvalidContainer(f"chunk {chunk} has another length than the index says")
        header = read_payload_header(head[LENGTH_FIELD_SIZE:])
        if header.dtype is not self.dtype:
            raise MixedDtypes(self.dtype.label, header.dtype.label)
        first, stop = self._layout.values(chunk)
        if header.count != stop - first:
            raise InvalidContainer(f"chunk {chunk} has {header.count} values where {stop - first} are due")
        return header

    def _read_run(self, numbers: range) -> dict[int, memoryview]:
        """Read consecutive chunks at once: length field and payload of each, by number. Return none if that fails."""
        try:
            places = {chunk: self._place(chunk) for chunk in numbers}
            start = places[numbers[0]][0] if places else 0
            stop = max((offset + LENGTH_FIELD_SIZE + length for offset, length in places.values()), default=0)
            stored = read_exactly(self._read_at, start, stop - start) if places else memoryview(b"")
        except (QatcError, OSError):
            return {}  # reading the chunks one by one finds the bad ones
        return {
            chunk: stored[offset - start : offset - start + LENGTH_FIELD_SIZE + length]
            for chunk, (offset, length) in places.items()
        }

    def _payload(self, chunk: int, stored: Mapping[int, memoryview] = _NOTHING) -> tuple[memoryview, PayloadHeader]:
        """Return a payload without the index frame, and its header, from ``stored`` or else from the file."""
        self._check_number(chunk)
        offset, length = self._place(chunk)
        found = stored.get(chunk)
        if found is None:
            found = read_exactly(self._read_at, offset, LENGTH_FIELD_SIZE + length)
        header = self._check_header(chunk, found, length)
        payload = found[LENGTH_FIELD_SIZE:]
        if chunk != self.chunk_count - 1:
            return payload, header
        frame = trailing_frame(payload, header, self.chunk_count)
        due = length - IndexFrame.size(self.chunk_count) if self.index is not None else None
        if frame != due:
            raise InvalidContainer("the index frame in the last chunk is damaged")
        return payload[:frame], header
