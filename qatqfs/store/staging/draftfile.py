"""Write a growing draft to disk, in whole pages and early, so that little is left when the commit waits for it.

Payloads are gathered and written in whole pages. A page that is written twice, or completed after it has left memory,
costs a read or a second write. The last partial page stays in memory until the commit flushes the draft.

The kernel begins to write a file only when it is some seconds old or much of memory is dirty. A large container would
be complete by then, and the fsync at the end would take as long as writing all of it. So :class:`WriteBack` asks for
the file's dirty pages to be written every few megabytes, which hardly waits. Now and then it also makes the file
durable so far. That waits for the disk, so it happens on a thread of its own.
"""

import errno
import mmap
from collections.abc import Sequence
from concurrent.futures import Executor, Future

from qatqfs.store.system.backing import BackingIO, Buffer
from qatqfs.store.system.files import Fd

_PAGE_BYTES = mmap.PAGESIZE
_CACHED_BYTES = 64 << 20
"""What a container has beyond these leaves memory when it is on disk: it would only drive other things out, and
fresh memory for all of it takes as long as encoding it."""
_BEGIN_BYTES = 8 << 20
SYNC_BYTES = 64 << 20
"""Bytes that a file has to grow by to be made durable so far."""


class WriteBack:
    """Has the disk write one file while it grows. One thread at a time calls.

    Args:
        io: makes the calls.
        fd: the file.
        executor: one thread that may wait for the disk.
    """

    def __init__(self, io: BackingIO, fd: Fd, executor: Executor) -> None:
        self._io = io
        self._fd = fd
        self._executor = executor
        self._begun = 0
        self._durable = 0  # bytes that the last fdatasync covers, also while it is under way
        self._fdatasync: Future[None] | None = None

    def grown(self, size: int) -> None:
        """Note the size that the file has now in bytes.

        Raises:
            OSError: the file could not be made durable. This is raised once, and the file must not be used then.
        """
        if size - self._begun < _BEGIN_BYTES:
            return
        self._io.write_back(self._fd, self._begun, size - self._begun)
        self._begun = size
        if size - self._durable >= SYNC_BYTES and (self._fdatasync is None or self._fdatasync.done()):
            self.wait()
            self._durable = size
            self._fdatasync = self._executor.submit(self._io.fdatasync, self._fd)

    def cut(self, size: int) -> None:
        """Note that the file was cut to so many bytes."""
        self._begun = min(self._begun, size)
        self._durable = min(self._durable, size)

    def wait(self) -> None:
        """Wait for the fdatasync under way, if there is one; raises OSError as :meth:`grown`."""
        running, self._fdatasync = self._fdatasync, None
        if running is not None:
            running.result()


class DraftFile:
    """The file of a draft, to which a :class:`~qatqfs.codec.ContainerWriter` appends. One thread at a time calls.

    Buffers are gathered, and several of them are written in one call. Once a write has failed, every later one
    fails, because the content of the file is unknown.

    Args:
        io: makes the calls.
        fd: the file.
        disk_waiter: one thread that may wait for the disk.

    Attributes:
        position: where the file ends once everything gathered is written, in bytes.
    """

    def __init__(self, io: BackingIO, fd: Fd, disk_waiter: Executor) -> None:
        self._io = io
        self._fd = fd
        self._write_back = WriteBack(io, fd, disk_waiter)
        self._gathered: list[Buffer] = []
        self._broken = False
        self.position = 0

    @property
    def written(self) -> int:
        """Where the file ends now, in bytes."""
        return self.position - sum(map(len, self._gathered))

    def write(self, data: Buffer) -> None:
        """Append all of ``data``, which must not change before it is written."""
        self._gathered.append(data)
        self.position += len(data)

    def patch(self, offset: int, data: Buffer) -> None:
        """Write everything gathered, then overwrite bytes; raises OSError."""
        self.flush()
        self._put(offset, data)

    def flush(self) -> None:
        """Write everything gathered; raises OSError."""
        self._flush(self.position)

    def flush_pages(self) -> None:
        """Write what fills whole pages of the file, and have the disk begin with it.

        Raises:
            OSError: writing failed, or making an earlier part of the file durable did.
        """
        self._flush(self.position - self.position % _PAGE_BYTES)
        self._write_back.grown(self.written)

    def _flush(self, stop: int) -> None:
        """Write what was gathered up to an offset in the file."""
        if self._broken:
            raise OSError(errno.EIO, "a write to the container has failed before")
        offset = self.written
        buffers, rest = _split(self._gathered, max(0, stop - offset))
        self._gathered = [b"".join(rest)] if rest else []  # a copy, for a part would keep all of a payload
        if not buffers:
            return
        self._broken = True
        done = self._io.pwritev(self._fd, buffers, offset, uncached=offset >= _CACHED_BYTES)
        for buffer in buffers:
            if done < len(buffer):
                self._put(offset + done, memoryview(buffer)[done:])
                done = len(buffer)
            done -= len(buffer)
            offset += len(buffer)
        self._broken = False

    def _put(self, offset: int, data: Buffer) -> None:
        """Write all of a buffer. After a short write the next call says why, with ENOSPC for example."""
        left = memoryview(data)
        while len(left):
            done = self._io.pwrite(self._fd, left, offset)
            left = left[done:]
            offset += done

    def cut(self) -> None:
        """Cut the file at :attr:`position`; raises OSError."""
        self._io.ftruncate(self._fd, self.position)
        self._write_back.cut(self.position)

    def wait(self) -> None:
        """Wait until the disk has done what it was asked for.

        Raises:
            OSError: it failed. This is raised once, and the file must not be used then.
        """
        self._write_back.wait()


def _split(buffers: Sequence[Buffer], size: int) -> tuple[list[Buffer], list[Buffer]]:
    """Split a sequence of buffers after so many bytes, 0 or more."""
    before: list[Buffer] = []
    after: list[Buffer] = []
    for buffer in buffers:
        view = memoryview(buffer)
        cut = min(size, len(view))
        if cut:
            before.append(view[:cut])
        if cut < len(view):
            after.append(view[cut:])
        size -= cut
    return before, after
