"""The table of inodes that the kernel knows.

The mount chooses logical inode numbers: the backing's number if that is free, else a number from 2^63 up. A number
stays the same as long as the kernel remembers the inode, although each commit gives the file another backing inode. It
may change over a remount.

Every method but :meth:`InodeTable.get` needs the store's namespace lock, so that a name, its backing inode and its
logical inode always change together. ``get`` is one look into a dictionary; the thread that answers requests calls it
without the lock, and then reads only ``file``, ``key`` and ``no_capability`` of the inode.
"""

import errno
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from threading import RLock

from qatqfs.store.attributes import Attributes, Key
from qatqfs.store.errors import os_error
from qatqfs.store.facade import File
from qatqfs.store.locks import assert_held
from qatqfs.store.paths import join

ROOT = 1
"""Inode number of the top, fixed by the FUSE protocol."""
_OWN_NUMBERS = 1 << 63
_GENERATION_BITS = 32


@dataclass(slots=True, eq=False)
class Inode:
    """One inode that the kernel knows.

    Attributes:
        number: the logical inode number.
        file_type: the S_IFMT bits.
        key: the backing inode, ``None`` once that has no name any more.
        lookups: references that the kernel holds.
        names: where it is: (directory, name), several for hard links.
        children: what is known to be in it, by name.
        file: the store's file while it is open.
        opens: open handles.
        tag: the content tag of what the kernel has in its page cache, ``None`` if unknown.
        removed: attributes of a directory that was removed while it is in use; they count only if it has no name.
        no_capability: the file has no security.capability, for which the kernel asks before each write.
        generation: tells the inode from others with this number, earlier or later, in this mount or the next.
    """

    number: int
    file_type: int
    key: Key | None
    lookups: int = 0
    names: set[tuple["Inode", bytes]] = field(default_factory=set)
    children: dict[bytes, "Inode"] = field(default_factory=dict)
    file: File | None = None
    opens: int = 0
    tag: object = None
    removed: Attributes | None = None
    no_capability: bool = False
    generation: int = 0


def stale() -> OSError:
    """Return the error for an inode that has no name any more."""
    return os_error(errno.ENOENT)


class InodeTable:
    """Maps logical inode numbers to inodes and backing inodes to logical ones.

    Args:
        root: attributes of the top.
        lock: the namespace lock.
        is_searchable: whether this process may look for names in the directory at a logical path.
    """

    def __init__(
        self, root: Attributes, lock: RLock, is_searchable: Callable[[bytes], bool] = lambda path: True
    ) -> None:
        self._lock = lock
        self._is_searchable = is_searchable
        top = Inode(ROOT, stat.S_IFMT(root.mode), root.key, lookups=1)
        self._by_number = {ROOT: top}
        self._by_key = {root.key: top}
        self._own_numbers = count(_OWN_NUMBERS)
        self._generations = count(secrets.randbits(_GENERATION_BITS))

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Inode:
        """Return the inode with a logical number; needs no lock. Raises OSError (ENOENT)."""
        try:
            return self._by_number[number]
        except KeyError:
            raise stale() from None

    def path(self, inode: Inode) -> bytes:
        """Return a logical path of an inode; of several names, one by which this process can reach it if there is one.

        Raises:
            OSError: ENOENT, its last name is gone.
        """
        assert_held(self._lock)
        parts: list[bytes] = []
        while inode.number != ROOT:
            where = next(iter(inode.names), None)
            if len(inode.names) > 1:
                where = next((w for w in inode.names if self._is_searchable(self.path(w[0]))), where)
            if where is None:
                raise stale()
            inode, name = where
            parts.append(name)
        return b"/".join(reversed(parts))

    def child_path(self, directory: Inode, name: bytes) -> bytes:
        """Return the logical path of a name in a directory; raises OSError."""
        return join(self.path(directory), name)

    def remember(self, attributes: Attributes, directory: Inode, name: bytes) -> Inode:
        """Return the inode of a name that the kernel is told of, and count one more reference."""
        assert_held(self._lock)
        file_type = stat.S_IFMT(attributes.mode)
        inode = self._by_key.get(attributes.key)
        if inode is not None and inode.file_type != file_type:
            # Another program freed the backing inode, and its number was used again.
            inode.key = None
            inode = None
        if inode is None:
            inode = Inode(self._free_number(attributes.key[1]), file_type, attributes.key)
            inode.generation = next(self._generations) % (1 << _GENERATION_BITS)
            self._by_number[inode.number] = inode
            self._by_key[attributes.key] = inode
        if directory.children.get(name) is not inode:
            self.unname(directory, name)
            if attributes.nlink == 1 or stat.S_ISDIR(file_type):
                # Renamed in BACKING itself: its old name is another file's now, or free.
                for other_directory, other_name in list(inode.names):
                    self.unname(other_directory, other_name)
            directory.children[name] = inode
            inode.names.add((directory, name))
        inode.lookups += 1
        return inode

    def _free_number(self, wanted: int) -> int:
        if wanted > ROOT and wanted < _OWN_NUMBERS and wanted not in self._by_number:
            return wanted
        return next(self._own_numbers)

    def unname(self, directory: Inode, name: bytes) -> None:
        """Forget that a name is there."""
        assert_held(self._lock)
        inode = directory.children.pop(name, None)
        if inode is not None:
            inode.names.discard((directory, name))

    def move(self, directory: Inode, name: bytes, new_directory: Inode, new_name: bytes) -> None:
        """Note that a name was renamed, replacing what the new name meant."""
        inode = directory.children.get(name)
        self.unname(directory, name)
        self.unname(new_directory, new_name)
        if inode is not None:
            new_directory.children[new_name] = inode
            inode.names.add((new_directory, new_name))

    def swap(self, directory: Inode, name: bytes, other_directory: Inode, other_name: bytes) -> None:
        """Note that two names were exchanged."""
        other = other_directory.children.get(other_name)
        self.unname(other_directory, other_name)
        self.move(directory, name, other_directory, other_name)
        if other is not None:
            directory.children[name] = other
            other.names.add((directory, name))

    def forget(self, number: int, references: int) -> None:
        """Take back references that the kernel held, and drop the inode if none is left."""
        assert_held(self._lock)
        inode = self._by_number.get(number)
        if inode is None or number == ROOT:
            return
        inode.lookups -= references
        if inode.lookups > 0:
            return
        del self._by_number[number]
        if inode.key is not None and self._by_key.get(inode.key) is inode:
            del self._by_key[inode.key]
        for directory, name in list(inode.names):
            self.unname(directory, name)
        for name in list(inode.children):
            self.unname(inode, name)

    def rekey(self, old: Key, new: Key, file: File) -> None:
        """Note that a commit gave a file another backing inode; its content is the same."""
        assert_held(self._lock)
        inode = self._by_key.pop(old, None)
        if inode is None:
            return
        self._drop_key(new)
        self._by_key[new] = inode
        inode.key = new
        if inode.tag is not None:
            inode.tag = file.content_tag()

    def gone(self, key: Key) -> None:
        """Note that the last name of a backing inode is gone, so that its number may become another file's."""
        self._drop_key(key)

    def _drop_key(self, key: Key) -> None:
        assert_held(self._lock)
        inode = self._by_key.pop(key, None)
        if inode is not None:
            inode.key = None
