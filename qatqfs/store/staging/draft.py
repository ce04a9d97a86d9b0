"""A container in the making: a file in staging that grows chunk by chunk until it is complete.

A draft may be begun long before the commit, while a program still writes the file from front to back. Whoever
changes a chunk that a draft has taken already notes it in ``stale``; the commit then goes on from the first stale
chunk and copies what is sound behind it from the old draft.

A draft has one producer at a time, who holds the inode's commit lock and may let worker threads append in turn.
``claimed`` and ``stale`` belong to the content lock.

What a draft has on disk its file need not reserve any more, so each says how much that is whenever it grows
(``on_grown``); whoever rewinds or replaces one says so before space is given back, and nobody takes what was promised.
"""

import array
import errno
import itertools
import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from qatqfs.codec import CONTAINER_HEADER_SIZE, LENGTH_FIELD_SIZE, ContainerInfo, ContainerWriter, DType, IndexFrame
from qatqfs.codec import Level as EncoderLevel
from qatqfs.store.staging.area import NEW, StagingArea
from qatqfs.store.staging.writeback import WriteBack
from qatqfs.store.system.backing import BackingIO, Buffer
from qatqfs.store.system.fd import Fd, pread_exact
from qatqfs.store.tensors.header import NO_HEADER

_COPY_BYTES = 64 << 20
_PAGE_BYTES = mmap.PAGESIZE
_serial = itertools.count()


def _split(buffers: Sequence[Buffer], size: int) -> tuple[list[Buffer], list[Buffer]]:
    """Part a sequence of buffers after so many bytes, 0 or more, of it."""
    before: list[Buffer] = []
    behind: list[Buffer] = []
    for buffer in buffers:
        view = memoryview(buffer)
        cut = min(size, len(view))
        if cut:
            before.append(view[:cut])
        if cut < len(view):
            behind.append(view[cut:])
        size -= cut
    return before, behind


