"""A container in BACKING, open for reading: turns logical byte ranges into verified bytes, through the chunk cache."""

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
from qatqfs.store.counters import Counters
from qatqfs.store.reading.cache import Chunk, ChunkCache
from qatqfs.store.reading.damage import DamageRegister, FileSignature
from qatqfs.store.reading.walks import Walks
from qatqfs.store.system.fd import Fd, pread_exact
from qatqfs.store.tuning import DEFAULT_TUNING, Tuning

log = logging.getLogger(__name__)

_MOST_CHECKED = 4096
"""Most chunks of a container without an index that are compared one by one to find its chunk size."""
_LEAST_CHUNK_BYTES = 4096
"""Least chunk size that staging takes over from a container. Another program may have made smaller chunks."""

_MOST_CHUNKS = 1 << 22
"""Most chunks of a container. Their places take 64 MiB of memory; a reference decoder takes 2**20 chunks."""
_LIMITS = Limits(max_chunks=_MOST_CHUNKS, max_total_values=None)
_QUICK = Limits(max_chunks=_MOST_CHUNKS, max_total_values=None, max_walked_chunks=64)
"""Limits within which a container opens in some milliseconds."""


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What all open containers of a store share.

    Attributes:
        cache: decoded chunks.
        damage: what is known to be damaged.
        counters: of the store.
        executor: threads that read ahead.
        workers: threads of the executor.
        tuning: how much is read at a time, and how far ahead.
        walks: where the chunks of containers without an index are.
    """

    cache: ChunkCache
    damage: DamageRegister
    counters: Counters
    executor: Executor
    workers: int
    tuning: Tuning = DEFAULT_TUNING
    walks: Walks = field(default_factory=Walks)

    @property
    def read_ahead(self) -> int:
        """Chunks to decode before a sequential reader asks for them: whole runs."""
        return self.tuning.read_ahead_runs * self.tuning.run_chunks * self.workers


ContentId = tuple[int, int, int, int, bytes]
"""(st_dev, st_ino, stored size, mtime_ns, first 32 bytes): names what a container decodes to.

The first 32 bytes hold the checksum of the whole content.
"""


def signature_of(st: os.stat_result) -> FileSignature:
    """Return what tells one state of a stored file from another, without opening it."""
    return st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns


class Retired(OSError):
    """The container's bytes are about to be overwritten. The reader has to look again where the content is now."""


def io_error(text: str) -> OSError:
    """Return the EIO that a reader gets for damaged data."""
    return OSError(errno.EIO, text)


def _damaged_file(path: bytes, signature: FileSignature, context: ReadContext, err: QatcError) -> OSError:
    """Log and remember what the codec says about a whole file; returns the error that a reader gets."""
    context.damage.report_file(path, signature, str(err))
    return io_error(str(err))


def _read_at(fd: Fd, offset: int, size: int) -> bytes:
    return pread_exact(fd.number, size, offset)


