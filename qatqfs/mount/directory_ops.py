"""Request handlers for directories: opendir, readdir, releasedir, fsyncdir."""

import errno
from dataclasses import dataclass, field

import pyfuse3

from qatqfs.mount.adapter import Adapter, handler
from qatqfs.mount.inodes import Inode
from qatqfs.store.attributes import Attributes
from qatqfs.store.facade import FileStore

_BATCH = 32  # names under one hold of the namespace lock
_NO_NUMBER = (1 << 64) - 1
"""An inode number that no inode has. With 0 the kernel would hide the name."""
_DOT_NAMES = [b".", b".."]  # they come first, and the kernel counts no reference for them


@dataclass(slots=True)
class _OpenDirectory:
    """A directory handle, with the names as they were when reading began, so that offsets stay the same."""

    inode: Inode
    names: list[bytes] = field(default_factory=list)


def _name_alone() -> pyfuse3.EntryAttributes:
    """Return the reply for a name without known attributes. Its type is 0, so the kernel keeps no inode."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(_NO_NUMBER)
    entry.st_mode = pyfuse3.ModeT(0)
    entry.entry_timeout = entry.attr_timeout = 0
    return entry


class DirectoryOperations(Adapter):
    """Directory handles, numbered on their own; ``_directories`` belongs to the trio thread."""

    def __init__(self, store: FileStore) -> None:
        super().__init__(store)
        self._directories: dict[int, _OpenDirectory] = {}
        self._next_directory = 1

    @handler
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory."""
        number = self._next_directory
        self._next_directory += 1
        self._directories[number] = _OpenDirectory(self.inodes.get(inode))
        return number

    def _directory(self, number: int) -> _OpenDirectory:
        try:
            return self._directories[number]
        except KeyError:
            raise OSError(errno.EBADF, "unknown directory handle") from None

    @handler
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Answer names with the attributes that getattr gives; offset n is the n-th name."""
        directory = self._directory(fh)
        if start_id == 0:
            directory.names = await self.run(self._list, directory.inode)
        position = start_id
        while position < len(_DOT_NAMES) + len(directory.names):
            batch = await self.run(self._batch, directory, position)
            if not await self._reply_batch(token, batch):
                return
            position = batch[-1][1]

    def _list(self, inode: Inode) -> list[bytes]:
        with self.lock:
            path = self.inodes.path(inode)
        return self.store.list_names(path)

    def _batch(
        self, directory: _OpenDirectory, position: int
    ) -> list[tuple[bytes, int, pyfuse3.EntryAttributes | None]]:
        """Return (name, offset of the next, reply) for the next names; the reply is ``None`` for a name that is gone.

        Each reply counts a reference, which is either given to the kernel or taken back.
        """
        dots = _DOT_NAMES[position:]
        first = max(position - len(_DOT_NAMES), 0)
        names = dots + directory.names[first : first + _BATCH]
        with self.lock:
            path = self.inodes.path(directory.inode)
            found = dict(self.store.list_attributes(path, [name for name in names if name not in _DOT_NAMES]))
            return [(name, position + i + 1, self._entry(directory, name, found)) for i, name in enumerate(names)]

    def _entry(
        self, directory: _OpenDirectory, name: bytes, found: dict[bytes, Attributes | None]
    ) -> pyfuse3.EntryAttributes | None:
        if name in _DOT_NAMES:
            inode = directory.inode
            if name == b".." and inode.names:
                inode = next(iter(inode.names))[0]
            return self.reply(inode, self.store.stat(self.inodes.path(inode)))
        if name not in found:
            return None
        attributes = found[name]
        if attributes is None:
            return _name_alone()
        return self.reply(self.inodes.remember(attributes, directory.inode, name), attributes)

    async def _reply_batch(
        self,
        token: pyfuse3.ReaddirToken,
        batch: list[tuple[bytes, int, pyfuse3.EntryAttributes | None]],
    ) -> bool:
        """Put a batch into the reply; ``False`` when the reply is full."""
        for i, (name, offset, entry) in enumerate(batch):
            if entry is None:
                continue
            if not pyfuse3.readdir_reply(token, name, entry, offset):
                unsent = [e.st_ino for n, _, e in batch[i:] if e is not None and n not in _DOT_NAMES]
                await self.run(self._take_back, unsent)
                return False
        return True

    def _take_back(self, numbers: list[int]) -> None:
        with self.lock:
            for number in numbers:
                self.inodes.forget(number, 1)

    @handler
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a directory."""
        self._directories.pop(fh, None)

    @handler
    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Make the names in a directory durable."""
        inode = self._directory(fh).inode
        if not self.store.options.read_only:
            await self.run(self._fsync_directory, inode)

    def _fsync_directory(self, inode: Inode) -> None:
        with self.lock:
            path = self.inodes.path(inode)
        self.store.fsync_directory(path)
