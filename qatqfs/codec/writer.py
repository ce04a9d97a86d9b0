"""Writes a container chunk by chunk. Only the list of chunk lengths grows in memory."""

import array
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.checksum import FNV_OFFSET, HASHED_TOGETHER, fnv1a64_chain
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    DEFAULT_CHUNK_BYTES,
    LENGTH_FIELD_SIZE,
    MAX_CHUNKS,
    MAX_PAYLOAD_BYTES,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import LimitExceeded, MixedDtypes
from qatqfs.codec.index_frame import FOOTER_MAGIC, IndexFrame, trailing_frame
from qatqfs.codec.level import Level
from qatqfs.codec.payload import MAX_VALUES, decode_payload, read_payload_header
from qatqfs.codec.payloadencoder import encode_payload, encode_payloads
from qatqfs.codec.search import Memory
from qatqfs.codec.sinks import BytesSink, Sink
from qatqfs.codec.strategies import STRATEGIES


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What was written.

    Attributes:
        size: of the container, in bytes.
        chunk_count: number of its chunks.
        checksum: the checksum in its header.
    """

    size: int
    chunk_count: int
    checksum: int


class ContainerWriter:
    """Puts payloads into a container, and an index frame into the last of them if one is needed.

    The header is written as zeros first and patched last, so a file that was cut short is not a container. The latest
    payload is held back until it is known whether it is the last. Only one thread may use a writer at a time. If the
    sink fails, it is unknown how much was written, so all further calls are refused.

    Args:
        sink: where to write; the container starts at its beginning.
        dtype: of all values.
        values_per_chunk: values in each chunk but the last.
        max_chunks: most chunks to allow; the default is what a reference decoder accepts.
        level: effort if the last payload must be encoded again so that an index can be appended.

    Raises:
        ValueError: if ``values_per_chunk`` is not 1 to 2**26.
        OSError: what the sink raised.
    """

    def __init__(
        self,
        sink: Sink,
        dtype: DType,
        values_per_chunk: int,
        *,
        max_chunks: int = MAX_CHUNKS,
        level: Level = Level.BALANCED,
    ) -> None:
        if not 0 < values_per_chunk <= MAX_VALUES:
            raise ValueError(f"a chunk has 1 to {MAX_VALUES} values, not {values_per_chunk}")
        self._sink = sink
        self._dtype = dtype
        self._values_per_chunk = values_per_chunk
        self._max_chunks = max_chunks
        self._level = level
        self._lengths = array.array("I")  # of the written payloads, without the one that is held back
        self._size = CONTAINER_HEADER_SIZE
        self._state = FNV_OFFSET
        self._held: bytes | None = None
        self._held_values = 0
        self._finished = False
        self._broken = False
        sink.write(bytes(CONTAINER_HEADER_SIZE))

    @classmethod
    def resume(
        cls, sink: Sink, index: IndexFrame, *, max_chunks: int = MAX_CHUNKS, level: Level = Level.BALANCED
    ) -> "ContainerWriter":
        """Return a writer that continues where the last chunk of an existing container starts.

        Right after this call, the caller copies the bytes of the old container from offset 32 up to the length field
        of its last chunk to the new sink, for example with copy_file_range. Then it appends payloads; the first
        replaces the last chunk. The copied bytes need not be hashed again.

        Args:
            sink: new and empty.
            index: of the old container; it must have been found valid.
            max_chunks: most chunks to allow.
            level: as for the class.
        """
        writer = cls(sink, index.dtype, index.values_per_chunk, max_chunks=max_chunks, level=level)
        writer._lengths = array.array("I", index.payload_lengths[:-1])
        writer._size += sum(writer._lengths) + LENGTH_FIELD_SIZE * len(writer._lengths)
        writer._state = index.state_before_last
        return writer

    def append(self, payload: bytes) -> None:
        """Add a chunk of exactly ``values_per_chunk`` values. The last chunk may have fewer, but at least one.

        Raises:
            QatcError: if the payload's header is wrong; MixedDtypes for another dtype, LimitExceeded for a chunk
                too many or too long.
            ValueError: if this chunk or the one before it has the wrong number of values, or the container is
                finished or broken.
            OSError: what the sink raised.
        """
        self.extend((payload,))

    def extend(self, payloads: Sequence[bytes]) -> list[int]:
        """Add all of some chunks or none. This is as :meth:`append`, but hashes them in one call.

        Returns:
            For each chunk, the state of the container's checksum before its length field.
        """
        self._check_usable()
        if not payloads:
            return []
        values = self._check(payloads)
        held = [] if self._held is None else [self._held]
        states = self._write([*held, *payloads[:-1]])
        self._held, self._held_values = payloads[-1], values
        return states[len(held) :]

    def _check(self, payloads: Sequence[bytes]) -> int:
        """Check that payloads may follow the one held back; return the number of values of the last."""
        values = self._values_per_chunk if self._held is None else self._held_values
        before = len(self._lengths) + (self._held is not None)
        for count, payload in enumerate(payloads, before + 1):
            header = read_payload_header(payload)
            if header.dtype is not self._dtype:
                raise MixedDtypes(self._dtype.label, header.dtype.label)
            if not 0 < header.count <= self._values_per_chunk:
                raise ValueError(f"a chunk of {header.count} values where {self._values_per_chunk} are due")
            if values != self._values_per_chunk:
                raise ValueError(f"only the last chunk may have {values} values")
            if count > self._max_chunks:
                raise LimitExceeded("chunks in a container", count, self._max_chunks)
            if len(payload) > MAX_PAYLOAD_BYTES:
                raise LimitExceeded("bytes in a payload", len(payload), MAX_PAYLOAD_BYTES)
            values = header.count
        return values

    def _write(self, payloads: Sequence[bytes], frame: bytes = b"") -> list[int]:
        """Write payloads, and a frame after the last; return the states before each payload and before the frame."""
        lengths = [len(payload) for payload in payloads]
        if frame:
            lengths[-1] += len(frame)
        fields = (length.to_bytes(LENGTH_FIELD_SIZE, "big") for length in lengths)
        parts = [*itertools.chain.from_iterable(zip(fields, payloads, strict=True)), *([frame] if frame else [])]
        self._broken = True  # until all of it is written
        states = [self._state, *fnv1a64_chain(parts, self._state)]
        for part in parts:
            self._sink.write(part)
        self._state = states[-1]
        self._lengths.extend(lengths)
        self._size += sum(map(len, parts))
        self._broken = False
        return states[: 2 * len(payloads) + 1 : 2]

    def _check_usable(self) -> None:
        if self._finished:
            raise ValueError("the container is finished")
        if self._broken:
            raise ValueError("the container is broken: the sink has failed")

    def finish(self, true_length: int) -> ContainerInfo:
        """Write the last chunk, with an index frame if there are several or pad bytes, and the header.

        Args:
            true_length: of the content, in bytes. If it is not a multiple of the width, the last chunk has up to
                width - 1 zero bytes more.

        Raises:
            ValueError: if the values do not have that length, a pad byte is not zero, or the container is already
                finished or broken.
            QatcError: if the last payload must be encoded again and is damaged.
            OSError: what the sink raised.
        """
        self._check_usable()
        total = len(self._lengths) * self._values_per_chunk + self._held_values
        width = self._dtype.width
        pad = total * width - true_length
        if not 0 <= pad < (width if total else 1):
            raise ValueError(f"{total} {self._dtype.label} values do not hold {true_length} bytes")
        if self._held is None:
            if self._lengths:
                raise ValueError("a resumed container needs its last chunk again")
            self._held = encode_payload(b"", self._dtype)
        if pad and any(decode_payload(self._held)[-pad:]):
            raise ValueError("the pad bytes after the content must be zero")
        needed = self._lengths or pad or self._looks_indexed(self._held)
        frame = self._index_frame(true_length) if needed else b""
        self._write([self._held], frame)
        self._held = None
        header = ContainerHeader(total, len(self._lengths), self._state)
        self._broken = True
        self._sink.patch(0, header.pack())
        self._finished, self._broken = True, False
        return ContainerInfo(self._size, header.chunk_count, header.checksum)

    @staticmethod
    def _looks_indexed(payload: bytes) -> bool:
        """Whether the end of a payload looks like an index frame, although it is content or a frame from elsewhere."""
        frame = trailing_frame(memoryview(payload), read_payload_header(payload), 1)
        return frame is not None or payload.endswith(FOOTER_MAGIC)

    def _index_frame(self, true_length: int) -> bytes:
        assert self._held is not None
        if STRATEGIES[read_payload_header(self._held).strategy].zstd_offset is None:
            raw = decode_payload(self._held)
            self._held = encode_payload(raw, self._dtype, level=self._level, appendable=True, verified=True)
        last = len(self._held) + IndexFrame.size(len(self._lengths) + 1)
        if last > MAX_PAYLOAD_BYTES:
            raise LimitExceeded("bytes in a payload", last, MAX_PAYLOAD_BYTES)
        lengths = array.array("I", self._lengths)
        lengths.append(last)
        return IndexFrame(true_length, self._values_per_chunk, lengths, self._state, self._dtype).pack()


def encode_container(
    raw: Buffer,
    dtype: DType,
    *,
    values_per_chunk: int | None = None,
    level: Level = Level.BALANCED,
    row_widths: Sequence[int] = (),
) -> bytes:
    """Encode raw values as one container, in memory and in this thread.

    Args:
        raw: little-endian elements. A length that is not a multiple of the width is padded with zeros.
        dtype: their type.
        values_per_chunk: 1 to 2**26; ``None`` for chunks of 256 KiB.
        level: how hard to search for a smaller form.
        row_widths: as for :func:`encode_payload`.

    Raises:
        ValueError: if ``values_per_chunk`` is not legal.
        LimitExceeded: if there are more than 2**20 chunks.
    """
    if values_per_chunk is None:
        values_per_chunk = DEFAULT_CHUNK_BYTES // dtype.width
    sink = BytesSink()
    encode_to(sink, as_bytes(raw), dtype, values_per_chunk, level=level, row_widths=row_widths, memory=Memory())
    return sink.getvalue()


def encode_to(
    sink: Sink,
    raw: memoryview,
    dtype: DType,
    values_per_chunk: int,
    *,
    level: Level,
    row_widths: Sequence[int],
    memory: Memory,
    verified: bool = False,
) -> ContainerInfo:
    """Encode raw values as one container, in this thread, and write it to a sink.

    Args:
        sink: where to write; the container starts at its beginning.
        raw: flat bytes, as :func:`encode_container` takes them.
        dtype: of the values.
        values_per_chunk: 1 to 2**26.
        level: how hard to search for a smaller form.
        row_widths: as for :func:`encode_payload`.
        memory: lessons of similar values that were encoded before, and of these for later.
        verified: decode every chunk again and compare the values.

    Raises:
        EncodingFault: if ``verified`` finds a wrong chunk.
        ValueError: if ``values_per_chunk`` is not legal.
        LimitExceeded: if there are more than 2**20 chunks.
        OSError: what the sink raised.
    """
    chunk_bytes = values_per_chunk * dtype.width
    if chunk_bytes > 0 and (chunks := -(-len(raw) // chunk_bytes)) > MAX_CHUNKS:
        raise LimitExceeded("chunks in a container", chunks, MAX_CHUNKS)
    writer = ContainerWriter(sink, dtype, values_per_chunk, level=level)
    parts = [raw[start : start + chunk_bytes] for start in range(0, len(raw), chunk_bytes)]
    pad = -len(raw) % dtype.width
    if pad:
        parts[-1] = memoryview(bytes(parts[-1]) + bytes(pad))
    for first in range(0, len(parts) - 1, HASHED_TOGETHER):
        group = parts[first : min(first + HASHED_TOGETHER, len(parts) - 1)]
        writer.extend(
            encode_payloads(group, dtype, level=level, row_widths=row_widths, memory=memory, verified=verified)
        )
    for last in parts[-1:]:
        writer.append(
            encode_payload(
                last,
                dtype,
                level=level,
                appendable=len(parts) > 1 or pad > 0,
                row_widths=row_widths,
                memory=memory,
                verified=verified,
            )
        )
    return writer.finish(len(raw))


def empty_container(dtype: DType) -> bytes:
    """Return the container of an empty file: one chunk of no values, 72 bytes."""
    return encode_container(b"", dtype, values_per_chunk=1)
