"""Request handlers for attributes: getattr, setattr, readlink, xattrs, statfs, access."""

import errno
import os
import stat
from typing import Any

import pyfuse3

from qatqfs.mount import control
from qatqfs.mount.adapter import Adapter, handler
from qatqfs.mount.inodes import Inode
from qatqfs.mount.privileges import CAPABILITY, drop_at_truncation, in_group
from qatqfs.store.facade import File, FileHandle

_ACCESS_ACL = b"system.posix_acl_access"


def _fuse_error(number: int) -> pyfuse3.FUSEError:
    return pyfuse3.FUSEError(number)


class AttributeOperations(Adapter):
    """Attributes of every kind of inode."""

    @handler
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Return attributes; those of an open file without leaving this thread."""
        known = self.inodes.get(inode)
        file = known.file
        if file is not None and file.opened:
            return self.reply(known, self.store.stat(file))
        return await self.run(self._getattr, inode)

    def _getattr(self, number: int) -> pyfuse3.EntryAttributes:
        with self.lock:
            inode = self.inodes.get(number)
            if inode.removed is not None and not inode.names:
                return self.reply(inode, inode.removed)
            inode, target = self.target(number)
            return self.reply(inode, self.store.stat(target))

    @handler
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Set size, mode, owner and times, in this order."""
        if fields.update_size:
            handle = self.file(fh).handle if fh is not None else None
            await self.run(self._truncate, inode, handle, attr.st_size)
        return await self.run(self._setattr, inode, attr, fields, ctx)

    def _truncate(self, number: int, handle: FileHandle | None, size: int) -> None:
        if handle is not None and handle.writable:
            handle.truncate(size)
            return
        with self.lock:
            inode, target = self.target(number)
            # The kernel keeps its pages below the new size without asking whether they are still valid.
            inode.tag = None
            attached = self.store.attach(target, os.O_WRONLY | (os.O_TRUNC if size == 0 else 0))
        with attached:
            attached.truncate(size)

    def _setattr(
        self,
        number: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        with self.lock:
            inode, target = self.target(number)
            if fields.update_mode:
                self.store.chmod(target, stat.S_IMODE(attr.st_mode))
            if fields.update_size and ctx.uid != 0:
                drop_at_truncation(self.store, target, ctx)
            if fields.update_uid or fields.update_gid:
                uid = attr.st_uid if fields.update_uid else -1
                gid = attr.st_gid if fields.update_gid else -1
                self.store.chown(target, uid, gid)
            if fields.update_atime:
                self.store.utimens(target, attr.st_atime_ns, None)
            file = self._open_or_dirty(inode)
        if fields.update_mtime:  # without the lock, because it may wait for a write
            self.store.utimens(file or target, None, attr.st_mtime_ns)
        return self._getattr(number)

    def _open_or_dirty(self, inode: Inode) -> File | None:
        return self.store.file_with(inode.key) if inode.key is not None else None

    @handler
    async def readlink(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileNameT:
        """Return where a symbolic link points."""
        return await self.run(self._readlink, inode)

    def _readlink(self, number: int) -> bytes:
        with self.lock:
            return self.store.readlink(self.inodes.path(self.inodes.get(number)))

    # -- extended attributes ---------------------------------------------------------------------------

    @handler
    async def getxattr(self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext) -> bytes:
        """Return an extended attribute. The kernel asks for security.capability before every write."""
        if name == CAPABILITY and self.inodes.get(inode).no_capability:
            raise _fuse_error(errno.ENODATA)
        if control.is_denied(name, ctx.uid):
            raise _fuse_error(errno.EPERM)
        if name == control.SYNC:
            return await self.run(self._start_sync, inode)
        if name.startswith(control.PREFIX):
            answer = await self.run(control.answer, self.store, bytes(name))
            if answer is not None:
                return answer
        try:
            return await self.run(self._with_target, inode, self.store.getxattr, name)
        except OSError as err:
            if name == CAPABILITY and err.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                self.inodes.get(inode).no_capability = True
            raise

    def _with_target(self, number: int, function: Any, *args: object) -> Any:
        with self.lock:
            return function(self.target(number)[1], *args)

    @handler
    async def setxattr(
        self,
        inode: pyfuse3.InodeT,
        name: pyfuse3.XAttrNameT,
        value: bytes,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Set an extended attribute, or ask the daemon for something (:mod:`qatqfs.mount.control`)."""
        if control.is_denied(name, ctx.uid):
            raise _fuse_error(errno.EPERM)
        if name == control.SYNC:
            await self.run(self._sync, inode)
            return
        if name == CAPABILITY:
            self.inodes.get(inode).no_capability = False
        await self.run(self._with_target, inode, self.store.setxattr, name, value)
        if name == _ACCESS_ACL and ctx.uid != 0:
            await self.run(self._clear_set_group_id, inode, ctx)

    def _clear_set_group_id(self, number: int, ctx: pyfuse3.RequestContext) -> None:
        """Remove the set-group-id bit if the process that sets an ACL is not in the file's group.

        The kernel leaves this to the daemon, without saying so in the version of the protocol that pyfuse3 uses.
        """
        with self.lock:
            _, target = self.target(number)
            attributes = self.store.stat(target)
            if attributes.mode & stat.S_ISGID and not in_group(ctx, attributes.gid):
                self.store.chmod(target, stat.S_IMODE(attributes.mode) & ~stat.S_ISGID)

    def _sync(self, number: int) -> None:
        self.store.sync(self._path(number))

    def _start_sync(self, number: int) -> bytes:
        return control.start_sync(self.store, self._path(number))

    def _path(self, number: int) -> bytes:
        with self.lock:
            return self.inodes.path(self.inodes.get(number))

    @handler
    async def listxattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> list[pyfuse3.XAttrNameT]:
        """Return the names of the extended attributes."""
        found = await self.run(self._with_target, inode, self.store.listxattr)
        return list(found)

    @handler
    async def removexattr(self, inode: pyfuse3.InodeT, name: pyfuse3.XAttrNameT, ctx: pyfuse3.RequestContext) -> None:
        """Remove an extended attribute."""
        await self.run(self._with_target, inode, self.store.removexattr, name)

    # -- the filesystem --------------------------------------------------------------------------------

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Return the backing filesystem's free space, in blocks of 4 KiB."""
        found = await self.run(self.store.statvfs)
        reply = pyfuse3.StatvfsData()
        for name in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "namemax"):
            setattr(reply, f"f_{name}", getattr(found, f"f_{name}"))
        return reply

    @handler
    async def access(self, inode: pyfuse3.InodeT, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Answer yes. With default_permissions the kernel has checked already."""
        return True
