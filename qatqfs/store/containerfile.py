"""A container in BACKING, open for reading: logical byte ranges to verified bytes, through the chunk cache."""

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from qatqfs.codec import (
    CONTAINER_HEADER_SIZE,
    HEAD_SIZE,
    MAX_CHUNKS,
    Container,
    LimitExceeded,
    Limits,
    QatcError,
    claimed_length,
    without_frames,
)
from qatqfs.store.chunkcache import Chunk, ChunkCache
from qatqfs.store.damage import DamageRegister, FileSignature
from qatqfs.store.stats import Statistics
from qatqfs.store.sysfile import Fd, pread_exact
from qatqfs.store.walks import Walks

log = logging.getLogger(__name__)

RUN_CHUNKS = 4
"""Neighbouring chunks that one worker reads and decodes together."""

_MOST_CHECKED = 4096
"""Chunks of a container without an index that are compared one by one to find out how it is cut."""
_LEAST_UNIT_BYTES = 4096
"""Content is not staged in smaller units because a container that somebody else made has smaller chunks."""
_MANY_CHUNKS = 64
"""A range of more is decoded on its own: so small they are not worth a place in the cache."""

_MOST_CHUNKS = 1 << 22
"""Chunks of a container that a daemon is ready for, 64 MiB to know where they are; a reference decoder takes 2**20."""
_LIMITS = Limits(max_chunks=_MOST_CHUNKS, max_total_values=None)
_QUICK = Limits(max_chunks=_MOST_CHUNKS, max_total_values=None, max_walked_chunks=64)
"""What is opened in some milliseconds."""


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What all open containers of a store share.

    Attributes:
        cache: decoded chunks.
        damage: what is known to be corrupt.
        statistics: counters.
        executor: threads that decode ahead.
        read_ahead: chunks to decode ahead of a sequential reader, a multiple of :data:`RUN_CHUNKS`.
        walks: what was found out about containers without an index.
    """

    cache: ChunkCache
    damage: DamageRegister
    statistics: Statistics
    executor: Executor
    read_ahead: int
    walks: Walks = field(default_factory=Walks)


ContentId = tuple[int, int, int, int, bytes]
"""(st_dev, st_ino, stored size, mtime_ns, first 32 bytes, aggregate checksum included): what a container decodes to."""


def signature_of(st: os.stat_result) -> FileSignature:
    """Return what tells one state of a backing file from another without opening it."""
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


class Retired(OSError):
    """This container's bytes are about to be overwritten; whoever read it has to look where they are now."""


def io_error(text: str) -> OSError:
    """Return the EIO that a reader gets for corrupt data."""
    return OSError(errno.EIO, text)


def _corrupt_file(path: bytes, signature: FileSignature, context: ReadContext, err: QatcError) -> OSError:
    """Have what the codec says against a whole file logged and remembered; returns the error that a reader gets."""
    context.damage.report_file(path, signature, str(err))
    return io_error(str(err))


def _read_at(fd: Fd, offset: int, size: int) -> bytes:
    return pread_exact(fd.number, size, offset)


def logical_length(fd: Fd, path: bytes, context: ReadContext) -> int:
    """Return the logical size of a container in bytes, in a few reads.

    One that has to be walked is taken at its word: whether its chunks have what its header says shows when it is
    opened. So who only looks at names and sizes, with the namespace lock held, never walks anything.

    Raises:
        OSError: as :class:`ContainerFile`.
    """
    signature = signature_of(os.fstat(fd.number))
    try:
        try:
            return Container.open(partial(_read_at, fd), signature[2], limits=_QUICK).length
        except LimitExceeded:
            return claimed_length(_read_at(fd, 0, HEAD_SIZE))
    except QatcError as err:
        raise _corrupt_file(path, signature, context, err) from err


def _open(fd: Fd, context: ReadContext, signature: FileSignature) -> Container:
    """Open a container, walking it unless that was done before; raises QatcError, OSError."""
    # Not a method of ContainerFile: in a cycle the descriptor of a file that is gone would be kept till it is found.
    read_at, size, walks = partial(_read_at, fd), signature[2], context.walks
    try:
        return Container.open(read_at, size, limits=_QUICK)
    except LimitExceeded:
        content: ContentId = (*signature[:4], _read_at(fd, 0, CONTAINER_HEADER_SIZE))
    with walks.turn(signature):
        container = Container.open(read_at, size, limits=_LIMITS, walked=walks.layout(content, signature))
        if container.walked is not None:
            walks.remember(content, signature, container.walked)
    return container


