"""What a starting store does with the staging entries that it finds.

Each entry is reattached as a dirty file and committed in the background, so a mount answers at once:

* the file it builds on is at one of the places its log names: live;
* the container it was about to become is there: done, the entry goes;
* neither, and the file was unlinked: the entry goes;
* neither: what was written becomes a container in lost+found.

An entry in which nothing counts (no VALID record, or after a power cut no SYNC) held no acknowledged data
that was promised to survive, and goes too.
"""

import logging
import os

from qatqfs.store import names
from qatqfs.store.attributes import key_of
from qatqfs.store.commit import Committer
from qatqfs.store.node import Kind, Node
from qatqfs.store.staging import StagingArea, StagingEntry
from qatqfs.store.staginglog import LogState
from qatqfs.store.sysfile import Fd, Identity
from qatqfs.store.tree import Tree

log = logging.getLogger(__name__)


class Recovery:
    """Reattaches what an earlier daemon left in staging.

    Args:
        tree: the names.
        area: where the entries are.
        committer: gets the dirty nodes.
    """

    def __init__(self, tree: Tree, area: StagingArea, committer: Committer) -> None:
        self._tree = tree
        self._area = area
        self._committer = committer

    def run(self) -> int:
        """Deal with every entry; returns how many files have content to commit.

        An entry that cannot be read is left as it is, with a line in the log.

        Raises:
            OSError: the staging directory cannot be read.
        """
        self._area.sweep()
        recovered = 0
        for entry_id in self._area.entry_ids():
            try:
                recovered += self._recover(entry_id)
            except OSError as err:
                log.error("staging entry %s cannot be recovered and is kept: %s", entry_id.decode(), err)
        if recovered:
            log.info("recovered %d file(s) with uncommitted content", recovered)
            self._tree.context.reading.statistics.add("recovered_files", recovered)
        return recovered

    def _recover(self, entry_id: bytes) -> bool:
        loaded = self._area.load(entry_id)
        if loaded is None or not loaded[1].valid:
            self._area.discard(entry_id)
            return False
        entry, state = loaded
        node = self._find(state)
        if node is None:
            entry.drop()
            return False
        self._attach(node, entry)
        return True

    def _find(self, state: LogState) -> Node | None:
        """Return a node for the file that an entry belongs to, ``None`` if the entry is not needed."""
        assert state.base is not None
        hints = list(dict.fromkeys(reversed(state.paths)))
        for path in hints:
            opened = self._open_container(path)
            if opened is None:
                continue
            identity = Identity.of(opened.number)
            if identity in state.intents:
                return None
            if identity == state.base.identity:
                return Node(self._tree.context, key_of(os.fstat(opened.number)), path, Kind.CONTAINER, opened)
        if state.unlinked or not hints:
            return None
        return self._orphan(hints[0])

    def _open_container(self, path: bytes) -> Fd | None:
        try:
            with self._tree.parent(path) as (fd, _, name):
                opened = self._tree.open_stored(fd, names.container_name(name))
        except OSError:
            return None
        return opened if os.fstat(opened.number).st_dev == self._tree.device else None

    def _orphan(self, path: bytes) -> Node:
        """Make a node that no name leads to; its commit finds nothing at the path and goes to lost+found."""
        log.error(
            "%s: has uncommitted content, but the file it belongs to is gone or was replaced; moving it to lost+found",
            os.fsdecode(path),
        )
        return Node(self._tree.context, (0, 0), path, Kind.CONTAINER, self._tree.root)

    def _attach(self, node: Node, entry: StagingEntry) -> None:
        if node.key == (0, 0):
            node.fd = entry.data
            node.key = key_of(os.fstat(entry.data.number))
        node.staging = entry
        with self._tree.lock:
            self._tree.nodes[node.key] = node
        self._committer.dirtied(node)
