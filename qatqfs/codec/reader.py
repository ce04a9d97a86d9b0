"""Open a container and decode the chunks that somebody asks for."""

from dataclasses import dataclass

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    LENGTH_FIELD_SIZE,
    MAX_PAYLOAD_BYTES,
    MIN_CHUNK_SIZE,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidContainer, LimitExceeded, MixedDtypes
from qatqfs.codec.fileaccess import TAIL_SIZE, ReadAt, read_exactly
from qatqfs.codec.index_frame import IndexFrame, read_index, trailing_frame
from qatqfs.codec.layout import IndexedLayout, Layout, WalkedLayout, check_payload_length
from qatqfs.codec.payload import (
    EXACT_HEADER_SIZE,
    MAX_VALUES,
    PayloadHeader,
    decode_payload,
    read_payload_header,
)

HEAD_SIZE = CONTAINER_HEADER_SIZE + MIN_CHUNK_SIZE
"""Bytes read from its start: the header, and length and header of the first chunk."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader is ready for.

    Attributes:
        max_chunk_values: values in one chunk; their raw bytes may have to be allocated.
        max_payload_bytes: encoded bytes of one chunk.
        max_chunks: chunks; none by default, a file cannot claim more than it has room for.
    """

    max_chunk_values: int = MAX_VALUES
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    max_chunks: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """One chunk as its own header has it.

    Attributes:
        offset: of its length field in the file.
        payload_length: encoded bytes, the index frame at the end of the last chunk included.
        payload: the header of its payload.
    """

    offset: int
    payload_length: int
    payload: PayloadHeader


