"""Decodes a container as a stream, on several threads, in constant memory, and verifies every checksum.

This is stricter than reading through a mount, which cannot check the aggregate checksum. The chunks are taken in file
order, and an index that disagrees with them counts as damage.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future

from qatqfs.codec import (
    FNV_OFFSET,
    LENGTH_FIELD_SIZE,
    UNLIMITED,
    ChecksumMismatch,
    Container,
    InvalidContainer,
    ReadAt,
    fnv1a64,
)


def decoded_chunks(
    read_at: ReadAt, size: int, *, executor: Executor, window: int, progress: Callable[[int], None]
) -> Iterator[memoryview]:
    """Yield the content of each chunk in order, and work on at most ``window`` chunks at a time.

    The content is verified only when the end is reached, because the aggregate checksum is known last.

    Args:
        read_at: reads the container; called from several threads.
        size: of the container, in bytes.
        executor: threads to decode on.
        window: the most chunks in work at a time.
        progress: called with the number of container bytes just done.

    Raises:
        QatcError: the first thing that is wrong.
        OSError: what ``read_at`` raised.
    """
    container = Container.open(read_at, size, limits=UNLIMITED)
    running: deque[Future[memoryview]] = deque()
    started = 0
    state = before_last = FNV_OFFSET
    try:
        for number in range(container.chunk_count):
            while started < container.chunk_count and len(running) < window:
                running.append(executor.submit(container.read_chunk, started))
                started += 1
            yield running.popleft().result()
            header = container.chunk_header(number)
            stored = read_at(header.offset, LENGTH_FIELD_SIZE + header.payload_length)
            before_last, state = state, fnv1a64(stored, state)
            progress(len(stored))
    finally:
        for future in running:
            future.cancel()
    if state != container.header.checksum:
        raise ChecksumMismatch(container.header.checksum, state)
    if container.index is not None and container.index.state_before_last != before_last:
        raise InvalidContainer("the index has another checksum state than the chunks before the last")