class _FileSink:
    """Appends to a file from a position on, several buffers in one call; a short write is ENOSPC at the next try.

    Args:
        io: makes the calls.
        fd: the file.
        cached_bytes: what the file has beyond them leaves the page cache.

    Attributes:
        position: where the file ends, or is going to end when what was gathered is written.
    """

    def __init__(self, io: BackingIO, fd: Fd, cached_bytes: int) -> None:
        self._io = io
        self._fd = fd
        self._cached_bytes = cached_bytes
        self._gathered: list[Buffer] = []
        self._broken = False
        self.position = 0

    @property
    def written(self) -> int:
        """Where the file ends now."""
        return self.position - sum(map(len, self._gathered))

    def write(self, data: Buffer) -> None:
        """Append all of ``data``, which must not change before it is written."""
        self._gathered.append(data)
        self.position += len(data)

    def flush(self, *, whole_pages: bool = False) -> None:
        """Write what was gathered; raises OSError, then and ever after: nobody knows what is in the file.

        Args:
            whole_pages: keep back what does not fill a page of the file. So no page is written twice, or read to be
                completed after it has left memory.
        """
        if self._broken:
            raise OSError(errno.EIO, "a write to the container has failed before")
        offset, buffers, self._gathered = self.written, self._gathered, []
        if whole_pages:
            buffers, rest = _split(buffers, max(0, self.position - self.position % _PAGE_BYTES - offset))
            self._gathered = [b"".join(rest)] if rest else []  # a copy, for a part would keep all of a payload
        if not buffers:
            return
        self._broken = True
        done = self._io.pwritev(self._fd, buffers, offset, uncached=offset >= self._cached_bytes)
        for buffer in buffers:
            if done < len(buffer):
                self._put(offset + done, memoryview(buffer)[done:])
                done = len(buffer)
            done -= len(buffer)
            offset += len(buffer)
        self._broken = False

    def patch(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes, after what was gathered is written; raises OSError."""
        self.flush()
        self._put(offset, data)

    def _put(self, offset: int, data: Buffer) -> None:
        left = memoryview(data)
        while len(left):
            done = self._io.pwrite(self._fd, left, offset)
            left = left[done:]
            offset += done


class Draft:
    """See the module's text.

    Args:
        area: where it is made.
        entry_id: of the staging entry.
        dtype: of the values.
        chunk_size: raw bytes of a chunk.
        level: effort of the encoder.
        on_grown: told how many bytes the file has, when they got more.
        disk_waiter: one thread that may wait for the disk.

    Attributes:
        name: of the file, in the staging directory.
        fd: the file.
        dtype: see above.
        chunk_size: see above.
        level: see above.
        count: chunks in it; the last of them is held back in memory.
        claimed: chunks that are in it or being encoded for it.
        stale: those of them that were changed since.
        header: what the content says about its tensors, where whoever fills the draft has looked.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        area: StagingArea,
        entry_id: bytes,
        dtype: DType,
        chunk_size: int,
        level: EncoderLevel,
        on_grown: Callable[[int], None],
        disk_waiter: Executor,
    ) -> None:
        self.name = b"%s-%d%s" % (entry_id, next(_serial), NEW)
        self.dtype = dtype
        self.chunk_size = chunk_size
        self.level = level
        self.count = 0
        self.claimed = 0
        self.stale: set[int] = set()
        self.header = NO_HEADER
        self._area = area
        self._io = area.io
        self._on_grown = on_grown
        self._lengths = array.array("I")
        self._offsets = array.array("Q")  # of each chunk's length field
        self._states = array.array("Q")  # of the checksum before each chunk from _first_state on
        self._first_state = 0
        self._last = b""
        self.fd = area.open_new(self.name)
        try:
            self._sink = _FileSink(self._io, self.fd, area.tuning.page_cache_bytes)
            self._write_back = WriteBack(self._io, self.fd, disk_waiter, area.tuning)
            self._writer = ContainerWriter(self._sink, dtype, chunk_size // dtype.width, level=level)
            self._sink.flush()
        except BaseException:
            self.discard()
            raise

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._sink.written

    def note_change(self, first: int, stop: int) -> None:
        """Note that chunks are about to be changed; content lock held."""
        if first < self.claimed:
            self.stale.update(range(first, min(stop, self.claimed)))

    def append(self, payloads: Sequence[bytes]) -> None:
        """Add the next chunks' payloads; raises OSError, QatcError."""
        if not payloads:
            return
        self._states.extend(self._writer.extend(payloads))
        offset = self._offsets[-1] + LENGTH_FIELD_SIZE + self._lengths[-1] if self._offsets else CONTAINER_HEADER_SIZE
        for payload in payloads:
            self._offsets.append(offset)
            self._lengths.append(len(payload))
            offset += LENGTH_FIELD_SIZE + len(payload)
        self._last = payloads[-1]
        self._sink.flush(whole_pages=True)
        self._write_back.grown(self._sink.written)
        self.count += len(payloads)
        self._on_grown(self._sink.written)

    def payload(self, chunk: int) -> bytes:
        """Return the payload of a chunk; raises OSError."""
        if chunk == self.count - 1 and self._last:
            return self._last
        return pread_exact(self.fd.number, self._lengths[chunk], self._offsets[chunk] + LENGTH_FIELD_SIZE)

    def take_prefix(self, source: Fd, lengths: Sequence[int], state: int) -> None:
        """Begin with the chunks that another container begins with, copied by the kernel and not hashed again.

        Args:
            source: the container.
            lengths: of the payloads to take.
            state: of its checksum behind them.

        Raises:
            OSError: what copying reported.
        """
        self._resume(lengths, state)
        position = CONTAINER_HEADER_SIZE
        while position < self._sink.position:
            wanted = min(_COPY_BYTES, self._sink.position - position)
            done = self._io.copy_range(source, position, self.fd, position, wanted)
            if done == 0:
                raise OSError(errno.EIO, "a container ends before its index says so")
            position += done
        self._on_grown(position)

    def _resume(self, lengths: Sequence[int], state: int) -> None:
        index = IndexFrame(0, self.chunk_size // self.dtype.width, [*lengths, 0], state, self.dtype)
        self._sink.position = 0
        self._writer = ContainerWriter.resume(self._sink, index, level=self.level)
        self._sink.flush()
        self._lengths = array.array("I", lengths)
        self._last = b""  # all that is kept is in the file
        self.count = len(lengths)
        sizes = (length + LENGTH_FIELD_SIZE for length in lengths)
        self._offsets = array.array("Q", itertools.accumulate(sizes, initial=CONTAINER_HEADER_SIZE))
        self._sink.position = self._offsets.pop()
        self._states = array.array("Q")
        self._first_state = self.count

    def size_before(self, chunk: int) -> int:
        """Return the bytes that :meth:`rewind` leaves of the file."""
        return self._offsets[chunk] if chunk < self.count else self.size

    def settle(self) -> None:
        """Return when all that was appended is in the file, and the disk is done with what it was asked for.

        Raises:
            OSError: that failed, which is said once: nothing of the draft may be used.
        """
        self._sink.flush()
        self._on_grown(self._sink.written)
        self._write_back.settle()

    def rewind(self, chunk: int) -> None:
        """Go back to before a chunk of a draft that is settled, one of those that were appended; raises OSError."""
        if chunk < self.count:
            assert chunk >= self._first_state
            states = self._states[: chunk - self._first_state]
            first = self._first_state
            self._sink.flush()
            self._resume(self._lengths[:chunk], self._states[chunk - first])
            self._states, self._first_state = states, first
            self._io.ftruncate(self.fd, self._sink.position)
            self._write_back.cut(self._sink.position)

    def prefix(self, chunk: int) -> tuple[Fd, Sequence[int], int]:
        """Return what :meth:`take_prefix` of another draft takes to begin like this one, settled, up to a chunk."""
        assert chunk >= self._first_state
        return self.fd, self._lengths[:chunk], self._states[chunk - self._first_state]

    def finish(self, length: int) -> ContainerInfo:
        """Complete the container of a content of so many bytes; raises OSError, QatcError."""
        info = self._writer.finish(length)
        self.settle()
        return info

    def discard(self) -> None:
        """Remove the file, its space at once, whoever still has it open; never fails."""
        self._area.abandon(self.name, self.fd)
