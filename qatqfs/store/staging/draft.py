"""A container in the making: a file in staging that grows chunk by chunk until it is complete.

A draft may be begun long before the commit, while a program still writes the file from front to back. A writer that
changes a chunk which a draft has already taken notes it in ``stale``. The commit then goes on from the first stale
chunk, and copies the later chunks that are not stale from the old draft.

A draft has one producer at a time. The producer holds the node's commit lock, and may let worker threads append in
turn. The content lock protects ``claimed`` and ``stale``.

A file need not reserve what its draft has on disk already. So a draft reports its size each time it grows
(``on_grown``). Before a draft is cut or replaced, its producer reports the smaller size. Otherwise writers could take
the space that is promised.
"""

import array
import errno
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from qatqfs.codec import CONTAINER_HEADER_SIZE, LENGTH_FIELD_SIZE, ContainerInfo, ContainerWriter, DType, IndexFrame
from qatqfs.codec import Level as EncoderLevel
from qatqfs.store.staging.area import NEW, StagingArea
from qatqfs.store.staging.draftfile import DraftFile
from qatqfs.store.system.files import Fd, pread_exact
from qatqfs.store.tensors.header import NO_HEADER

_COPY_BYTES = 64 << 20
_serial = itertools.count()


class Draft:
    """See the module's text.

    Args:
        area: where it is made.
        entry_id: of the staging entry.
        dtype: of the values.
        chunk_size: raw bytes of a chunk.
        level: effort of the encoder.
        on_grown: told how many bytes the file has, each time it has grown.
        disk_waiter: one thread that may wait for the disk.

    Attributes:
        name: of the file, in the staging directory.
        fd: the file.
        dtype: see above.
        chunk_size: see above.
        level: see above.
        count: chunks appended so far. The end of the last one may still be in memory.
        claimed: chunks that are in the draft or being encoded for it.
        stale: those of them that were changed since.
        header: what the content says about its tensors, once it was read.

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
            self._file = DraftFile(self._io, self.fd, disk_waiter)
            self._writer = ContainerWriter(self._file, dtype, chunk_size // dtype.width, level=level)
            self._file.flush()
        except BaseException:
            self.abandon()
            raise

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self._file.written

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
        self._file.flush_pages()
        self.count += len(payloads)
        self._on_grown(self._file.written)

    def payload(self, chunk: int) -> bytes:
        """Return the payload of a chunk; raises OSError."""
        if chunk == self.count - 1 and self._last:
            return self._last
        return pread_exact(self.fd.number, self._lengths[chunk], self._offsets[chunk] + LENGTH_FIELD_SIZE)

    def take_prefix(self, source: Fd, lengths: Sequence[int], state: int) -> None:
        """Begin with the first chunks of another container, copied by the kernel and not hashed again.

        Args:
            source: the container.
            lengths: of the payloads to take, in bytes.
            state: of its checksum after them.

        Raises:
            OSError: what copying reported.
        """
        self._resume(lengths, state)
        position = CONTAINER_HEADER_SIZE
        while position < self._file.position:
            wanted = min(_COPY_BYTES, self._file.position - position)
            done = self._io.copy_range(source, position, self.fd, position, wanted)
            if done == 0:
                raise OSError(errno.EIO, "a container ends before its index says so")
            position += done
        self._on_grown(position)

    def _resume(self, lengths: Sequence[int], state: int) -> None:
        index = IndexFrame(0, self.chunk_size // self.dtype.width, [*lengths, 0], state, self.dtype)
        self._file.position = 0
        self._writer = ContainerWriter.resume(self._file, index, level=self.level)
        self._file.flush()
        self._lengths = array.array("I", lengths)
        self._last = b""  # all that is kept is in the file
        self.count = len(lengths)
        sizes = (length + LENGTH_FIELD_SIZE for length in lengths)
        self._offsets = array.array("Q", itertools.accumulate(sizes, initial=CONTAINER_HEADER_SIZE))
        self._file.position = self._offsets.pop()
        self._states = array.array("Q")
        self._first_state = self.count

    def size_before(self, chunk: int) -> int:
        """Return the bytes that :meth:`rewind` leaves of the file."""
        return self._offsets[chunk] if chunk < self.count else self.size

    def flush(self) -> None:
        """Write all that was appended to the file, and wait until the disk has done what it was asked for.

        Raises:
            OSError: writing failed. It is raised once, and nothing of the draft may be used then.
        """
        self._file.flush()
        self._on_grown(self._file.written)
        self._file.wait()

    def rewind(self, chunk: int) -> None:
        """Cut a flushed draft before one of the chunks that were appended to it; raises OSError."""
        if chunk < self.count:
            assert chunk >= self._first_state
            states = self._states[: chunk - self._first_state]
            first = self._first_state
            self._file.flush()
            self._resume(self._lengths[:chunk], self._states[chunk - first])
            self._states, self._first_state = states, first
            self._file.cut()

    def prefix(self, chunk: int) -> tuple[Fd, Sequence[int], int]:
        """Return what :meth:`take_prefix` of another draft takes: the chunks of this flushed draft before one chunk."""
        assert chunk >= self._first_state
        return self.fd, self._lengths[:chunk], self._states[chunk - self._first_state]

    def finish(self, length: int) -> ContainerInfo:
        """Complete the container of a content of so many bytes; raises OSError, QatcError."""
        info = self._writer.finish(length)
        self.flush()
        return info

    def abandon(self) -> None:
        """Remove the file, and give back its space even while it is open; never fails."""
        self._area.abandon(self.name, self.fd)
