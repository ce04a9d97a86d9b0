"""What a new container takes over from the one that it replaces: mode, owner, ACL, extended attributes, atime.

A commit copies the metadata without locks, and compares it again with the locks held. It compares the metadata itself
rather than the ctime. On many filesystems the clock of the ctime ticks every few milliseconds, so two changes within a
tick look like one.
"""

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from qatqfs.store.attributes import Key, key_of
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd


@dataclass(frozen=True, slots=True)
class InodeMetadata:
    """The metadata of one inode at one moment; two of them are equal if a commit has nothing to copy.

    Attributes:
        key: the inode.
        mode: permission bits.
        uid: owner.
        gid: group.
        atime_ns: access time in nanoseconds.
        xattrs: names and values of the extended attributes, ACLs included, ordered.
        complete: there are no attributes that this process may not read.
    """

    key: Key
    mode: int
    uid: int
    gid: int
    atime_ns: int
    xattrs: tuple[tuple[str, bytes], ...]
    complete: bool

    @classmethod
    def of(cls, fd: Fd) -> "InodeMetadata":
        """Read the metadata of an open file; raises OSError."""
        st = os.fstat(fd.number)
        mode = stat.S_IMODE(st.st_mode)
        return cls(key_of(st), mode, st.st_uid, st.st_gid, st.st_atime_ns, *_xattrs(fd))


def _xattrs(fd: Fd) -> tuple[tuple[tuple[str, bytes], ...], bool]:
    """Return the extended attributes that can be read, and whether these are all of them.

    On a filesystem without extended attributes there are none.


    Raises:
        OSError: what reading them reported.
    """
    try:
        names = os.listxattr(fd.number)
    except OSError as err:
        if err.errno != errno.EOPNOTSUPP:
            raise
        return (), True
    found = []
    complete = True
    for name in sorted(names):
        try:
            found.append((name, os.getxattr(fd.number, name)))
        except OSError as err:
            if err.errno not in (
                errno.ENODATA,
                errno.EPERM,
                errno.EACCES,
            ):  # removed meanwhile, or not readable
                raise
            complete = complete and err.errno == errno.ENODATA
    return tuple(found), complete


def has_all_of(source: InodeMetadata, target: Fd) -> bool:
    """Whether a new container has the owner of the old one, and :func:`copy_metadata` could read all it had to copy.

    A daemon that is not root can neither give files away nor read all attributes.
    """
    there = os.fstat(target.number)
    return source.complete and (source.uid, source.gid) == (there.st_uid, there.st_gid)


def copy_metadata(io: BackingIO, source: InodeMetadata, target: Fd, mtime_ns: int) -> None:
    """Give a new container the metadata of the old one, and the logical mtime in nanoseconds.

    Raises:
        OSError: what the system reported, except for an owner that this process may not give (see :func:`has_all_of`).
    """
    there = os.fstat(target.number)
    if source.key == key_of(there):
        return
    if (source.uid, source.gid) != (there.st_uid, there.st_gid):
        try:
            io.chown(target, source.uid, source.gid)
        except OSError as err:  # root cannot either, without the capability or if its user namespace lacks the id
            if err.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):
                raise
    mode = source.mode | stat.S_IRUSR | stat.S_IWUSR
    if mode != source.mode and os.geteuid() != 0:  # else the mode would forbid to change attributes
        io.chmod(target, mode)
        copy_xattrs(io, source, target)
    io.chmod(target, source.mode)
    copy_xattrs(io, source, target)
    io.set_times(target, source.atime_ns, mtime_ns)


def copy_xattrs(io: BackingIO, source: InodeMetadata, target: Fd) -> None:
    """Give a file the extended attributes of another, ACLs included, and leave out those that it cannot have.

    Raises:
        OSError: the target's cannot be read.
    """
    there = dict(_xattrs(target)[0])
    for name in there.keys() - dict(source.xattrs).keys():
        with contextlib.suppress(PermissionError):
            io.removexattr(target, os.fsencode(name))
    for name, value in source.xattrs:
        if there.get(name) != value:
            with contextlib.suppress(PermissionError):
                io.setxattr(target, os.fsencode(name), value)