def logical_length(fd: Fd, path: bytes, context: ReadContext) -> int:
    """Return the logical size of a container in bytes, in a few reads.

    Where the size would take a walk over all chunks, this returns what the header says. Whether the chunks agree is
    checked when the file is opened. So listing names and sizes, which holds the namespace lock, never walks a file.

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
        raise _damaged_file(path, signature, context, err) from err


def _open(fd: Fd, context: ReadContext, signature: FileSignature) -> Container:
    """Open a container, and walk it if it has no index and was not walked before; raises QatcError, OSError."""
    # Not a method of ContainerFile: the reference cycle would keep a removed file open until it is collected.
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
    """The content of one container. It is immutable, shared by all handles, and closed with its last reference.

    Args:
        fd: the container, readable.
        path: its logical path, for messages.
        context: what all open containers share.

    Attributes:
        length: logical size in bytes.
        content_id: names this content in the cache. Chunks in the cache were verified, and stay valid when the file
            changes.
        signature: the state of the file that this was opened in.
        fd: as given.
        stored_size: bytes of the container.

    Raises:
        OSError: EIO when it is not a QATC container (logged and remembered), or what reading it reported.
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
            raise _damaged_file(path, self.signature, context, err) from err
        self.length = self.container.length
        self.content_id: ContentId = (*self.signature[:4], self.container.header_bytes)

    def was_renamed(self) -> None:
        """Note that the file was renamed, which changes its ctime but not its content; raises OSError."""
        self.signature = signature_of(os.fstat(self.fd.number))

    def chunk_size_of(self, default: int) -> tuple[int, bool]:
        """Return a chunk size in bytes for arithmetic on this content, and whether its own chunks have that size.

        Args:
            default: the size to return where the container has no regular chunk size.
        """
        container = self.container
        if container.chunk_count == 1 and container.index is None:
            return max(default, -(-self.length // 4) * 4), True
        chunk_size, regular = self._own_chunk_size()
        if not regular or chunk_size < min(default, _LEAST_CHUNK_BYTES) or container.chunk_count > MAX_CHUNKS:
            return default, False
        return chunk_size, True

    def _own_chunk_size(self) -> tuple[int, bool]:
        """Return the raw bytes of each chunk but the last, and whether all of them are equal."""
        container = self.container
        if container.index is not None:
            return container.index.values_per_chunk * container.dtype.width, True
        if container.chunk_count <= _MOST_CHECKED:
            try:
                chunk_size = container.span(0)[1]
                spans = [container.span(chunk) for chunk in range(container.chunk_count)]
            except QatcError:
                return 0, False
            if chunk_size and spans == [
                (s, min(s + chunk_size, self.length)) for s in range(0, self.length, chunk_size)
            ]:
                return chunk_size, True
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
            raise self._note_damage(index, err) from err
        self._context.counters.add("chunks_decoded")
        return out

    def _note_damage(self, index: int, err: QatcError) -> OSError:
        """Log and remember a damaged chunk; returns the error that a reader gets."""
        logical = stored = None
        with contextlib.suppress(QatcError, OSError):  # the walk ends before it
            logical, stored = self.container.span(index)[0], self.container.stored_offset(index)
        self._context.damage.report_chunk(self._path, self.signature, index, logical, stored, str(err))
        return io_error(str(err))

    @contextmanager
    def _decoding_allowed(self) -> Iterator[None]:
        """Make :meth:`retire` wait until the block ends; raises Retired."""
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
        """Refuse all reads from now on, and wait for those under way."""
        with self._gate:
            self._retired = True
            while self._decoding:
                self._gate.wait()

    def _span(self, index: int) -> tuple[int, int]:
        try:
            return self.container.span(index)
        except QatcError:  # the walk ends here; later chunks have no known place
            return (self.length, self.length)

    def _locate(self, offset: int) -> int:
        try:
            return self.container.locate(offset)
        except QatcError as err:
            raise _damaged_file(self._path, self.signature, self._context, err) from err

    def chunk(self, index: int) -> Chunk:
        """Return the logical bytes of a chunk, decoded once however many threads ask.

        Raises:
            OSError: EIO when the chunk is damaged, or what reading it reported.
        """
        return self._context.cache.get((self.content_id, index), lambda: self._decode(index))

    def read_chunk_uncached(self, index: int) -> Chunk:
        """Return the logical bytes of a chunk without keeping them; raises as :meth:`chunk`."""
        kept = self._context.cache.peek((self.content_id, index))
        return kept if kept is not None else self._decode(index)

    def read_uncached(self, offset: int, size: int) -> Chunk:
        """As :meth:`read`, but do not keep decoded chunks."""
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
            OSError: EIO when any chunk of the range is damaged; the undamaged part before it is not returned.
        """
        stop = min(offset + size, self.length)
        if offset >= stop:
            return b""
        first = self._locate(offset)
        start, end = self._span_or_fail(first)
        if stop <= end:
            return self.chunk(first)[offset - start : stop - start]
        last = self._locate(stop - 1)
        if last - first >= self._context.tuning.uncached_chunks:
            return self._read_many(first, last, offset, stop)
        self._decode_ahead(first + 1, last + 1)
        pool = self._context.cache.pool
        result = pool.take(stop - offset)
        for index in range(first, last + 1):
            start, end = self._span_or_fail(index)
            at = max(start - offset, 0)
            result[at : min(end, stop) - offset] = self.chunk(index)[max(offset - start, 0) : stop - start]
        pool.give_back(result)  # used again once the reader has dropped it
        return result

    def _read_many(self, first: int, last: int, offset: int, stop: int) -> Chunk:
        """Return a range in chunks ``first`` to ``last``, without the cache; raises OSError."""
        pool, most = self._context.cache.pool, self._context.tuning.uncached_chunks
        result = pool.take(stop - offset)
        for start in range(first, last + 1, most):
            count = min(most, last + 1 - start)
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
        """Return a range without blocking if it lies in one cached chunk, else ``None``."""
        stop = min(offset + size, self.length)
        if offset >= stop:
            return b""
        try:
            index = self.container.locate(offset)
            start, end = self.container.span(index)
        except QatcError:  # the next read meets it, and reports it
            return None
        chunk = self._context.cache.peek((self.content_id, index)) if stop <= end else None
        return chunk[offset - start : stop - start] if chunk is not None else None

    def read_ahead(self, offset: int, done: int) -> int:
        """Start to decode the chunks from a logical offset on. Errors are left to the read of the chunk.

        Args:
            offset: where the next read is expected.
            done: what this returned last time, 0 at first.

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
        if stop - done < self._context.tuning.run_chunks and stop != self.container.chunk_count:
            return done  # wait until a whole run is missing
        self._decode_ahead(done, stop)
        return stop

    def _decode_ahead(self, first: int, stop: int) -> None:
        """Have workers decode chunks, each of them a run of neighbours."""
        run = self._context.tuning.run_chunks
        for start in range(first, stop, run):
            try:
                self._context.executor.submit(self._decode_run, start, min(run, stop - start))
            except RuntimeError:  # the store is closing
                log.debug("no read-ahead while the store closes")

    def _decode_run(self, first: int, count: int) -> None:
        """Decode those of some neighbouring chunks that are neither cached nor being decoded, into the cache."""
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
        """Decode neighbouring chunks; return an error for each that is damaged or cannot be read."""
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
                results.append(self._note_damage(first + i, chunk))
            else:
                results.append(chunk if isinstance(chunk, OSError) else out)
        self._context.counters.add("chunks_decoded", sum(not isinstance(one, OSError) for one in results))
        return results

    def _decoded_alone(self, index: int) -> memoryview | OSError:
        try:
            return self._decode(index)
        except OSError as err:
            return without_frames(err)
