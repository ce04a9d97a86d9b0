"""Which file an entry of an earlier daemon belongs to, and which container it builds on."""

import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

from qatqfs.codec import without_frames
from qatqfs.store import paths as names
from qatqfs.store.attributes import key_of
from qatqfs.store.names.node import Node
from qatqfs.store.names.own_files import find_whatever_the_modes
from qatqfs.store.names.state import Storage
from qatqfs.store.names.tree import Tree
from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.staging.records import LogState
from qatqfs.store.system.descriptors import is_want
from qatqfs.store.system.fd import Fd
from qatqfs.store.system.identity import Identity
from qatqfs.wording import shown_path

log = logging.getLogger(__name__)

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENAMETOOLONG, errno.EBUSY)
"""Errors of opening a regular file that mean: there is none. Any other error leaves that open."""

Found = tuple[Fd, int, bytes]
"""The container that an entry builds on, its number in the log (see :class:`Place`), and its logical path."""


def _hints(state: LogState) -> list[bytes]:
    """Return the paths that a log names, the last one first."""
    return list(dict.fromkeys(path for path in reversed(state.paths) if path))


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry belongs.

    Attributes:
        node: for the file.
        at: which container of the log it builds on: 0 the base, n that of the n-th INTENT.
        base: that container, ``None`` if it cannot be read and is not needed.
        path: the logical path.
        redo: the container is the redo file.
        named: the file still has a name.
    """

    node: Node
    at: int
    base: ContainerFile | None
    path: bytes
    redo: bool = False
    named: bool = True

    def has_all_of(self, state: LogState) -> bool:
        """Whether the container that an entry builds on has all of its content, if that container is whole."""
        return self.at > 0 and not self.redo and not state.since(self.at)[0]


class Locator:
    """Finds the places of entries.

    Args:
        tree: the names.
        area: where the entries are.
    """

    def __init__(self, tree: Tree, area: StagingArea) -> None:
        self._tree = tree
        self._area = area

    def place(self, state: LogState, entry_id: bytes, data: Fd) -> Place | None:
        """Return where an entry belongs, ``None`` if its file was removed.

        Raises:
            OSError: what it builds on cannot be read.
        """
        assert state.base is not None
        hints = _hints(state)
        redo = self._redo_of(entry_id, state)
        if redo is not None:
            return self._place_of_redo(state, hints or [entry_id], redo, data)
        found = self._look_at_all(hints, state)
        if found is None and (not state.is_sure or b"" in state.paths):
            # The rename may be on the disk without the record that announced it. Of several names, any will do.
            found = self._search(state)
        if found is None:
            return None if state.unlinked else self._lost(state, (hints or [entry_id])[0], data)
        opened, at, path = found
        node = Node(self._tree.context, key_of(os.fstat(opened.number)), path, Storage.CONTAINER, opened)
        place = Place(node, at, None, path)
        if place.has_all_of(state):
            return place
        return Place(node, at, self._base_of(node, state, os.fstat(data.number).st_size, at), path)

    def raw_file(self, state: LogState, entry_id: bytes) -> tuple[Fd, bytes] | None:
        """Return the raw file that a commit has made of all of an entry, and its path; ``None`` if there is none."""
        if self._redo_of(entry_id, state) is not None:
            return None
        for path in _hints(state):
            try:
                opened = self._tree.open_regular(find_whatever_the_modes(self._area, self._tree.root, path))
            except OSError as err:
                if is_want(err):
                    raise
                continue
            at = self._position(opened, state)
            if at and not state.since(at)[0]:
                return opened, path
        return None

    def remove_replaced(self, state: LogState, path: bytes) -> None:
        """Remove the container that a raw file at a path has replaced, if it is still there; raises OSError."""
        if self._look_at(path, state) is None:
            return
        with self._tree.parent(path) as (directory, _, name):
            self._tree.context.io.unlink(directory, names.container_name(name))

    def lost_place(self, path: bytes, data: Fd) -> Place:
        """Return the place of an entry that holds all of its content and goes to lost+found."""
        return Place(self.node_without_name(path, data), 0, None, path, named=False)

    def node_without_name(self, path: bytes, data: Fd) -> Node:
        """Make a node without a name. Its commit finds no container at the path, so it goes to lost+found."""
        key = key_of(os.fstat(data.number))
        # Durable, so that its container is made durable.
        return Node(self._tree.context, key, path, Storage.CONTAINER, data, durable=True)

    def _lost(self, state: LogState, path: bytes, data: Fd) -> Place:
        """Return the place of an entry whose file is gone or was replaced."""
        whole = state.is_self_contained(os.fstat(data.number).st_size)
        found = None if whole else self._search(state)
        log.error(
            "%s: has uncommitted content, but what it belongs to is gone or was replaced; moving it to lost+found%s",
            shown_path(path),
            "" if found is not None or whole else ", with zeros for what only that had",
        )
        if found is None:
            return self.lost_place(path, data)
        base = ContainerFile(found[0], path, self._tree.context.reading)
        return Place(self.node_without_name(path, data), found[1], base, path, named=False)

    def _redo_of(self, entry_id: bytes, state: LogState) -> tuple[Fd, int] | None:
        """Return the redo file, if the copy may have begun, and the number of the INTENT that names it."""
        redo = self._area.open_redo(entry_id)
        if redo is None:
            return None
        identity = Identity.of(redo.number)
        at = max((n for n, one in enumerate(state.intents, 1) if one == identity), default=None)
        return (redo, at) if at is not None else None

    def _place_of_redo(self, state: LogState, hints: list[bytes], redo: tuple[Fd, int], data: Fd) -> Place | None:
        """Return the place of an entry that builds on a redo file, which may be half copied into the file's inode."""
        target = self._target_of_redo(state, hints)
        if target is None and state.unlinked:
            return None
        if target is None:
            node = self.node_without_name(hints[0], data)
        else:
            opened, path = target
            key = key_of(os.fstat(opened.number))
            node = Node(self._tree.context, key, path, Storage.CONTAINER, opened, several_names=True)
        base = ContainerFile(redo[0], node.path or hints[0], self._tree.context.reading)
        return Place(node, redo[1], base, node.path or hints[0], redo=True, named=target is not None)

    def _target_of_redo(self, state: LogState, hints: list[bytes]) -> tuple[Fd, bytes] | None:
        """Return the file that a redo file has to be copied into; raises OSError if a hint cannot be read."""
        assert state.base is not None
        wanted = state.base.identity
        for path in hints:
            opened = self._open_container(path)
            if opened is not None and wanted.is_same_inode(opened.number):
                return opened, path
        for path in self._all_files():
            try:
                opened = self._open_container(path)
                if opened is not None and wanted.is_same_inode(opened.number):
                    return opened, path
            except OSError as err:
                if is_want(err):  # it says nothing about what is there
                    raise
        return None

    def _look_at_all(self, paths: list[bytes], state: LogState) -> Found | None:
        """Return the first container of a log at some paths; raises OSError if none is found but may be there."""
        failure: OSError | None = None
        for path in paths:
            try:
                found = self._look_at(path, state)
            except OSError as err:
                failure = without_frames(err)
            else:
                if found is not None:
                    return found
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it refers to this frame: without the cycle nothing keeps the files open
        return None

    def _look_at(self, path: bytes, state: LogState) -> Found | None:
        """Return the container at a path if a log names it; raises OSError if that is unknown."""
        opened = self._open_container(path)
        at = self._position(opened, state) if opened is not None else None
        return (opened, at, path) if opened is not None and at is not None else None

    @staticmethod
    def _position(opened: Fd, state: LogState) -> int | None:
        """Return which container of a log an open file is: 0 the base, n that of the n-th INTENT."""
        assert state.base is not None
        identity = Identity.of(opened.number)
        known = [state.base.identity, *state.intents]
        return max((at for at, one in enumerate(known) if one == identity), default=None)

    @staticmethod
    def _base_of(node: Node, state: LogState, size: int, at: int) -> ContainerFile | None:
        """Return a node's container, ``None`` if it cannot be read and is not needed.

        Raises:
            OSError: it cannot be read and is needed.
        """
        try:
            return node.container()
        except OSError:
            if not state.is_self_contained(size, at):
                raise
            return None

    def _open_container(self, path: bytes) -> Fd | None:
        """Open a container on BACKING's own device; ``None`` if there is none; raises OSError if that is unknown."""
        try:
            entry = find_whatever_the_modes(self._area, self._tree.root, names.container_name(path))
            opened = self._tree.open_regular(entry)
        except OSError as err:
            if err.errno in _NOT_THERE:
                return None
            raise
        return opened if os.fstat(opened.number).st_dev == self._tree.device else None

    def _search(self, state: LogState) -> Found | None:
        """Look for the container that an entry builds on under every name in BACKING that can be read."""
        for path in self._all_files():
            try:
                found = self._look_at(path, state)
                if found is not None:
                    return found
            except OSError as err:
                if is_want(err):  # it says nothing about what is there
                    raise
        return None

    def _all_files(self) -> Iterator[bytes]:
        """Yield the logical paths of everything but directories."""
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
