"""Handles: an open file, as the program sees it that opened it."""

import errno
from collections.abc import Callable

from qatqfs.store.attributes import Attributes
from qatqfs.store.errors import os_error
from qatqfs.store.names.node import Node
from qatqfs.store.reading.cache import Chunk


class Handle:
    """An open file. Close it exactly once; its methods are safe from several threads.

    Args:
        node: the file.
        writable: it was opened for writing.
        release: called by :meth:`close`.
    """

    def __init__(self, node: Node, *, writable: bool, release: Callable[["Handle"], None]) -> None:
        self.node = node
        self.writable = writable
        self._release = release
        self._sequential_offset = 0
        self._ahead_until = 0
        self._closed = False

    def read(self, size: int, offset: int) -> Chunk:
        """Return exactly the bytes of a range, cut only at the end of the file; raises OSError."""
        data = self.node.read(offset, size)
        self._note_read(offset, len(data))
        return data

    def read_cached(self, size: int, offset: int) -> Chunk | None:
        """As :meth:`read` when that takes no disk access and no decoding, else ``None``."""
        data = self.node.read_cached(offset, size)
        if data is not None:
            self._note_read(offset, len(data))
        return data

    @property
    def file(self) -> Node:
        """The file, as clients of the store know it (:class:`qatqfs.store.facade.File`)."""
        return self.node

    def _note_read(self, offset: int, size: int) -> None:
        sequential = offset == self._sequential_offset
        self._sequential_offset = offset + size
        container = self.node.opened_container
        if sequential and size and container is not None and self.node.staging is None:
            self._ahead_until = container.read_ahead(offset + size, self._ahead_until)

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write bytes and return how many; raises OSError (EBADF on a handle opened for reading)."""
        self._check_writable()
        return self.node.write(data, offset)

    def write_quickly(self, data: bytes | bytearray | memoryview, offset: int) -> int | None:
        """As :meth:`write` if that is one system call on an open staging file, else ``None``; raises OSError."""
        return self.node.write_quickly(data, offset) if self.writable else None

    def truncate(self, size: int) -> None:
        """Set the logical size in bytes; raises OSError."""
        self._check_writable()
        self.node.truncate(size)

    def _check_writable(self) -> None:
        if not self.writable:
            raise os_error(errno.EBADF)

    def fsync(self) -> None:
        """Make what was written durable; raises OSError."""
        if not self.node.context.options.read_only:
            self.node.fsync()

    def attributes(self) -> Attributes:
        """Return what fstat(2) shows; raises OSError."""
        return self.node.attributes()

    def close(self) -> None:
        """Give the handle back; the last writer of a dirty file starts its commit."""
        if not self._closed:
            self._closed = True
            self._release(self)
            del self.node  # a handle that is closed but still referred to must not keep a removed file open

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
