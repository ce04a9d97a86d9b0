"""Request handlers for content: open, create, read, write, flush, fsync, release."""

import errno
import os
import time
from typing import Any

import pyfuse3

from qatqfs.mount.adapter import Adapter, handler, owner_of
from qatqfs.mount.inodes import Inode
from qatqfs.mount.privileges import drop_at_truncation
from qatqfs.store.errors import os_error
from qatqfs.store.facade import FileHandle

_SLOW_WRITE_S = 0.02
"""A write to staging that takes longer waited for the disk. A megabyte takes some tenths of a millisecond."""
_SLOW_FOR_S = 1.0
"""How long after such a write worker threads do the writes."""


class FileOperations(Adapter):
    """Open files.

    A write to staging is little more than a copy into the page cache, and handing it to a worker thread costs about as
    much. So the trio thread writes itself, unless a write took long a short time ago. Then the disk cannot keep up, and
    other requests must not wait for it. ``_slow_until`` (monotonic seconds) belongs to the trio thread.
    """

    _slow_until = 0.0

    @handler
    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a regular file, truncating it if asked to."""
        known, handle, keep = await self.run(self._open, inode, flags, ctx)
        return pyfuse3.FileInfo(fh=self.add_file(known, handle), keep_cache=keep)

    def _open(self, number: int, flags: int, ctx: pyfuse3.RequestContext) -> tuple[Inode, FileHandle, bool]:
        with self.lock:
            inode = self.inodes.get(number)
            handle = self._attach(inode, flags)
            self.attached(inode, handle)
        return inode, handle, self._finish(inode, handle, ctx if flags & os.O_TRUNC else None)

    def _attach(self, inode: Inode, flags: int) -> FileHandle:
        """Take a handle of an inode; lock held.

        A clean file is looked up by its name again even if it is open. Its container may have been changed or replaced
        in BACKING itself. Also, close(2) may return before this process hears of the last close.

        Raises:
            OSError: ESTALE if its name means another file now, because of a change in BACKING itself. The kernel then
                looks the name up again, and opens the right inode. Otherwise as the store's ``attach``.
        """
        file = inode.file
        if file is not None and (file.dirty or file.path is None):
            return self.store.attach(file, flags)
        try:
            handle = self.store.attach(self.inodes.path(inode), flags)
        except (FileNotFoundError, NotADirectoryError):
            raise os_error(errno.ESTALE) from None
        if handle.file.key != inode.key:
            handle.close()
            raise os_error(errno.ESTALE)
        return handle

    def _finish(self, inode: Inode, handle: FileHandle, truncated_by: pyfuse3.RequestContext | None) -> bool:
        """Finish opening, without the lock.

        Args:
            inode: of the file.
            handle: the attached handle.
            truncated_by: the request that truncates the file, ``None`` if it is not truncated.

        Returns:
            Whether the kernel's cached pages are still valid.
        """
        try:
            if truncated_by is not None:
                with self.lock:
                    drop_at_truncation(self.store, handle.file, truncated_by)
            self.store.finish_opening(handle, truncate=truncated_by is not None)
            return self._keep_cache(inode, handle)
        except BaseException:
            self.detached(inode, handle)
            raise

    def _keep_cache(self, inode: Inode, handle: FileHandle) -> bool:
        with self.lock:
            file = handle.file
            tag = file.content_tag()
            # Uncommitted content came through the kernel, so pages that were valid before are still valid.
            keep = tag is not None and inode.tag is not None and (file.dirty or inode.tag == tag)
            inode.tag = tag
            return keep

    @handler
    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Create and open a regular file; a whole, empty file is in BACKING before the answer."""
        masked = mode & ~ctx.umask
        inode, handle, entry = await self.run(self._create, parent_inode, name, masked, flags, ctx)
        return pyfuse3.FileInfo(fh=self.add_file(inode, handle)), entry

    def _create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[Inode, FileHandle, pyfuse3.EntryAttributes]:
        with self.lock:
            directory = self.inodes.get(parent)
            path = self.inodes.child_path(directory, name)
            handle, truncate = self.store.attach_new(path, mode, owner_of(ctx), flags)
            try:
                inode = self.inodes.remember(self.store.stat(handle.file), directory, name)
            except BaseException:
                handle.close()
                raise
            self.attached(inode, handle)
        try:
            self._finish(inode, handle, ctx if truncate else None)
            return inode, handle, self.reply(inode, self.store.stat(handle.file))
        except BaseException:
            with self.lock:
                self.inodes.forget(inode.number, 1)
            raise

    @handler
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> Any:
        """Return a range; if it is in the chunk cache, without leaving this thread."""
        handle = self.file(fh).handle
        data = handle.read_cached(size, off)
        return data if data is not None else await self.run(handle.read, size, off)

    @handler
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Write to staging; what is acknowledged here survives the end of the daemon."""
        handle = self.file(fh).handle
        start = time.monotonic()
        if handle.writable and start >= self._slow_until:
            try:
                written = handle.write_quickly(buf, off)
            finally:
                now = time.monotonic()
                if now - start > _SLOW_WRITE_S:
                    self._slow_until = now + _SLOW_FOR_S
            if written is not None:
                return written
        return await self.run(handle.write, buf, off)

    @handler
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Answer close(2). Everything written is in staging already; with ``commit_on_close`` the commit is awaited."""
        handle = self.file(fh).handle
        if self.store.options.commit_on_close and handle.writable:
            await self.run(self.store.flush, handle)

    @handler
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Make what was written durable."""
        await self.run(self.file(fh).handle.fsync)

    @handler
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a file."""
        open_file = self.take_file(fh)
        await self.run(self.detached, open_file.inode, open_file.handle)
