"""Logical bytes to a container file, chunk by chunk on several threads, in constant memory.

What is encoded here soon becomes the only copy of somebody's data. So each payload is decoded once, right after it was
made, and compared with the bytes it was made from: whatever went wrong in between is noticed while they are still
there.
"""

import errno
import itertools
import operator
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future

from qatqfs.codec import (
    MAX_CHUNKS,
    ContainerInfo,
    ContainerWriter,
    DType,
    EncodingFault,
    FileSink,
    Level,
    LimitExceeded,
    Memory,
    encode_payload,
    encode_payloads,
)
from qatqfs.store.tensorheader import NO_HEADER, TensorHeader

Buffer = bytes | bytearray | memoryview

ReadAt = Callable[[int, int], bytes]
"""``read_at(offset, size)`` returns that part of the logical file, shorter only at its end."""

Progress = Callable[[int], None]
"""Called with the number of raw bytes done since the last call."""


class ShortReadError(OSError):
    """The logical file became shorter while it was being encoded."""


def encode_chunk(
    raw: Buffer,
    dtype: DType,
    level: Level,
    *,
    appendable: bool = False,
    row_widths: Sequence[int] = (),
    memory: Memory | None = None,
) -> bytes:
    """Return the payload of one chunk's raw bytes; the last value of a file, if it is cut, is padded with zeros.

    Args:
        raw: the chunk.
        dtype: of its values.
        level: effort.
        appendable: an index frame is going to follow, see :func:`qatqfs.codec.encode_payload`.
        row_widths: elements that a row may have, hints as :func:`qatqfs.codec.encode_payload` takes them.
        memory: what the file's other chunks taught; threads may share it.

    Raises:
        OSError: EIO when what was encoded cannot be decoded, which is a fault of ours or of the machine's memory.
    """
    if len(raw) % dtype.width:
        raw = bytes(raw) + bytes(-len(raw) % dtype.width)  # the index frame has the true length
    try:
        return encode_payload(
            raw, dtype, level=level, appendable=appendable, row_widths=row_widths, memory=memory, verified=True
        )
    except EncodingFault as err:
        raise OSError(errno.EIO, str(err)) from err


def encode_chunks(
    raws: Sequence[Buffer], dtype: DType, level: Level, *, row_widths: Sequence[Sequence[int]], memory: Memory
) -> list[bytes]:
    """Return the payloads of chunks that follow one another, none of them the last of a file.

    They are what :func:`encode_chunk` gives, in fewer calls that hold the interpreter's lock.

    Args:
        raws: the chunks.
        dtype: of their values.
        level: effort.
        row_widths: for each chunk the hints that :func:`encode_chunk` takes.
        memory: as :func:`encode_chunk` takes it.

    Raises:
        OSError: as :func:`encode_chunk`.
    """
    payloads: list[bytes] = []
    for widths, group in itertools.groupby(zip(raws, row_widths, strict=True), key=operator.itemgetter(1)):
        some = [raw for raw, _ in group]
        try:
            payloads += encode_payloads(some, dtype, level=level, row_widths=widths, memory=memory, verified=True)
        except EncodingFault as err:
            raise OSError(errno.EIO, str(err)) from err
    return payloads


def _payloads(
    read_at: ReadAt,
    size: int,
    dtype: DType,
    header: TensorHeader,
    chunk_size: int,
    level: Level,
    executor: Executor,
    window: int,
) -> Iterator[tuple[bytes, int]]:
    """Yield each chunk's payload and raw length in order, at most ``window`` chunks being worked on."""
    running: deque[tuple[Future[bytes], int]] = deque()
    memory = Memory()
    try:
        for offset in range(0, size, chunk_size):
            raw = read_at(offset, min(chunk_size, size - offset))
            if len(raw) != min(chunk_size, size - offset):
                raise ShortReadError(f"the file ends at {offset + len(raw)} bytes, not at {size}")
            widths = header.row_widths(offset, offset + len(raw), dtype)
            future = executor.submit(encode_chunk, raw, dtype, level, row_widths=widths, memory=memory)
            running.append((future, len(raw)))
            if len(running) >= window:
                future, length = running.popleft()
                yield future.result(), length
        while running:
            future, length = running.popleft()
            yield future.result(), length
    finally:
        for future, _ in running:
            future.cancel()


def write_container(
    fd: int,
    read_at: ReadAt,
    size: int,
    dtype: DType,
    *,
    header: TensorHeader = NO_HEADER,
    chunk_size: int,
    level: Level,
    executor: Executor,
    workers: int,
    progress: Progress | None = None,
) -> ContainerInfo:
    """Encode a logical file into an empty, open container file.

    Args:
        fd: descriptor to write to, at offset 0.
        read_at: reads the logical file.
        size: its length in bytes, any.
        dtype: of its values.
        header: what it says about its tensors.
        chunk_size: raw bytes per chunk, a multiple of 4.
        level: effort.
        executor: threads to encode on; ``workers`` says how many they are.
        workers: see ``executor``.
        progress: told about raw bytes as they are done.

    Raises:
        OSError: reading or writing failed; :class:`ShortReadError` if the file ended early.
        LimitExceeded: more chunks than a container may have; nothing was read or written then.
    """
    if (chunks := -(-size // chunk_size)) > MAX_CHUNKS:
        raise LimitExceeded("chunks in a container", chunks, MAX_CHUNKS)
    with os.fdopen(os.dup(fd), "wb", buffering=1 << 20) as stream:
        writer = ContainerWriter(FileSink(stream), dtype, chunk_size // dtype.width, level=level)
        for payload, length in _payloads(read_at, size, dtype, header, chunk_size, level, executor, workers + 2):
            writer.append(payload)
            if progress is not None:
                progress(length)
        return writer.finish(size)
