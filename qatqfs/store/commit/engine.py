"""How a commit goes: a staging entry becomes a container, or its base does.

1. Under the content lock, briefly: freeze the content (:mod:`qatqfs.store.staging.snapshot`).
2. Without it: complete the draft, give it the metadata, fsync it if anything depends on it.
3. Under the content and the namespace lock: log INTENT, rename over the old container, switch the node. If
   nothing was written since step 1 the entry is done with. Else it stays, builds on the new container and holds
   just the chunks that were written to since; its log says so before the rename.
4. Without locks: make the directory durable, remove the entry or give back the space of what the container has.

So writers wait for no encoding, and however busy they are a commit comes to its end. Only a file that is cut
while it is being committed has to be begun anew.
"""

import contextlib
import errno
import logging
import os
import time
from concurrent.futures import Executor

from qatqfs.codec import DType, EncodingFault, QatcError
from qatqfs.store import paths
from qatqfs.store.attributes import Key, key_of
from qatqfs.store.commit.as_raw import EMPTY_CONTAINER_SIZE, commit_raw, is_to_be_raw
from qatqfs.store.commit.finished import FinishedEntries
from qatqfs.store.commit.in_place import commit_in_place
from qatqfs.store.counters import Counters
from qatqfs.store.encoding.plan import Plan, make_plan, payloads_of
from qatqfs.store.encoding.workers import fill
from qatqfs.store.names.inode_copy import InodeMetadata, copy_metadata, has_all_of
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.staging.chunkmap import chunks_of
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import Snapshot
from qatqfs.store.system.files import Identity
from qatqfs.store.tensors.dtype import xattr_dtype
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)


