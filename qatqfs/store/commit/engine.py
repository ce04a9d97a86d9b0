"""The steps of a commit, which makes the content of a staging entry a container.

1. Under the content lock, briefly: freeze the content (:mod:`qatqfs.store.staging.snapshot`).
2. Without it: complete the draft, give it the metadata, fsync it if anything depends on it.
3. Under the content and the namespace lock: log INTENT, rename over the old container, switch the node. If
   nothing was written since step 1 the entry is removed. Else it stays, builds on the new container and holds
   just the chunks that were written to since; its log says so before the rename.
4. Without locks: make the directory durable, remove the entry or give back the space of what the container has.

So writers do not wait for encoding, and a commit comes to its end however busy they are. Only the commit of a file that
is cut meanwhile has to begin again.

The container is made durable without locks (:mod:`qatqfs.store.commit.metadata_copy`). Step 3 waits for the disk in two
cases:

* The entry is durable. Then the INTENT has to be durable before the rename, and nothing may change the file or its name
  between the two; so the log, which is short, is made durable under both locks. If the entry stays, its data file is
  made durable there as well; step 2 has done most of that.
* The container goes to lost+found, where it has to be durable before its entry is removed.
"""

import contextlib
import logging
import os
import time

from qatqfs.store.attributes import Key
from qatqfs.store.commit.as_raw import commit_raw, is_to_be_raw
from qatqfs.store.commit.committed import CommittedEntries
from qatqfs.store.commit.in_place import commit_in_place
from qatqfs.store.commit.making import DraftFactory, complete
from qatqfs.store.commit.metadata_copy import MetadataCopy
from qatqfs.store.commit.placing import Placer
from qatqfs.store.names.inode_copy import InodeMetadata, copy_metadata
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import Snapshot
from qatqfs.wording import shown_path

log = logging.getLogger(__name__)


class CommitEngine:
    """Commits one node at a time, on the thread of the caller; safe for any number of threads.

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
        self._committed = CommittedEntries(tree)

    def commit(self, node: Node, *, exclusive: bool = False) -> bool:
        """Make the current content of a node its container.

        Args:
            node: dirty or not.
            exclusive: hold the content lock throughout, so that no writer can cut the file meanwhile.

        Returns:
            ``False`` if it has to be tried again, because the file was cut, removed or renamed meanwhile.

        Raises:
            OSError: it failed; staging is kept and served.
        """
        with node.commit_lock, node.lock if exclusive else contextlib.nullcontext():
            with node.lock:
                entry, path = node.staging, node.path
                if entry is None or path is None:
                    return True
            self.remove_committed(node.key)  # this file's last entry must be gone before its container is replaced
            with node.lock:
                if node.staging is not entry:
                    return False
                snapshot = entry.freeze()
                draft = entry.draft  # the removal of the last name may take it out at any time
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
                    entry.abandon_draft()  # it is not in place if the entry still has it
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
        if not placed:
            self._tree.context.committed()
        self._remove(node, entry, placed)
        self._counters.add("commits")
        return True

    def _commit(
        self, node: Node, entry: StagingEntry, snapshot: Snapshot, stale: set[int], path: bytes, *, final: bool
    ) -> bool:
        draft = complete(self._factory, node, entry, snapshot, stale, path)
        copy = MetadataCopy(self._io, node, entry, draft.fd)
        if entry.log.durable:
            entry.log.fsync_data(entry.data)  # so that little is left of that for when the locks are held
        while True:
            with node.lock, self._tree.lock:
                if snapshot.cancelled or node.path is None:
                    return False
                if node.path != path and not final and self._other_rules(node.path, path):
                    return False  # programs rename a file once it is complete: its last name is what counts
                whole = entry.size == snapshot.size and not snapshot.changed.held_bytes(1)
                if not copy.has_to_be_renewed(whole=whole):
                    copy.bring_up_to_date(whole=whole)
                    in_place, placed = self._place(node, entry, snapshot, draft, copy, whole=whole)
                    break
            copy.renew()
        if placed is None and not in_place:
            return False
        if in_place:
            return self._commit_in_place(node, entry, snapshot, draft)
        if not copy.durable:
            self._tree.context.committed()
        if whole:
            self._remove(node, entry, placed or b"" if copy.durable else b"")
        else:
            if copy.durable and placed:
                self._tree.fsync_parent(placed)
            with node.lock:
                if node.staging is entry:
                    entry.release_space()
        self._counters.add("commits")
        return True

    def _place(
        self, node: Node, entry: StagingEntry, snapshot: Snapshot, draft: Draft, copy: MetadataCopy, *, whole: bool
    ) -> tuple[bool, bytes | None]:
        """Put a draft in place by a rename if that is possible; content and namespace lock held.

        Returns:
            Whether the draft has to be copied into the inode instead, and what :meth:`Placer.place` returned.

        Raises:
            OSError: as :meth:`Placer.place`.
        """
        if self._has_other_names(node) or not copy.is_complete:
            return True, None
        try:
            return False, self._placer.place(node, entry, snapshot, draft, whole=whole)
        except PermissionError:  # not a directory to change names in: write to the file, as a program would
            if os.fstat(node.fd.number).st_nlink == 0:
                raise
            return True, None

    def remove_committed(self, key: Key | None = None) -> None:
        """Remove committed entries; see :meth:`qatqfs.store.commit.committed.CommittedEntries.remove`."""
        self._committed.remove(key)

    def _other_rules(self, path: bytes, other: bytes) -> bool:
        """Whether the rules store a file differently under another path."""
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
        """Remove a committed entry, once its container is durable at a path if one is given; raises OSError."""
        entry.abandon_draft()
        entry.reservation.waive()
        self._committed.add(node.key, entry, path)
        with self._tree.lock:
            self._tree.forget_if_idle(node)
        self.remove_committed(node.key)

    def keep_copy(self, node: Node) -> None:
        """Put a copy of a node's content into lost+found, as a durable container, and change nothing else.

        Args:
            node: dirty, and not known to other threads.

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
