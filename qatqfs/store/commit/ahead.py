"""Encoding of long sequential writes while they still arrive.

A program that writes a file from front to back leaves complete chunks behind. One thread takes nodes that have a
few megabytes of those, in turn, and lets the encoders append them to the node's draft, so that little is left for the
commit. Nobody waits for it, and what it does may be in vain: a draft whose chunks are changed later is only as
good as what is left of it, and one that cannot be written is thrown away.
"""

import contextlib
import logging
import threading
from collections import deque

from qatqfs.codec import MAX_CHUNKS, DType, QatcError
from qatqfs.store.commit.engine import CommitEngine
from qatqfs.store.encoding.chunks import StreamEncoder
from qatqfs.store.encoding.plan import note_encoded
from qatqfs.store.encoding.workers import Payloads, fill
from qatqfs.store.names.node import Node
from qatqfs.store.options import StoreOptions
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import SnapshotLost
from qatqfs.store.system.files import pread_exact, yield_to_others
from qatqfs.store.tensors.dtype import choose_dtype
from qatqfs.store.tensors.header import read_header
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)

_CLAIM_BYTES = 64 << 20
_MOST_STALE = 16


class AheadEncoder:
    """The thread, and its queue, which ``_condition`` protects.

    Args:
        engine: makes drafts.
        options: of the store.
    """

    def __init__(self, engine: CommitEngine, options: StoreOptions) -> None:
        self._engine = engine
        self._options = options
        self._workers = max(1, options.workers - 1)  # the writer, and what takes his bytes, need one themselves
        self._condition = threading.Condition()
        self._waiting: deque[Node] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="qatqfs-ahead", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def advanced(self, node: Node) -> None:
        """Note that a sequential writer has got further."""
        with self._condition:
            if node not in self._waiting and node.path is not None:
                self._waiting.append(node)
                self._condition.notify()

    def forget(self, node: Node) -> None:
        """Drop a node that is removed from the queue."""
        with self._condition, contextlib.suppress(ValueError):
            self._waiting.remove(node)

    def _run(self) -> None:
        yield_to_others()
        while self._advance_next():
            pass

    def _advance_next(self) -> bool:
        """Wait for a node and encode what it has; ``False`` at the end.

        A call of its own for each, so that the thread keeps nothing of the last node, and no file open, while it waits.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return False
            node = self._waiting.popleft()
        if node.commit_lock.try_to_encode_ahead():  # a commit under way takes everything anyway
            try:
                self._advance(node)
            except Exception:
                log.exception("%s: encoding ahead failed", shown_path(node.path))
            finally:
                node.commit_lock.release()
        return True

    def _advance(self, node: Node) -> None:
        with node.lock:
            entry, path = node.staging, node.path
            # What builds on a container has not all of its content in the data file.
            if path is not None and self._options.is_raw(path):
                return
            if entry is None or path is None or entry.view.chunks.base_chunks or entry.sequential.end == 0:
                return
        try:
            draft = entry.draft or self._begin(node, entry, path)
            while draft is not None and (stop := self._claim(node, entry, draft)):
                payloads = self._payloads_of(node, entry, draft)
                fill(draft, stop, payloads, self._engine.executor, self._workers, gives_way_to=node.commit_lock)
                if self._waiting:  # other writers' files have their turn before this one goes on
                    self.advanced(node)
                    return
        except BaseException as err:  # whatever it was, nobody knows what the draft has
            with node.lock:
                entry.sequential.stop()
                entry.abandon_draft()
            if not isinstance(err, (OSError, QatcError)):
                raise
            log.debug("%s: encoding ahead stops: %s", shown_path(path), describe(err))  # err itself holds files open

    def _begin(self, node: Node, entry: StagingEntry, path: bytes) -> Draft | None:
        """Make the draft of a file that has none, of the dtype that its beginning suggests.

        None where the chunks of the container that the file once was do not hold whole values of any dtype.
        """
        if entry.chunk_size % DType.F32.width:
            return None
        size = entry.sequential.end // 4 * 4

        def sample(offset: int, length: int) -> bytes:
            return pread_exact(entry.data.number, min(length, size - offset), offset)

        explicit = self._engine.explicit_dtype(node, path)
        header = read_header(size, sample)
        dtype = choose_dtype(path, size, sample, explicit=explicit, header=header)
        draft = self._engine.new_draft(entry, dtype, entry.chunk_size)
        draft.header = header
        with node.lock, node.context.namespace_lock:
            if node.staging is entry and node.path is not None:
                entry.exchange_draft(draft)
                return draft
        draft.abandon()
        return None

    def _claim(self, node: Node, entry: StagingEntry, draft: Draft) -> int:
        """Return the chunk up to which to go on, 0 if it is not worth it now."""
        hop = max(1, _CLAIM_BYTES // draft.chunk_size // 16)
        with node.lock:
            if self._stopping or node.staging is not entry or node.path is None or entry.draft is not draft:
                return 0
            if node.commit_lock.wanted:
                return 0
            complete = min(entry.sequential.end // draft.chunk_size, MAX_CHUNKS)
            stop = min(complete, draft.count + max(1, _CLAIM_BYTES // draft.chunk_size))
            if stop - draft.count < hop or len(draft.stale) > _MOST_STALE:
                return 0
            draft.claimed = stop
            return stop

    def _payloads_of(self, node: Node, entry: StagingEntry, draft: Draft) -> Payloads:
        chunk_size, dtype = draft.chunk_size, draft.dtype
        encoder = StreamEncoder(dtype, self._options.level)

        def payloads(first: int, stop: int) -> list[bytes]:
            if node.path is None or self._stopping:
                raise SnapshotLost("nobody wants it any more")
            raw = memoryview(pread_exact(entry.data.number, (stop - first) * chunk_size, first * chunk_size))
            if len(raw) != (stop - first) * chunk_size:
                raise SnapshotLost("the file was cut")
            widths = draft.header.row_widths_of_chunks(range(first, stop), chunk_size, dtype)
            parts = [raw[start : start + chunk_size] for start in range(0, len(raw), chunk_size)]
            result = encoder.encode(parts, widths)
            for payload in result:
                note_encoded(self._engine.counters, chunk_size, payload)
            return result

        return payloads