class CommitEngine:
    """Commits one node at a time for whoever calls; safe for any number of threads.

    Args:
        tree: the names.
        executor: threads to encode on.
        disk_waiter: one that may wait for the disk.

    Attributes:
        executor: as given.
        counters: of the store.
    """

    def __init__(self, tree: Tree, executor: Executor, disk_waiter: Executor) -> None:
        self._tree = tree
        self._options = tree.context.options
        self._io = tree.context.io
        self.counters = tree.context.reading.counters
        self.executor = executor
        self._disk_waiter = disk_waiter
        self._finished = FinishedEntries(tree)

    def commit(self, node: Node, *, exclusive: bool = False) -> bool:
        """Put what a node's content is now into its container.

        Args:
            node: dirty or not.
            exclusive: hold the content lock throughout, so that nobody can cut the file meanwhile.

        Returns:
            ``False`` if it has to be tried again because the file was cut meanwhile.

        Raises:
            OSError: it failed; staging is kept and served.
        """
        with node.commit_lock, node.lock if exclusive else contextlib.nullcontext():
            with node.lock:
                entry, path = node.staging, node.path
                if entry is None or path is None:
                    return True
            self.finish(node.key)  # an entry of this very file must be gone before its container is replaced again
            with node.lock:
                if node.staging is not entry:
                    return False
                snapshot = entry.freeze()
                draft = entry.draft  # who removes the last name may take it out at any time
                stale = set(draft.stale) if draft is not None else set()
            start = time.monotonic()
            done = False
            try:
                if log.isEnabledFor(logging.DEBUG):
                    written = snapshot.view.chunks.held_bytes(snapshot.size)
                    log.debug("%s: commit begins: %d bytes, %d in staging", shown_path(path), snapshot.size, written)
                if is_to_be_raw(self._tree, node, path):
                    done = self._commit_raw(node, entry, snapshot, path)
                else:
                    done = self._commit(node, entry, snapshot, stale, path, final=exclusive)
            except OSError:
                if not snapshot.cancelled:
                    raise
            finally:
                with node.lock:
                    entry.abandon_draft()  # it became nothing if it is still there
                    entry.thaw()
            if done:
                log.debug("%s: commit done in %.3f s", shown_path(path), time.monotonic() - start)
            elif snapshot.why_cancelled is not None:
                log.info("%s: commit begins again: %s", shown_path(path), snapshot.why_cancelled)
            else:
                log.debug("%s: commit begins again, or ends: it was cut, removed or changed", shown_path(path))
            return done

    def _commit_raw(self, node: Node, entry: StagingEntry, snapshot: Snapshot, path: bytes) -> bool:
        placed = commit_raw(self._tree, node, entry, snapshot, path)
        if placed is None:
            return False
        self._remove(node, entry, placed)
        self.counters.add("commits")
        return True

    def _commit(
        self, node: Node, entry: StagingEntry, snapshot: Snapshot, stale: set[int], path: bytes, *, final: bool
    ) -> bool:
        draft = self._complete(node, entry, snapshot, stale, path)
        replaces_content = os.fstat(node.fd.number).st_size > EMPTY_CONTAINER_SIZE
        durable = entry.log.synced or node.durable or replaces_content
        metadata, mtime_ns = InodeMetadata.of(node.fd), entry.mtime_ns
        copy_metadata(self._io, metadata, draft.fd, mtime_ns)
        if durable:
            self._io.fsync(draft.fd)
        if entry.log.synced:
            entry.log.sync_data(entry.data)  # so that little is left of that for when the locks are held
        with node.lock, self._tree.lock:
            if snapshot.cancelled or node.path is None:
                return False
            if node.path != path and not final and self._other_rules(node.path, path):
                return False  # renamed meanwhile, as programs do once a file is complete: its name then is what counts
            synced_meanwhile = not durable and (entry.log.synced or node.durable)
            durable = durable or synced_meanwhile
            whole = entry.size == snapshot.size and not snapshot.changed.held_bytes(1)
            metadata_now, mtime_now_ns = InodeMetadata.of(node.fd), entry.mtime_ns
            if metadata_now != metadata:
                copy_metadata(self._io, metadata_now, draft.fd, mtime_now_ns)
            elif mtime_now_ns != mtime_ns:
                self._io.set_times(draft.fd, None, mtime_now_ns)
            # As long as the entry stays it is the one that says what the mtime is, so every write would move it.
            outdated = metadata_now != metadata or (mtime_now_ns != mtime_ns and whole)
            if synced_meanwhile or (durable and outdated):
                self._io.fsync(draft.fd)
            in_place, placed = self._has_other_names(node) or not has_all_of(metadata_now, draft.fd), None
            if not in_place:
                try:
                    placed = self._swap(node, entry, snapshot, draft, whole=whole)
                except PermissionError:  # not a directory to change names in: write to the file, as a program would
                    if os.fstat(node.fd.number).st_nlink == 0:
                        raise
                    in_place = True
            if placed is None and not in_place:
                return False
        if in_place:
            return self._commit_in_place(node, entry, snapshot, draft)
        if not durable:
            self._tree.context.committed()
        if whole:
            self._remove(node, entry, placed or b"" if durable else b"")
        else:
            if durable and placed:
                self._tree.fsync_parent(placed)
            with node.lock:
                if node.staging is entry:
                    entry.release_space()
        self.counters.add("commits")
        return True

    def finish(self, key: Key | None = None) -> None:
        """Remove the entries that are done with; see :meth:`qatqfs.store.commit.finished.FinishedEntries.remove`."""
        self._finished.remove(key)

    # -- the container ---------------------------------------------------------------------------------

    def _complete(self, node: Node, entry: StagingEntry, snapshot: Snapshot, stale: set[int], path: bytes) -> Draft:
        """Return a complete container of a snapshot as the entry's draft; raises OSError."""
        old = self._sound_draft(node, entry)
        try:
            explicit = self.explicit_dtype(node, path)
            plan = make_plan(snapshot, old, path, explicit, self._options)
            draft = self._begin(node, entry, snapshot, plan, old, stale)
            counts, total, start = Counters(self.counters), chunks_of(snapshot.size, plan.chunk_size), time.monotonic()
            payloads = payloads_of(snapshot, plan, self._options.level, old, stale, counts)
            fill(draft, total, payloads, self.executor, self._options.workers)
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
                old.discard()
        return draft

    @staticmethod
    def _sound_draft(node: Node, entry: StagingEntry) -> Draft | None:
        """Return the entry's draft, unless the disk has failed to write it: then all is encoded anew."""
        draft = entry.draft
        if draft is not None:
            try:
                draft.settle()
            except OSError as err:
                log.info("%s: what was encoded ahead is lost: %s", shown_path(node.path), describe(err))
                with node.lock:
                    entry.abandon_draft()
                return None
        return draft

    def _begin(
        self, node: Node, entry: StagingEntry, snapshot: Snapshot, plan: Plan, old: Draft | None, stale: set[int]
    ) -> Draft:
        """Return the entry's draft with as many of a snapshot's first chunks as can be had without looking at them."""
        total = chunks_of(snapshot.size, plan.chunk_size)
        if old is not None and (old.dtype, old.chunk_size) == (plan.dtype, plan.chunk_size) and plan.base is None:
            sound = min(min(stale, default=old.count), old.count, total)
            rest = range(sound, min(old.count, total))
            with node.lock:  # so that no writer takes what is promised meanwhile
                if not rest or stale.issuperset(rest) or not entry.area.space.begin_anew(entry.entry_id):
                    entry.rewind_draft(old, sound)
                    return old
                draft = self.new_draft(entry, plan.dtype, plan.chunk_size)
                entry.exchange_draft(draft)
            draft.take_prefix(*old.prefix(sound))
            return draft
        if old is not None:
            with node.lock:
                entry.abandon_draft()  # before another one takes its space
        draft = self.new_draft(entry, plan.dtype, plan.chunk_size)
        with node.lock:
            entry.exchange_draft(draft)
        if plan.base is not None:
            index = plan.base.container.index
            kept = plan.base.container.chunk_count - 1
            if index is not None and 0 < kept < total and all(map(snapshot.is_unmodified, range(kept))):
                draft.take_prefix(plan.base.fd, index.payload_lengths[:kept], index.state_before_last)
        return draft

    def new_draft(self, entry: StagingEntry, dtype: DType, chunk_size: int) -> Draft:
        """Begin a container for an entry; raises OSError."""
        area, entry_id = entry.area, entry.entry_id
        return Draft(
            area,
            entry_id,
            dtype,
            chunk_size,
            self._options.level,
            lambda size: area.space.written(entry_id, size),
            self._disk_waiter,
        )

    def _other_rules(self, path: bytes, other: bytes) -> bool:
        """Whether rules say something else about a path than about another."""
        options = self._options
        return (options.rule_dtype(path), options.is_raw(path)) != (options.rule_dtype(other), options.is_raw(other))

    def explicit_dtype(self, node: Node, path: bytes) -> DType | None:
        """Return the dtype that an attribute, of the file or a directory above it, or a rule gives to a file."""
        found = xattr_dtype(node.fd.proc_path)
        above = paths.split(path)[0]
        while found is None and above:
            with contextlib.suppress(OSError), self._tree.directory(above) as fd:
                found = xattr_dtype(f"/proc/self/fd/{fd}")
            above = paths.split(above)[0]
        return found or xattr_dtype(self._tree.root.proc_path) or self._options.rule_dtype(path)

    # -- the swap --------------------------------------------------------------------------------------

    @staticmethod
    def _has_other_names(node: Node) -> bool:
        links = os.fstat(node.fd.number).st_nlink
        return links > 1 or (links == 1 and node.several_names)

    def _commit_in_place(self, node: Node, entry: StagingEntry, snapshot: Snapshot, draft: Draft) -> bool:
        with node.lock:
            changed = entry.size != snapshot.size or snapshot.changed.held_bytes(1)
            if changed or snapshot.cancelled or node.staging is not entry:
                return False
            commit_in_place(self._tree, node, entry, draft)
            log.debug("%s: copied into place", shown_path(node.path))
        self._remove(node, entry, b"")
        self.counters.add("commits")
        return True

    def _remove(self, node: Node, entry: StagingEntry, path: bytes) -> None:
        """Remove an entry that is done with, once its container is sure to be at a path; raises OSError."""
        entry.abandon_draft()
        entry.area.space.lower(entry.entry_id, 0)
        self._finished.add(node.key, entry, path)
        with self._tree.lock:
            self._tree.forget_if_idle(node)
        self.finish(node.key)

    def _swap(self, node: Node, entry: StagingEntry, snapshot: Snapshot, draft: Draft, *, whole: bool) -> bytes | None:
        """Put a complete draft in place; content and namespace lock held.

        Returns:
            The logical path it got (``b""`` in lost+found), or ``None`` if it has to be tried again.
        """
        assert node.path is not None
        container = ContainerFile(draft.fd, node.path, self._tree.context.reading)
        identity = Identity.of(draft.fd.number)
        old, path = node.key, node.path
        times = self._tree.commit_times
        ctime_ns = times.ctime_ns(node.attributes())
        with contextlib.ExitStack() as stack:
            target = self._find_target(node, stack)
            if target is None and not whole:
                return None
            chunks = entry.map_over(snapshot.size)
            try:
                if whole:
                    entry.log.intent(identity)
                else:
                    entry.log.partial_intent(identity, chunks, entry.data)
                if target is None:
                    self._to_lost_and_found(node, entry, draft)
                    node.lost_last_name()
                else:
                    with times.unchanged(target[0]):
                        self._io.rename(entry.area.directory.number, draft.name, target[0], target[1])
            except OSError:
                with contextlib.suppress(OSError):
                    entry.log.held(entry.view.chunks)
                raise
        entry.exchange_draft(None)
        container.was_renamed()
        times.committed(os.fstat(draft.fd.number), ctime_ns)
        node.replaced(draft.fd, key_of(os.fstat(draft.fd.number)), container, whole=whole)
        if whole:
            with contextlib.suppress(OSError):  # then recovery has to find the container to know
                entry.log.done()
        else:
            entry.rebase(chunks, container, identity)
        self._tree.rekey(node, old)
        log.debug("%s: renamed into place%s", shown_path(path), "" if whole else "; written to meanwhile")
        return path if target is not None else b""

    def _find_target(self, node: Node, stack: contextlib.ExitStack) -> tuple[int, bytes] | None:
        """Open the directory in which the node's container is; ``None`` if somebody else took its place."""
        assert node.path is not None
        try:
            fd, _, name = stack.enter_context(self._tree.parent(node.path))
            stored = paths.container_name(name)
            there = os.stat(stored, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (fd, stored) if key_of(there) == node.key else None

    def _to_lost_and_found(self, node: Node, entry: StagingEntry, draft: Draft) -> None:
        assert node.path is not None
        if entry.in_doubt:
            self._keep(node.path, entry, draft, "what was written shortly before the machine went down may be torn")
            return
        self._keep(
            node.path,
            entry,
            draft,
            "was replaced or removed in the backing directory while it had uncommitted content;"
            " what was written through the mount",
        )

    def _keep(self, path: bytes, entry: StagingEntry, draft: Draft, what: str) -> None:
        """Give a complete draft a name in lost+found, durably, and log what it is; raises OSError."""
        area = entry.area
        name = area.free_lost_name(paths.container_name(paths.split(path)[1][:180] + b"." + entry.entry_id))
        self._io.rename(area.directory.number, draft.name, area.lost_and_found.number, name)
        self._io.fsync_directory(area.lost_and_found.number)
        self.counters.add("lost_files")
        size, entry_id = entry.size, entry.entry_id.decode()
        log.error(
            "%s: %s (%d bytes of staging entry %s) is kept in lost+found as %s",
            shown_path(path),
            what,
            size,
            entry_id,
            shown_path(name),
        )

    def keep_copy(self, node: Node) -> None:
        """Put what a node's content is now into a durable container in lost+found, and change nothing else.

        Args:
            node: dirty, and known to nobody else.

        Raises:
            OSError: it failed.
        """
        entry, path = node.staging, node.path
        assert entry is not None and path is not None
        with node.commit_lock, node.lock:
            snapshot = entry.freeze()
            try:
                draft = self._complete(node, entry, snapshot, set(), path)
                copy_metadata(self._io, InodeMetadata.of(node.fd), draft.fd, entry.mtime_ns)
                self._io.fsync(draft.fd)
                self._keep(path, entry, draft, "what was written before the machine went down may be torn; all of it")
                entry.exchange_draft(None)
            finally:
                entry.abandon_draft()
                entry.thaw()
