"""Reads parts of a container from memory, a descriptor or any other place."""

import os
from collections.abc import Callable

from qatqfs.codec.buffers import Buffer, as_bytes
from qatqfs.codec.errors import InvalidContainer

TAIL_SIZE = 64 * 1024
"""Bytes that are read at once from the end of a container: the index of 16,000 chunks."""

ReadAt = Callable[[int, int], Buffer]
"""``read_at(offset, size)`` returns that part of a container, shorter only at its end; raises OSError."""


def read_exactly(read_at: ReadAt, offset: int, size: int) -> memoryview:
    """Return exactly ``size`` bytes; raises InvalidContainer if the file is shorter, or OSError."""
    view = as_bytes(read_at(offset, size))
    if len(view) < size:
        raise InvalidContainer(f"it ends at offset {offset + len(view)}, before {offset + size}")
    return view[:size]


def reader_of(buf: Buffer) -> ReadAt:
    """Return a ``read_at`` over a container in memory."""
    view = as_bytes(buf)
    return lambda offset, size: view[offset : offset + size]


def reader_of_fd(fd: int) -> ReadAt:
    """Return a ``read_at`` over an open file. It calls pread(2), which does not use the file's position.

    The caller closes the descriptor after the last read. Raises what pread reports.
    """

    def read_at(offset: int, size: int) -> Buffer:
        data = os.pread(fd, size, offset)
        while data and len(data) < size:  # one call reads at most 2 GiB, and may be interrupted
            more = os.pread(fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    return read_at
