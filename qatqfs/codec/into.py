"""Encodes and decodes containers between buffers of the caller, for runtimes that manage their memory themselves.

The container is the same as from :func:`~qatqfs.codec.encode_container` with the same settings. Raw values are read
and decoded in place, without a copy. The interpreter's lock is released while chunks are encoded and decoded.
"""

from collections.abc import Sequence

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    DEFAULT_CHUNK_BYTES,
    LENGTH_FIELD_SIZE,
    ContainerHeader,
)
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidContainer, MixedDtypes
from qatqfs.codec.index_frame import IndexFrame
from qatqfs.codec.level import Level
from qatqfs.codec.limits import Limits
from qatqfs.codec.payload import EXACT_HEADER_SIZE
from qatqfs.codec.reader import Container
from qatqfs.codec.search import Memory
from qatqfs.codec.writer import encode_to

_FRAME_SHARE, _FRAME_BYTES = 256, 128
"""A zstd frame is at most 1/256 and 128 bytes longer than its content (ZSTD_COMPRESSBOUND and the frame header)."""


class _BufferSink:
    """Writes a container into memory of the caller."""

    def __init__(self, out: memoryview) -> None:
        self._out = out
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append ``data``; raises ValueError if there is no room."""
        end = self.size + len(data)
        if end > len(self._out):
            raise ValueError(f"a buffer of {len(self._out)} bytes is too small; see encoded_size_bound")
        self._out[self.size : end] = data
        self.size = end

    def patch(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes written before."""
        self._out[offset : offset + len(data)] = data


def encoded_size_bound(size: int, dtype: DType, *, values_per_chunk: int | None = None) -> int:
    """Return the largest size in bytes that the container of any raw values may have: about 0.4 % more than they have.

    Args:
        size: raw bytes.
        dtype: of the values.
        values_per_chunk: as for :func:`encode_into`.

    Raises:
        ValueError: ``size`` is negative or ``values_per_chunk`` not legal.
    """
    if size < 0:
        raise ValueError(f"a size must not be negative, but is {size}")
    chunks = max(1, -(-size // _chunk_bytes(dtype, values_per_chunk)))
    per_chunk = LENGTH_FIELD_SIZE + EXACT_HEADER_SIZE + dtype.width * _FRAME_BYTES
    return CONTAINER_HEADER_SIZE + chunks * per_chunk + size + size // _FRAME_SHARE + IndexFrame.size(chunks)


def encode_into(
    src: Buffer,
    dst: Buffer,
    dtype: DType,
    *,
    values_per_chunk: int | None = None,
    level: Level = Level.BALANCED,
    row_widths: Sequence[int] = (),
    memory: Memory | None = None,
    verified: bool = False,
) -> int:
    """Encode raw values as one container at the beginning of a buffer, in this thread.

    Args:
        src: little-endian elements, of any length that :func:`~qatqfs.codec.encode_container` accepts.
        dst: writable, and not overlapping ``src``; :func:`encoded_size_bound` bytes are always enough.
        dtype: of the values.
        values_per_chunk: 1 to 2**26; ``None`` for chunks of 256 KiB.
        level: how hard to search for a smaller form.
        row_widths: as for :func:`~qatqfs.codec.encode_payload`.
        memory: lessons of similar values that were encoded before; it makes the search shorter.
        verified: decode every chunk again and compare the values.

    Returns:
        The size of the container in bytes. Bytes of ``dst`` after it do not change.

    Raises:
        EncodingFault: if ``verified`` finds a wrong chunk.
        ValueError: if the length does not fit the dtype, ``values_per_chunk`` is not legal, or ``dst`` is read-only
            or too small. The content of ``dst`` is undefined then.
        LimitExceeded: if there are more than 2**20 chunks.
    """
    raw, out = as_bytes(src), as_bytes(dst)
    if out.readonly:
        raise ValueError("a writable buffer is needed")
    chunk_bytes = _chunk_bytes(dtype, values_per_chunk)
    info = encode_to(
        _BufferSink(out),
        raw,
        dtype,
        chunk_bytes // dtype.width,
        level=level,
        row_widths=row_widths,
        memory=memory if memory is not None else Memory(),
        verified=verified,
    )
    return info.size


def decode_into(src: Buffer, dst: Buffer, *, dtype: DType | None = None, limits: Limits | None = None) -> int:
    """Decode the container at the beginning of a buffer into another, and verify every chunk's checksum.

    Args:
        src: the container. Bytes after it are ignored, so it may be a buffer of the largest size.
        dst: writable, at least as long as the content.
        dtype: the dtype that the container must have, ``None`` for any.
        limits: what to refuse although the format allows it.

    Returns:
        The size of the content in bytes. Bytes of ``dst`` after it do not change.

    Raises:
        QatcError: the first thing that is wrong with the container. The content of ``dst`` is undefined then.
        ValueError: if ``dst`` is read-only or too small.
    """
    view = as_bytes(src)
    container = Container.from_buffer(view[: container_size(view)], limits=limits)
    if dtype is not None and container.dtype is not dtype:
        raise MixedDtypes(dtype.label, container.dtype.label)
    out = as_bytes(dst)
    if out.readonly or len(out) < container.length:
        raise ValueError(f"a writable buffer of {container.length} bytes is needed")
    container.read(0, container.length, out)
    return container.length


def container_size(buf: Buffer) -> int:
    """Return the size of the container at the beginning of a buffer, from the lengths of its chunks alone.

    Raises:
        QatcError: it is not a container, or it is cut off.
    """
    view = as_bytes(buf)
    header = ContainerHeader.parse(view)
    end = CONTAINER_HEADER_SIZE
    for chunk in range(header.chunk_count):
        length = int.from_bytes(view[end : end + LENGTH_FIELD_SIZE], "big")
        end += LENGTH_FIELD_SIZE + length
        if length < EXACT_HEADER_SIZE or end > len(view):
            raise InvalidContainer(f"chunk {chunk} is cut off or has no header")
    return end


def _chunk_bytes(dtype: DType, values_per_chunk: int | None) -> int:
    if values_per_chunk is None:
        return DEFAULT_CHUNK_BYTES
    if values_per_chunk <= 0:
        raise ValueError(f"a chunk has at least one value, not {values_per_chunk}")
    return values_per_chunk * dtype.width
