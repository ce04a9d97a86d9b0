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
import logging
import os
import time

from qatqfs.store.attributes import Key
from qatqfs.store.commit.as_raw import EMPTY_CONTAINER_SIZE, commit_raw, is_to_be_raw
from qatqfs.store.commit.finished import FinishedEntries
from qatqfs.store.commit.in_place import commit_in_place
from qatqfs.store.commit.making import DraftFactory, complete
from qatqfs.store.commit.placing import Placer
from qatqfs.store.names.inode_copy import InodeMetadata, copy_metadata, has_all_of
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import Snapshot
from qatqfs.wording import shown_path

log = logging.getLogger(__name__)


class CommitEngine:
    """Commits one node at a time for whoever calls; safe for any number of threads.

    Args:
        tree: the names.
        factory: begins the containers.
    """

    def __init__(self, tree: Tree, factory: DraftFactory) -> None:
        self._tree = tree
        self._options = tree.context.options
        self._io = tree.context.io
        self._counters = tree.context.reading.counters
        self._factory = factory
        self._placer = Placer(tree)
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
        self._counters.add("commits")
        return True

    def _commit(
        self, node: Node, entry: StagingEntry, snapshot: Snapshot, stale: set[int], path: bytes, *, final: bool
    ) -> bool:
        draft = complete(self._factory, node, entry, snapshot, stale, path)
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
                    placed = self._placer.place(node, entry, snapshot, draft, whole=whole)
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
        self._counters.add("commits")
        return True

    def finish(self, key: Key | None = None) -> None:
        """Remove the entries that are done with; see :meth:`qatqfs.store.commit.finished.FinishedEntries.remove`."""
        self._finished.remove(key)

    def _other_rules(self, path: bytes, other: bytes) -> bool:
        """Whether rules say something else about a path than about another."""
        options = self._options
        return (options.rule_dtype(path), options.is_raw(path)) != (options.rule_dtype(other), options.is_raw(other))

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
        self._counters.add("commits")
        return True

    def _remove(self, node: Node, entry: StagingEntry, path: bytes) -> None:
        """Remove an entry that is done with, once its container is sure to be at a path; raises OSError."""
        entry.abandon_draft()
        entry.area.space.lower(entry.entry_id, 0)
        self._finished.add(node.key, entry, path)
        with self._tree.lock:
            self._tree.forget_if_idle(node)
        self.finish(node.key)

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
                draft = complete(self._factory, node, entry, snapshot, set(), path)
                copy_metadata(self._io, InodeMetadata.of(node.fd), draft.fd, entry.mtime_ns)
                self._io.fsync(draft.fd)
                self._placer.keep(
                    path, entry, draft, "what was written before the machine went down may be torn; all of it"
                )
                entry.exchange_draft(None)
            finally:
                entry.abandon_draft()
                entry.thaw()
