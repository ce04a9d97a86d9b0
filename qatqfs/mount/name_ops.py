"""Request handlers for names: lookup, mkdir, mknod, symlink, link, unlink, rmdir, rename, forget."""

import contextlib
import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Sequence

import pyfuse3

from qatqfs.mount.adapter import ATTRIBUTE_TIMEOUT_S, Adapter, handler, notification, owner_of
from qatqfs.mount.inodes import Inode
from qatqfs.store.attributes import Attributes
from qatqfs.store.errors import os_error
from qatqfs.store.facade import Owner
from qatqfs.store.system.calls import RENAME_EXCHANGE

_ABSENT = 0
_LONGEST_NAME = 255
"""Bytes in a name on every filesystem that may hold BACKING (NAME_MAX). The kernel passes longer names on."""


class NameOperations(Adapter):
    """Names and the table of inodes, which change together with BACKING under the namespace lock."""

    @handler
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Find a name. The answer for an absent name lets the kernel remember for a second that it is absent."""
        if len(name) > _LONGEST_NAME:
            raise os_error(errno.ENAMETOOLONG)
        try:
            return await self.run(self._lookup, parent_inode, name)
        except FileNotFoundError:
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = pyfuse3.InodeT(_ABSENT)
            absent.entry_timeout = ATTRIBUTE_TIMEOUT_S
            return absent

    def _lookup(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        with self.lock:
            directory = self.inodes.get(parent)
            attributes = self.store.stat(self.inodes.child_path(directory, name))
            return self.reply(self.inodes.remember(attributes, directory, name), attributes)

    @notification
    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Take back references; the kernel expects no answer."""
        await self.run(self._forget, inode_list)

    def _forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        with self.lock:
            for number, references in inode_list:
                self.inodes.forget(number, references)

    def _make(self, parent: int, name: bytes, make: Callable[[bytes], Attributes]) -> pyfuse3.EntryAttributes:
        with self.lock:
            directory = self.inodes.get(parent)
            attributes = make(self.inodes.child_path(directory, name))
            return self.reply(self.inodes.remember(attributes, directory, name), attributes)

    @handler
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        owner = owner_of(ctx)
        return await self.run(
            self._make, parent_inode, name, lambda path: self.store.mkdir(path, mode & ~ctx.umask, owner)
        )

    @handler
    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a special file, or a regular one without opening it."""
        owner = owner_of(ctx)
        masked = mode & ~ctx.umask
        if stat.S_ISREG(mode):
            return await self.run(self._make_regular, parent_inode, name, masked, owner)
        return await self.run(self._make, parent_inode, name, lambda path: self.store.mknod(path, masked, rdev, owner))

    def _make_regular(self, parent: int, name: bytes, mode: int, owner: Owner) -> pyfuse3.EntryAttributes:
        with self.lock:
            directory = self.inodes.get(parent)
            path = self.inodes.child_path(directory, name)
            handle, truncate = self.store.attach_new(path, mode, owner, os.O_WRONLY | os.O_EXCL)
            try:
                inode = self.inodes.remember(self.store.stat(handle.file), directory, name)
            except BaseException:
                handle.close()
                raise
        try:
            with self.store.finish_opening(handle, truncate=truncate):
                return self.reply(inode, self.store.stat(handle.file))
        except BaseException:
            with self.lock:
                self.inodes.forget(inode.number, 1)
            raise

    @handler
    async def symlink(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        target: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        owner = owner_of(ctx)
        return await self.run(self._make, parent_inode, name, lambda path: self.store.symlink(path, target, owner))

    @handler
    async def link(
        self,
        inode: pyfuse3.InodeT,
        new_parent_inode: pyfuse3.InodeT,
        new_name: pyfuse3.FileNameT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Give anything but a directory another name."""

        def make(path: bytes) -> Attributes:
            return self.store.link(self.inodes.path(self.inodes.get(inode)), path)

        return await self.run(self._make, new_parent_inode, new_name, make)

    @handler
    async def unlink(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name."""
        await self.run(self._remove, parent_inode, name, self.store.unlink)

    @handler
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty directory."""
        await self.run(self._remove, parent_inode, name, self.store.rmdir)

    def _remove(self, parent: int, name: bytes, remove: Callable[[bytes], None]) -> None:
        with self.lock:
            directory = self.inodes.get(parent)
            self._note_removal(directory, name)
            remove(self.inodes.child_path(directory, name))
            self.inodes.unname(directory, name)

    def _note_removal(self, directory: Inode, name: bytes) -> None:
        """Keep the attributes of a directory that is about to be removed, for programs that are in it; lock held."""
        inode = directory.children.get(name)
        if inode is not None and stat.S_ISDIR(inode.file_type):
            with contextlib.suppress(OSError):  # it was removed in BACKING itself
                inode.removed = dataclasses.replace(self.store.stat(self.inodes.path(inode)), nlink=0)

    @handler
    async def rename(
        self,
        parent_inode_old: pyfuse3.InodeT,
        name_old: pyfuse3.FileNameT,
        parent_inode_new: pyfuse3.InodeT,
        name_new: pyfuse3.FileNameT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Rename, with RENAME_NOREPLACE and RENAME_EXCHANGE."""
        await self.run(self._rename, parent_inode_old, name_old, parent_inode_new, name_new, flags)

    def _rename(self, old_parent: int, old_name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        with self.lock:
            old = self.inodes.get(old_parent)
            new = self.inodes.get(new_parent)
            if not flags & RENAME_EXCHANGE:
                self._note_removal(new, new_name)
            self.store.rename(self.inodes.child_path(old, old_name), self.inodes.child_path(new, new_name), flags)
            if flags & RENAME_EXCHANGE:
                self.inodes.swap(old, old_name, new, new_name)
            else:
                self.inodes.move(old, old_name, new, new_name)
