"""How a draft becomes a complete container of a snapshot.

:class:`DraftFactory` begins drafts; a commit and encoding ahead share it. :func:`complete` is the long step of a
commit: it takes over what the entry's draft or the base already has, and has the rest encoded.
"""

import contextlib
import errno
import logging
import os
import time
from concurrent.futures import Executor

from qatqfs.codec import DType, EncodingFault, QatcError
from qatqfs.store import paths
from qatqfs.store.counters import Counters
from qatqfs.store.encoding.plan import Plan, make_plan, payloads_of
from qatqfs.store.encoding.workers import fill
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import Snapshot
from qatqfs.store.staging.view import chunks_of
from qatqfs.store.tensors.dtype import xattr_dtype
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)


class DraftFactory:
    """Begins drafts for the entries of a store; safe for any number of threads.

    Args:
        tree: the names.
        executor: threads to encode on.
        disk_waiter: one thread that may wait for the disk.

    Attributes:
        options: of the store.
        counters: of the store.
        executor: see above.
    """

    def __init__(self, tree: Tree, executor: Executor, disk_waiter: Executor) -> None:
        self._tree = tree
        self._disk_waiter = disk_waiter
        self.options = tree.context.options
        self.counters = tree.context.reading.counters
        self.executor = executor

    def new(self, entry: StagingEntry, dtype: DType, chunk_size: int) -> Draft:
        """Begin a container for an entry; raises OSError."""
        area, entry_id = entry.area, entry.entry_id
        return Draft(
            area,
            entry_id,
            dtype,
            chunk_size,
            self.options.level,
            entry.reservation.written,
            self._disk_waiter,
        )

    def explicit_dtype(self, node: Node, path: bytes) -> DType | None:
        """Return the dtype that an attribute, of the file or a directory above it, or a rule gives to a file."""
        found = xattr_dtype(node.fd.proc_path)
        above = paths.split(path)[0]
        while found is None and above:
            with contextlib.suppress(OSError), self._tree.directory(above) as fd:
                found = xattr_dtype(f"/proc/self/fd/{fd}")
            above = paths.split(above)[0]
        return found or xattr_dtype(self._tree.root.proc_path) or self.options.rule_dtype(path)


def complete(
    factory: DraftFactory, node: Node, entry: StagingEntry, snapshot: Snapshot, stale: set[int], path: bytes
) -> Draft:
    """Return a complete container of a snapshot as the entry's draft.

    Args:
        factory: begins the draft.
        node: of the file; its commit lock is held, its content lock need not be.
        entry: of the file.
        snapshot: what the container is to hold.
        stale: chunks of the entry's draft that were changed after they were encoded.
        path: logical path, for the rules and the log.

    Raises:
        OSError: reading, encoding or writing failed; EFBIG if there are too many chunks.
    """
    old = _usable_draft(node, entry)
    try:
        explicit = factory.explicit_dtype(node, path)
        plan = make_plan(snapshot, old, path, explicit, factory.options)
        draft = _begin(factory, node, entry, snapshot, plan, old, stale)
        counts, total, start = Counters(factory.counters), chunks_of(snapshot.size, plan.chunk_size), time.monotonic()
        payloads = payloads_of(snapshot, plan, factory.options.level, old, stale, counts)
        fill(draft, total, payloads, factory.executor, factory.options.workers, tuning=factory.options.tuning)
        draft.finish(snapshot.size)
        encoded = counts.as_dict().get("chunks_encoded", 0)
        log.debug(
            "%s: container made in %.3f s: %s, %d chunks of %d bytes: %d encoded, %d taken as they were; %d bytes",
            *(shown_path(path), time.monotonic() - start, plan.dtype.label, total, plan.chunk_size),
            *(encoded, total - encoded, os.fstat(draft.fd.number).st_size),
        )
    except EncodingFault as err:
        raise OSError(errno.EIO, str(err)) from err
    except QatcError as err:
        raise OSError(errno.EFBIG, str(err)) from err
    finally:
        if old is not None and old is not entry.draft:
            old.abandon()
    return draft


def _usable_draft(node: Node, entry: StagingEntry) -> Draft | None:
    """Return the entry's draft, or ``None`` if the disk has failed to write it: then everything is encoded again."""
    draft = entry.draft
    if draft is not None:
        try:
            draft.flush()
        except OSError as err:
            log.info("%s: what was encoded ahead is lost: %s", shown_path(node.path), describe(err))
            with node.lock:
                entry.abandon_draft()
            return None
    return draft


def _begin(
    factory: DraftFactory,
    node: Node,
    entry: StagingEntry,
    snapshot: Snapshot,
    plan: Plan,
    old: Draft | None,
    stale: set[int],
) -> Draft:
    """Return the entry's draft, begun with those first chunks of a snapshot that can be taken over without a look."""
    total = chunks_of(snapshot.size, plan.chunk_size)
    if old is not None and (old.dtype, old.chunk_size) == (plan.dtype, plan.chunk_size) and plan.base is None:
        usable = min(min(stale, default=old.count), old.count, total)
        rest = range(usable, min(old.count, total))
        with node.lock:  # so that no writer takes the space that is promised to the draft
            if not rest or stale.issuperset(rest) or not entry.reservation.begin_anew():
                entry.rewind_draft(old, usable)
                return old
            draft = factory.new(entry, plan.dtype, plan.chunk_size)
            entry.exchange_draft(draft)
        draft.take_prefix(*old.prefix(usable))
        return draft
    if old is not None:
        with node.lock:
            entry.abandon_draft()  # gives its space back before another draft takes some
    draft = factory.new(entry, plan.dtype, plan.chunk_size)
    with node.lock:
        entry.exchange_draft(draft)
    if plan.base is not None:
        index = plan.base.container.index
        kept = plan.base.container.chunk_count - 1
        if index is not None and 0 < kept < total and all(map(snapshot.is_unmodified, range(kept))):
            draft.take_prefix(plan.base.fd, index.payload_lengths[:kept], index.state_before_last)
    return draft
