"""What a starting store does with the staging entries that it finds.

Each entry is reattached as a dirty file and committed in the background, so a mount answers at once:

* the file it builds on is at one of the places its log names: live;
* the container it was about to become is there: it builds on that one now, or if nothing was written since it
  is done and goes;
* neither, and the file was unlinked: the entry goes;
* neither: what was written becomes a container in lost+found, completed with what it builds on if that is found
  under any other name.

An entry in which nothing counts (no VALID record, or after a power cut no SYNC) held no acknowledged data
that was promised to survive, and goes too.
"""

import errno
import logging
import os
from collections.abc import Iterable, Iterator

from qatqfs.store import names
from qatqfs.store.attributes import key_of
from qatqfs.store.containerfile import ContainerFile
from qatqfs.store.descriptors import DescriptorShortage, is_want
from qatqfs.store.node import Kind, Node
from qatqfs.store.ownfiles import find_whatever_the_modes, put_modes_right
from qatqfs.store.schedule import Committer
from qatqfs.store.staging import StagingEntry, load_entry
from qatqfs.store.stagingarea import StagingArea
from qatqfs.store.staginglog import LogState
from qatqfs.store.sysfile import Fd, Identity
from qatqfs.store.tree import Tree

log = logging.getLogger(__name__)


Found = tuple[Fd, int, bytes]
"""The container that an entry builds on, which one of its log it is, and its logical path."""


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
        self._denied: set[bytes] = set()

    def run(self) -> int:
        """Deal with every entry; returns how many files have content to commit.

        An entry that cannot be read is left as it is, with a line in the log.

        Raises:
            OSError: the staging directory cannot be read.
        """
        self._area.sweep()
        put_modes_right(self._area, self._tree.root)
        recovered = 0
        for entry_id in self._area.entry_ids():
            try:
                recovered += self._recover_with_room(entry_id)
            except OSError as err:
                log.error("staging entry %s cannot be recovered and is kept: %s", entry_id.decode(), err)
        for node in self._tree.dirty_nodes():
            self._committer.dirtied(node)
        if recovered:
            log.info("recovered %d file(s) with uncommitted content", recovered)
            self._tree.context.reading.statistics.add("recovered_files", recovered)
        return recovered

    def _recover_with_room(self, entry_id: bytes) -> bool:
        try:
            return self._recover(entry_id)
        except DescriptorShortage:
            log.info("more files have uncommitted content than may be open; committing some of them first")
            self._committer.sync()
        return self._recover(entry_id)

    def _recover(self, entry_id: bytes) -> bool:
        loaded = load_entry(self._area, entry_id)
        if loaded is None:
            self._area.discard(entry_id)
            return False
        entry, state = loaded
        node = self._reattach(entry, state)
        if node is None:
            entry.drop()
            return False
        if not state.current_boot:
            entry.renew_log()
        node.staging = entry
        with self._tree.lock:
            self._tree.nodes[node.key] = node
        return True

    def _reattach(self, entry: StagingEntry, state: LogState) -> Node | None:
        """Return a node for the file that an entry belongs to, ``None`` if the entry is not needed."""
        assert state.base is not None
        hints = list(dict.fromkeys(path for path in reversed(state.paths) if path))
        redo = self._redo_of(entry, state)
        if redo is not None:
            return self._redo(entry, state, hints, redo)
        if self._has_become_raw(hints, state):
            return None
        found = self._look_at(hints, state)
        if found is None and (not state.current_boot or b"" in state.paths):
            # A rename may have got to the disk without the record that announced it; of several names any may do.
            found = self._search(state)
        if found is not None:
            opened, at, path = found
            if at and not state.since(at)[0]:
                return None
            node = Node(self._tree.context, key_of(os.fstat(opened.number)), path, Kind.CONTAINER, opened)
            entry.attach(state, at, self._base_of(node, entry, state, at), path)
            return node
        if state.unlinked or not hints:
            return None
        return self._orphan(entry, state, hints[0])

    def _has_become_raw(self, hints: list[bytes], state: LogState) -> bool:
        """Whether a commit has put all of an entry's content under the file's own name; removes what that replaced."""
        for path in hints:
            try:
                entry = find_whatever_the_modes(self._area, self._tree.root, path)
                at = self._position(self._tree.open_regular(entry), state)
            except OSError:
                continue
            if not at or state.since(at)[0]:
                continue
            container = self._open_container(path)
            if container is not None and self._position(container, state) is not None:
                with self._tree.parent(path) as (directory, _, name):
                    self._tree.context.io.unlink(directory, names.container_name(name))
            return True
        return False

    def _redo_of(self, entry: StagingEntry, state: LogState) -> tuple[Fd, int] | None:
        """Return the redo file if copying it may have begun, and the INTENT that names it."""
        redo = self._area.open_redo(entry.entry_id)
        if redo is None:
            return None
        identity = Identity.of(redo.number)
        at = max((n for n, one in enumerate(state.intents, 1) if one == identity), default=None)
        return (redo, at) if at is not None else None

    def _redo(self, entry: StagingEntry, state: LogState, hints: list[bytes], redo: tuple[Fd, int]) -> Node | None:
        """Return a node that builds on a finished container which may be half copied into the file's inode."""
        target = self._target_of_redo(state, hints)
        if target is None and state.unlinked:
            return None
        if target is None:
            self._check_gone(hints[0])
        opened, path = target or (entry.data, hints[0])
        node = Node(self._tree.context, key_of(os.fstat(opened.number)), path, Kind.CONTAINER, opened)
        node.several_names = target is not None
        base = ContainerFile(redo[0], path, self._tree.context.reading)
        entry.attach(state, redo[1], base, path, redo=True)
        return node

    def _target_of_redo(self, state: LogState, hints: list[bytes]) -> tuple[Fd, bytes] | None:
        assert state.base is not None
        wanted = state.base.identity
        for path in (*hints, *self._all_files()):
            opened = self._open_container(path)
            if opened is not None and wanted.is_same_inode(opened.number):
                return opened, path
        return None

    def _look_at(self, paths: Iterable[bytes], state: LogState) -> Found | None:
        for path in paths:
            opened = self._open_container(path)
            at = self._position(opened, state) if opened is not None else None
            if opened is not None and at is not None:
                return opened, at, path
        return None

    @staticmethod
    def _position(opened: Fd, state: LogState) -> int | None:
        """Return which container of a log an open file is: 0 the base, n that of the n-th INTENT."""
        assert state.base is not None
        identity = Identity.of(opened.number)
        known = [state.base.identity, *state.intents]
        return max((at for at, one in enumerate(known) if one == identity), default=None)

    @staticmethod
    def _base_of(node: Node, entry: StagingEntry, state: LogState, at: int) -> ContainerFile | None:
        """Return what a node's container holds, ``None`` if it cannot be read and nothing of it is needed.

        Raises:
            OSError: it cannot be read and is needed.
        """
        try:
            return node.container()
        except OSError:
            if not state.is_self_contained(entry.size, at):
                raise
            return None

    def _open_container(self, path: bytes) -> Fd | None:
        try:
            entry = find_whatever_the_modes(self._area, self._tree.root, names.container_name(path))
            opened = self._tree.open_regular(entry)
        except PermissionError:
            self._denied.add(path)
            return None
        except OSError as err:
            if is_want(err):
                raise
            return None
        return opened if os.fstat(opened.number).st_dev == self._tree.device else None

    def _check_gone(self, path: bytes) -> None:
        """Raise OSError if what was at a path may be there, where we must not look."""
        if path in self._denied:
            raise OSError(errno.EACCES, f"{os.fsdecode(path)!r} may not be read")

    def _orphan(self, entry: StagingEntry, state: LogState, path: bytes) -> Node:
        """Make a node that no name leads to; its commit finds nothing at the path and goes to lost+found.

        Raises:
            OSError: it may be there still.
        """
        self._check_gone(path)
        found = None if state.is_self_contained(entry.size) else self._search(state)
        base = None
        if found is not None:
            base = ContainerFile(found[0], path, self._tree.context.reading)
        entry.attach(state, found[1] if found is not None else 0, base, path)
        log.error(
            "%s: has uncommitted content, but what it belongs to is gone or was replaced; moving it to lost+found%s",
            os.fsdecode(path),
            "" if found is not None or state.is_self_contained(entry.size) else ", with zeros for what only that had",
        )
        key = key_of(os.fstat(entry.data.number))
        return Node(self._tree.context, key, path, Kind.CONTAINER, entry.data)

    def _search(self, state: LogState) -> Found | None:
        """Look for the container that an entry builds on under every name in BACKING."""
        return self._look_at(self._all_files(), state)

    def _all_files(self) -> Iterator[bytes]:
        """Yield the logical paths of everything that is no directory."""
        directories = [b""]
        while directories:
            above = directories.pop()
            try:
                found = self._tree.list_names(above)
            except OSError:
                continue
            for name in found:
                path = names.join(above, name)
                if self._tree.is_directory(path):
                    directories.append(path)
                else:
                    yield path
