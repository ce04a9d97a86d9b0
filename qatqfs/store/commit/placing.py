"""How a complete container takes its place: INTENT in the log, rename, and the switch of the node.

The INTENT comes first, and durably if the entry is durable. Whatever happens after it, recovery finds either the old
container or the new one, and the log says for both of them which chunks the entry still holds.

A container whose place is taken by another file goes to lost+found.
"""

import contextlib
import logging
import os

from qatqfs.store import paths
from qatqfs.store.attributes import key_of
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.snapshot import Snapshot
from qatqfs.store.system.identity import Identity
from qatqfs.wording import shown_path

log = logging.getLogger(__name__)


class Placer:
    """Puts complete drafts in place; safe for any number of threads.

    Args:
        tree: the names.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._io = tree.context.io
        self._counters = tree.context.reading.counters

    def place(self, node: Node, entry: StagingEntry, snapshot: Snapshot, draft: Draft, *, whole: bool) -> bytes | None:
        """Put a complete draft in place; content and namespace lock held.

        Returns:
            The logical path that it got, ``b""`` in lost+found, or ``None`` if the commit has to be tried again.

        Raises:
            OSError: INTENT could not be logged, or the rename failed; the old container and the entry are as before.
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
            with contextlib.suppress(OSError):  # without it, recovery learns this from the container that it finds
                entry.log.done()
        else:
            entry.rebase(chunks, container, identity)
        self._tree.rekey(node, old)
        log.debug("%s: renamed into place%s", shown_path(path), "" if whole else "; written to meanwhile")
        return path if target is not None else b""

    def _find_target(self, node: Node, stack: contextlib.ExitStack) -> tuple[int, bytes] | None:
        """Open the directory of the node's container; ``None`` if another file has taken its place."""
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
            self.keep(node.path, entry, draft, "what was written shortly before the machine went down may be torn")
            return
        self.keep(
            node.path,
            entry,
            draft,
            "was replaced or removed in the backing directory while it had uncommitted content;"
            " what was written through the mount",
        )

    def keep(self, path: bytes, entry: StagingEntry, draft: Draft, what: str) -> None:
        """Give a complete draft a name in lost+found, durably, and log what it is; raises OSError."""
        area = entry.area
        name = area.free_lost_name(paths.container_name(paths.split(path)[1][:180] + b"." + entry.entry_id))
        self._io.rename(area.directory.number, draft.name, area.lost_and_found.number, name)
        self._io.fsync_directory(area.lost_and_found.number)
        self._counters.add("lost_files")
        size, entry_id = entry.size, entry.entry_id.decode()
        log.error(
            "%s: %s (%d bytes of staging entry %s) is kept in lost+found as %s",
            shown_path(path),
            what,
            size,
            entry_id,
            shown_path(name),
        )
