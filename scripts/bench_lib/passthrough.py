"""The smallest pyfuse3 filesystem: it reads and writes the files of one directory as they are.

Its cost is the cost of FUSE and Python, and benchmarks compare with it. Run it as a program with BACKING MOUNTPOINT. It
stays in the foreground until it is unmounted.
"""

import os
import sys

import pyfuse3
import trio

_TIMEOUT_S = 1.0


class Passthrough(pyfuse3.Operations):
    """Flat: no directories, and getxattr answers ENOSYS, so that the kernel never asks again."""

    def __init__(self, backing: str) -> None:
        super().__init__()
        self._directory = os.open(backing, os.O_RDONLY | os.O_DIRECTORY)
        self._names: dict[int, bytes] = {}

    def _entry(self, st: os.stat_result, number: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = number
        entry.entry_timeout = entry.attr_timeout = _TIMEOUT_S
        for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks"):
            setattr(entry, name, getattr(st, name))
        entry.st_blksize = 256 * 1024
        for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns"):
            setattr(entry, name, getattr(st, name))
        return entry

    def _stat(self, name: bytes) -> os.stat_result:
        return os.stat(name, dir_fd=self._directory, follow_symlinks=False)

    async def lookup(self, parent_inode, name, ctx):
        try:
            st = self._stat(name)
        except OSError as err:
            raise pyfuse3.FUSEError(err.errno) from None
        self._names[st.st_ino] = name
        return self._entry(st, st.st_ino)

    async def forget(self, inode_list):
        pass

    async def getattr(self, inode, ctx):
        if inode == pyfuse3.ROOT_INODE:
            return self._entry(os.fstat(self._directory), inode)
        return self._entry(self._stat(self._names[inode]), inode)

    async def setattr(self, inode, attr, fields, fh, ctx):
        if fields.update_size:
            os.truncate(f"/proc/self/fd/{self._directory}/{os.fsdecode(self._names[inode])}", attr.st_size)
        return await self.getattr(inode, ctx)

    async def create(self, parent_inode, name, mode, flags, ctx):
        fd = os.open(name, flags | os.O_CREAT, mode, dir_fd=self._directory)
        st = os.fstat(fd)
        self._names[st.st_ino] = name
        return pyfuse3.FileInfo(fh=fd), self._entry(st, st.st_ino)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=os.open(self._names[inode], flags & ~os.O_CREAT, dir_fd=self._directory))

    async def rename(self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx):
        os.rename(name_old, name_new, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._names[self._stat(name_new).st_ino] = name_new

    async def unlink(self, parent_inode, name, ctx):
        os.unlink(name, dir_fd=self._directory)

    async def read(self, fh, off, size):
        return os.pread(fh, size, off)

    async def write(self, fh, off, buf):
        return os.pwrite(fh, buf, off)

    async def release(self, fh):
        os.close(fh)


def main() -> None:
    backing, mountpoint = sys.argv[1:]
    pyfuse3.init(Passthrough(backing), mountpoint, {"fsname=passthrough", "default_permissions"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
