"""Targets that a container is written to: bytes in order, and one patch of the header at the end."""

import fcntl
import io
import os
from typing import BinaryIO, Protocol

from qatqfs.codec.buffers import Buffer, as_bytes


class Sink(Protocol):
    """Takes a container's bytes."""

    def write(self, data: Buffer) -> None:
        """Append all of ``data``; raises OSError."""

    def patch(self, offset: int, data: Buffer) -> None:
        """Overwrite earlier bytes at an offset from the container's start; raises OSError."""


class FileSink:
    """A sink over a file descriptor or a seekable binary file.

    A descriptor is written from its current position with write(2) and patched with pwrite(2). Both are repeated until
    all is written. The container starts at the current position of the file. Content of the file after the container
    is not cut off. If a buffered file uses the same descriptor, flush it first.

    Args:
        file: a descriptor or a binary file, which the caller closes.

    Raises:
        ValueError: the file is open for appending, so it cannot be patched.
        OSError: the file is not seekable.
    """

    def __init__(self, file: int | BinaryIO) -> None:
        self._fd = file if isinstance(file, int) else None
        self._file = None if isinstance(file, int) else file
        if _appends(file):
            raise ValueError("a file that is open for appending cannot be patched")
        self._start = os.lseek(file, 0, os.SEEK_CUR) if isinstance(file, int) else file.tell()

    def write(self, data: Buffer) -> None:
        """Append all of ``data``; raises OSError."""
        left = as_bytes(data)
        while len(left):
            count = os.write(self._fd, left) if self._fd is not None else self._file_write(left)
            left = left[count:]

    def _file_write(self, data: memoryview) -> int:
        assert self._file is not None
        return self._file.write(data) or 0

    def patch(self, offset: int, data: Buffer) -> None:
        """Overwrite earlier bytes; raises OSError."""
        left = as_bytes(data)
        if self._file is not None:
            end = self._file.tell()
            self._file.seek(self._start + offset)
            self.write(left)
            self._file.seek(end)
            return
        assert self._fd is not None
        while len(left):
            count = os.pwrite(self._fd, left, self._start + offset)
            offset += count
            left = left[count:]


def _appends(file: int | BinaryIO) -> bool:
    try:
        descriptor = file if isinstance(file, int) else file.fileno()
    except (AttributeError, OSError):  # for example a file in memory
        return False
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


class BytesSink:
    """A sink in memory."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()

    def write(self, data: Buffer) -> None:
        """Append all of ``data``."""
        self._buffer.write(data)

    def patch(self, offset: int, data: Buffer) -> None:
        """Overwrite earlier bytes."""
        end = self._buffer.tell()
        self._buffer.seek(offset)
        self._buffer.write(data)
        self._buffer.seek(end)

    def getvalue(self) -> bytes:
        """Return what was written."""
        return self._buffer.getvalue()