class Container:
    """A container whose chunks can be decoded in any order, by any number of threads at once.

    Made by :meth:`open`. Nothing of the file is kept but where its chunks lie.

    Attributes:
        dtype: of its values.
        length: bytes of its content.
        total_values: values, a pad byte's included.
        chunk_count: chunks.
        header: the container's header.
        header_bytes: the same as it is in the file, 32 bytes.
        index: the index, ``None`` when there is none or it does not agree with the file.
    """

    def __init__(
        self,
        read_at: ReadAt,
        size: int,
        limits: Limits,
        header_bytes: bytes,
        index: IndexFrame | None,
        dtype: DType,
    ) -> None:
        self._read_at = read_at
        self._size = size
        self._limits = limits
        self.header = ContainerHeader.parse(header_bytes)
        self.header_bytes = header_bytes
        self.index = index
        self.dtype = dtype
        self.total_values = self.header.total_values
        self.chunk_count = self.header.chunk_count
        self.length = index.true_length if index else self.total_values * dtype.width
        self._layout: Layout
        if index is not None:
            self._layout = IndexedLayout(index, self.total_values)
        else:
            walked = WalkedLayout(read_at, size, self.header, dtype, limits.max_payload_bytes)
            walked.settle()
            self._layout = walked

    @classmethod
    def open(cls, read_at: ReadAt, size: int, *, limits: Limits | None = None) -> "Container":
        """Read what opening takes: two reads, one for a file of at most 64 KiB, three for a very long index.

        Without a valid index every chunk's header is read.

        Args:
            read_at: ``read_at(offset, size)`` returns that part of the file; called by all methods, from
                the threads that call them.
            size: bytes of the file.
            limits: what to refuse although it is legal.

        Raises:
            QatcError: when this is no container. A damaged first chunk is found here only in a container
                without a valid index, for its dtype is nowhere else.
            OSError: what ``read_at`` raised.
        """
        limits = limits or Limits()
        head = read_exactly(read_at, 0, size if size <= TAIL_SIZE else HEAD_SIZE)
        header = ContainerHeader.parse(head)
        limit = (size - CONTAINER_HEADER_SIZE) // MIN_CHUNK_SIZE
        if header.chunk_count > limit:
            raise InvalidContainer(f"{size} bytes have no room for {header.chunk_count} chunks")
        if limits.max_chunks is not None and header.chunk_count > limits.max_chunks:
            raise LimitExceeded("chunks in a container", header.chunk_count, limits.max_chunks)
        index = read_index(read_at, size, head, header)
        dtype = index.dtype if index else read_payload_header(head[HEAD_SIZE - EXACT_HEADER_SIZE :]).dtype
        return cls(read_at, size, limits, bytes(head[:CONTAINER_HEADER_SIZE]), index, dtype)

    @property
    def indexed(self) -> bool:
        """Whether an index tells where the chunks are, so that finding one reads nothing."""
        return self.index is not None

    def span(self, chunk: int) -> tuple[int, int]:
        """Return the first byte of a chunk's content and the one behind its last, in the content.

        Raises:
            IndexError: when there is no such chunk.
            QatcError: when the walk meets damage on the way to it.
            OSError: what reading the file raised.
        """
        self._check_number(chunk)
        first, stop = self._layout.values(chunk)
        return first * self.dtype.width, min(stop * self.dtype.width, self.length)

    def locate(self, offset: int) -> int:
        """Return the chunk that holds the byte at an offset of the content.

        Raises:
            IndexError: when the content has no such byte.
            QatcError, OSError: as :meth:`span`.
        """
        if not 0 <= offset < self.length:
            raise IndexError(f"offset {offset} is not in a content of {self.length} bytes")
        return self._layout.locate(offset // self.dtype.width)

    def chunk_header(self, chunk: int) -> ChunkHeader:
        """Read the header of one chunk.

        Raises:
            IndexError, QatcError, OSError: as :meth:`read_chunk`, as far as the header shows it.
        """
        self._check_number(chunk)
        offset, length = self._place(chunk)
        head = read_exactly(self._read_at, offset, MIN_CHUNK_SIZE)
        return ChunkHeader(offset, length, self._check_header(chunk, head, length))

    def raw_chunk(self, chunk: int) -> bytes:
        """Return the encoded payload of a chunk, for a verbatim copy: without index frame, and not decoded.

        Raises:
            IndexError, QatcError, OSError: as :meth:`read_chunk`, as far as that shows without decoding.
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
            The bytes of content that the chunk holds, without a pad byte.

        Raises:
            IndexError: when there is no such chunk.
            QatcError: when it is damaged, cannot be found, is larger than the limits, or does not agree with
                the index or with the other chunks. MixedDtypes for another dtype.
            OSError: what reading the file raised.
            ValueError: when ``out`` is read-only or too small.
        """
        payload, header = self._payload(chunk)
        start, stop = self.span(chunk)
        size = stop - start
        if size == header.raw_size:
            return decode_payload(payload, out, max_values=self._limits.max_chunk_values, dtype=self.dtype)
        raw = decode_payload(payload, max_values=self._limits.max_chunk_values, dtype=self.dtype)
        if any(raw[size:]):
            raise InvalidContainer("the pad byte behind the content is not zero")
        if out is None:
            return raw[:size]
        view = as_bytes(out)[:size]
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
        """Compare a length field and the payload header behind it with what the layout says."""
        if int.from_bytes(head[:LENGTH_FIELD_SIZE], "big") != length:
            raise InvalidContainer(f"chunk {chunk} has another length than the index says")
        header = read_payload_header(head[LENGTH_FIELD_SIZE:])
        if header.dtype is not self.dtype:
            raise MixedDtypes(self.dtype.label, header.dtype.label)
        first, stop = self._layout.values(chunk)
        if header.count != stop - first:
            raise InvalidContainer(f"chunk {chunk} has {header.count} values where {stop - first} are due")
        return header

    def _payload(self, chunk: int) -> tuple[memoryview, PayloadHeader]:
        self._check_number(chunk)
        offset, length = self._place(chunk)
        stored = read_exactly(self._read_at, offset, LENGTH_FIELD_SIZE + length)
        header = self._check_header(chunk, stored, length)
        payload = stored[LENGTH_FIELD_SIZE:]
        if chunk != self.chunk_count - 1:
            return payload, header
        frame = trailing_frame(payload, header)
        due = length - IndexFrame.size(self.chunk_count) if self.index is not None else None
        if frame != due:
            raise InvalidContainer("the index frame in the last chunk is damaged")
        return payload[:frame], header