class ContainerFile:
    """One container's content; immutable, shared by every handle, closed with its last reference.

    Args:
        fd: the container, readable.
        path: its logical path, for messages.
        context: what it shares with others.

    Attributes:
        length: logical size in bytes.
        content_id: names this content in the cache; what is in there was verified, whatever became of the file.
        signature: the state of the file that this was opened in.
        fd: as given.
        stored_size: bytes of the container.

    Raises:
        OSError: EIO when it is no QATC container (logged and remembered), or what reading it reported.
    """

    def __init__(self, fd: Fd, path: bytes, context: ReadContext) -> None:
        self.fd = fd
        self._path = path
        self._context = context
        st = os.fstat(fd.number)
        self.stored_size = st.st_size
        self._gate = threading.Condition(threading.Lock())
        self._decoding = 0
        self._retired = False
        self.signature = signature_of(st)
        try:
            self.container = _open(fd, context, self.signature)
        except QatcError as err:
            raise _corrupt_file(path, self.signature, context, err) from err
        self.length = self.container.length
        self.content_id: ContentId = (*self.signature[:4], self.container.header_bytes)

    def was_renamed(self) -> None:
        """Note that the file got its name, which changes its ctime and nothing in it; raises OSError."""
        self.signature = signature_of(os.fstat(self.fd.number))

    def chunk_unit(self, default: int) -> tuple[int, bool]:
        """Return a chunk size in bytes for arithmetic on this content, and whether its chunks are cut like that.

        Args:
            default: where the container itself suggests none.
        """
        container = self.container
        if container.chunk_count == 1 and container.index is None:
            return max(default, -(-self.length // 4) * 4), True
        unit, regular = self._own_unit()
        if not regular or unit < min(default, _LEAST_UNIT_BYTES) or container.chunk_count > MAX_CHUNKS:
            return default, False
        return unit, True

    def _own_unit(self) -> tuple[int, bool]:
        """Return the content of each chunk but the last in bytes, and whether that is so."""
        container = self.container
        if container.index is not None:
            return container.index.values_per_chunk * container.dtype.width, True
        if container.chunk_count <= _MOST_CHECKED:
            try:
                unit = container.span(0)[1]
                spans = [container.span(chunk) for chunk in range(container.chunk_count)]
            except QatcError:
                return 0, False
            if unit and spans == [(s, min(s + unit, self.length)) for s in range(0, self.length, unit)]:
                return unit, True
        return 0, False

    def _decode(self, index: int) -> memoryview:
        damage = self._context.damage
        reason = damage.known(self.signature, index)
        if reason is not None:
            raise io_error(reason)
        start, stop = self._span(index)
        out = self._context.cache.pool.take(stop - start)
        try:
            with self._decoding_allowed():
                self.container.read_chunk(index, out)
        except QatcError as err:
            raise self._corrupt(index, err) from err
        self._context.statistics.add("chunks_decoded")
        return out

    def _corrupt(self, index: int, err: QatcError) -> OSError:
        """Note a corrupt chunk; returns the error that a reader gets."""
        logical = stored = None
        with contextlib.suppress(QatcError, OSError):  # the walk to it ends before
            logical, stored = self.container.span(index)[0], self.container.stored_offset(index)
        self._context.damage.report_chunk(self._path, self.signature, index, logical, stored, str(err))
        return io_error(str(err))

    @contextmanager
    def _decoding_allowed(self) -> Iterator[None]:
        """Let :meth:`retire` wait for what is done inside; raises Retired."""
        with self._gate:
            if self._retired:
                raise Retired(errno.EIO, "the container has been replaced")
            self._decoding += 1
        try:
            yield
        finally:
            with self._gate:
                self._decoding -= 1
                self._gate.notify_all()

    def retire(self) -> None:
        """Let nobody read the container from now on, and wait for those who are at it."""
        with self._gate:
            self._retired = True
            while self._decoding:
                self._gate.wait()

    def _span(self, index: int) -> tuple[int, int]:
        try:
            return self.container.span(index)
        except QatcError:  # the walk ends here; what lies behind cannot be placed
            return (self.length, self.length)

    def _locate(self, offset: int) -> int:
        try:
            return self.container.locate(offset)
        except QatcError as err:
            raise _corrupt_file(self._path, self.signature, self._context, err) from err

    def chunk(self, index: int) -> Chunk:
        """Return the logical bytes of a chunk, decoded at most once however many ask.

        Raises:
            OSError: EIO when the chunk is corrupt, or what reading it reported.
        """
        return self._context.cache.get((self.content_id, index), lambda: self._decode(index))

    def read_chunk_uncached(self, index: int) -> Chunk:
        """Return the logical bytes of a chunk without keeping them; raises as :meth:`chunk`."""
        kept = self._context.cache.peek((self.content_id, index))
        return kept if kept is not None else self._decode(index)

    def read_uncached(self, offset: int, size: int) -> Chunk:
        """As :meth:`read`, without keeping what is decoded."""
        stop = min(offset + size, self.length)
        parts = []
        while offset < stop:
            index = self._locate(offset)
            start, end = self._span_or_fail(index)
            parts.append(self.read_chunk_uncached(index)[offset - start : stop - start])
            offset = end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, offset: int, size: int) -> Chunk:
        """Return exactly the bytes of a range, cut only at the end of the file.

        Raises:
            OSError: EIO when any chunk of the range is corrupt; never a good prefix.
        """
        stop = min(offset + size, self.length)
        if offset >= stop:
            return b""
        first = self._locate(offset)
        start, end = self._span_or_fail(first)
        if stop <= end:
            return self.chunk(first)[offset - start : stop - start]
        last = self._locate(stop - 1)
        if last - first >= _MANY_CHUNKS:
            return self._read_many(first, last, offset, stop)
        self._decode_ahead(first + 1, last + 1)
        pool = self._context.cache.pool
        result = pool.take(stop - offset)
        for index in range(first, last + 1):
            start, end = self._span_or_fail(index)
            at = max(start - offset, 0)
            result[at : min(end, stop) - offset] = self.chunk(index)[max(offset - start, 0) : stop - start]
        pool.give_back(result)  # to be used again once the reader has let go of it
        return result

    def _read_many(self, first: int, last: int, offset: int, stop: int) -> Chunk:
        """Return a range that chunks ``first`` to ``last`` hold, past the cache; raises OSError."""
        pool = self._context.cache.pool
        result = pool.take(stop - offset)
        for start in range(first, last + 1, _MANY_CHUNKS):
            count = min(_MANY_CHUNKS, last + 1 - start)
            for index, found in enumerate(self._decoded(start, count), start):
                if isinstance(found, OSError):
                    raise found
                begin, end = self._span_or_fail(index)
                result[max(begin - offset, 0) : min(end, stop) - offset] = found[max(offset - begin, 0) : stop - begin]
                pool.give_back(found)
        pool.give_back(result)
        return result

    def _span_or_fail(self, index: int) -> tuple[int, int]:
        try:
            return self.container.span(index)
        except QatcError as err:
            raise io_error(str(err)) from err

    def read_cached(self, offset: int, size: int) -> Chunk | None:
        """Return a range if it lies in one chunk that is in the cache, without blocking; else ``None``."""
        stop = min(offset + size, self.length)
        if offset >= stop:
            return b""
        try:
            index = self.container.locate(offset)
            start, end = self.container.span(index)
        except QatcError:  # whoever reads it finds out, and says so
            return None
        chunk = self._context.cache.peek((self.content_id, index)) if stop <= end else None
        return chunk[offset - start : stop - start] if chunk is not None else None

    def read_ahead(self, offset: int, done: int) -> int:
        """Start decoding the chunks from a logical offset on; errors are left to who reads them.

        Args:
            offset: where the next read is expected.
            done: what this returned the last time, 0 at first.

        Returns:
            The chunk up to which decoding was started.
        """
        if offset >= self.length:
            return done
        window = self._context.read_ahead
        try:
            first = self.container.locate(offset)
        except QatcError:
            return done
        if not first <= done <= first + window:
            done = first
        stop = min(first + window, self.container.chunk_count)
        if stop - done < RUN_CHUNKS and stop != self.container.chunk_count:
            return done  # wait until there is a whole run to do
        self._decode_ahead(done, stop)
        return stop

    def _decode_ahead(self, first: int, stop: int) -> None:
        """Have workers decode chunks, runs of neighbours together."""
        for start in range(first, stop, RUN_CHUNKS):
            try:
                self._context.executor.submit(self._decode_run, start, min(RUN_CHUNKS, stop - start))
            except RuntimeError:  # the store is closing
                log.debug("no read-ahead while the store closes")

    def _decode_run(self, first: int, count: int) -> None:
        """Put neighbouring chunks into the cache, those that nobody has or is decoding."""
        cache = self._context.cache
        with cache.claimed([(self.content_id, index) for index in range(first, first + count)]) as claimed:
            mine = [index for _, index in claimed]
            while mine:
                run = 1
                while run < len(mine) and mine[run] == mine[0] + run:
                    run += 1
                for index, found in zip(mine[:run], self._decoded(mine[0], run), strict=True):
                    cache.settle((self.content_id, index), found)
                del mine[:run]

    def _decoded(self, first: int, count: int) -> list[memoryview | OSError]:
        """Decode neighbouring chunks; an error for each that is bad or cannot be read."""
        if any(self._context.damage.known(self.signature, first + i) for i in range(count)):
            return [self._decoded_alone(first + i) for i in range(count)]
        try:
            spans = [self._span(first + i) for i in range(count)]
            outs = [self._context.cache.pool.take(stop - start) for start, stop in spans]
            with self._decoding_allowed():
                found = self.container.read_chunks(first, count, outs)
        except OSError:
            return [self._decoded_alone(first + i) for i in range(count)]
        results: list[memoryview | OSError] = []
        for i, (chunk, out) in enumerate(zip(found, outs, strict=True)):
            if isinstance(chunk, QatcError):
                results.append(self._corrupt(first + i, chunk))
            else:
                results.append(chunk if isinstance(chunk, OSError) else out)
        self._context.statistics.add("chunks_decoded", sum(not isinstance(one, OSError) for one in results))
        return results

    def _decoded_alone(self, index: int) -> memoryview | OSError:
        try:
            return self._decode(index)
        except OSError as err:
            return without_frames(err)
