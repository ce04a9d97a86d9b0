"""Write a logical file as a container, chunk by chunk on several threads, in constant memory."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future

from qatqfs.codec import MAX_CHUNKS, ContainerInfo, ContainerWriter, DType, FileSink, Level, LimitExceeded
from qatqfs.store.encoding.chunks import StreamEncoder
from qatqfs.store.tensors.header import NO_HEADER, TensorHeader

ReadAt = Callable[[int, int], bytes]
"""``read_at(offset, size)`` returns that part of the logical file, shorter only at its end."""

Progress = Callable[[int], None]
"""Called with the number of raw bytes done since the last call."""


class ShortReadError(OSError):
    """The logical file became shorter while it was being encoded."""


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
        executor: threads to encode on.
        workers: how many threads the executor has.
        progress: told about raw bytes as they are done.

    Raises:
        OSError: reading or writing failed, or a chunk does not decode again; :class:`ShortReadError` if the file
            ended early.
        LimitExceeded: the file has more chunks than a container may have. Nothing was read or written.
    """
    if (chunks := -(-size // chunk_size)) > MAX_CHUNKS:
        raise LimitExceeded("chunks in a container", chunks, MAX_CHUNKS)
    encoder = StreamEncoder(dtype, level)

    def submit(offset: int) -> "Future[bytes]":
        length = min(chunk_size, size - offset)
        raw = read_at(offset, length)
        if len(raw) != length:
            raise ShortReadError(f"the file ends at {offset + len(raw)} bytes, not at {size}")
        return executor.submit(encoder.encode_one, raw, header.row_widths(offset, offset + length, dtype))

    with os.fdopen(os.dup(fd), "wb", buffering=1 << 20) as stream:
        writer = ContainerWriter(FileSink(stream), dtype, chunk_size // dtype.width, level=level)
        offsets = range(0, size, chunk_size)
        for offset, payload in zip(offsets, _in_order(map(submit, offsets), workers + 2), strict=True):
            writer.append(payload)
            if progress is not None:
                progress(min(chunk_size, size - offset))
        return writer.finish(size)


def _in_order(futures: "Iterator[Future[bytes]]", window: int) -> Iterator[bytes]:
    """Yield the results of futures in order, at most ``window`` of them taken and not yielded yet."""
    running: deque[Future[bytes]] = deque()
    try:
        for future in futures:
            running.append(future)
            if len(running) >= window:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()
