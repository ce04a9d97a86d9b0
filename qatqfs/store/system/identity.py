"""What tells one container from any other, also after the process or the machine has gone down."""

import os
import struct
from dataclasses import dataclass

from qatqfs.store.system.calls import birth_time_ns


@dataclass(frozen=True, slots=True)
class Identity:
    """Which container (or raw file) a staging entry builds on, or is about to become.

    An inode number alone is not enough: ext4 gives a freed number to the next file that it creates. The device is not
    part of it: entries reach only files on BACKING's own device, and its number may change with a reboot.

    Attributes:
        ino: st_ino.
        btime_ns: birth time from statx(2) in nanoseconds, 0 where the filesystem has none.
        size: stored size in bytes.
        head: the file's first 32 bytes (a container's header, aggregate checksum included), zero-padded.
    """

    ino: int
    btime_ns: int
    size: int
    head: bytes

    _LAYOUT = struct.Struct("<QQQ32s")

    def pack(self) -> bytes:
        """Return the 56 bytes that a log record holds."""
        return self._LAYOUT.pack(self.ino, self.btime_ns, self.size, self.head)

    @classmethod
    def unpack(cls, data: bytes) -> "Identity":
        """Read what :meth:`pack` wrote; struct.error on another length."""
        return cls(*cls._LAYOUT.unpack(data))

    @classmethod
    def of(cls, fd: int) -> "Identity":
        """Read the identity of an open regular file (needs read permission on ``fd``)."""
        st = os.fstat(fd)
        return cls(st.st_ino, birth_time_ns(fd), st.st_size, os.pread(fd, 32, 0).ljust(32, b"\0"))

    def is_same_inode(self, fd: int) -> bool:
        """Whether an open file is the one that had this identity, whatever has been written to it since."""
        return os.fstat(fd).st_ino == self.ino and birth_time_ns(fd) == self.btime_ns

    PACKED_SIZE = _LAYOUT.size
