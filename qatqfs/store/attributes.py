"""Attributes of a logical file, and how they are read from BACKING."""

import os
from dataclasses import dataclass

Key = tuple[int, int]
"""(st_dev, st_ino) of a backing inode."""

BLOCK_SIZE = 256 * 1024
"""st_blksize in bytes. cp and Python's buffered files make requests of this size."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) shows of a logical file.

    Attributes:
        key: the backing inode.
        mode: st_mode, type included.
        nlink: st_nlink.
        uid: owner.
        gid: group.
        rdev: st_rdev.
        size: logical size in bytes.
        blocks: space on disk in units of 512 bytes, at least 1 if ``size`` > 0. With 0 tar -S would take the file for
            a hole.
        atime_ns: access time in nanoseconds.
        mtime_ns: logical modification time in nanoseconds.
        ctime_ns: change time in nanoseconds.
    """

    key: Key
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


def key_of(st: os.stat_result) -> Key:
    """Return the key of a backing inode."""
    return st.st_dev, st.st_ino


def from_stat(
    st: os.stat_result,
    size: int | None = None,
    *,
    staged: os.stat_result | None = None,
    mtime_ns: int | None = None,
    base_blocks: int = 0,
) -> Attributes:
    """Build the attributes of a logical file.

    Args:
        st: the lstat of the backing inode, which has mode, owner, link count and atime.
        size: logical size in bytes; the backing's own if ``None``.
        staged: the lstat of the data file in staging if the file is dirty; it has the size.
        mtime_ns: logical modification time of that content.
        base_blocks: space of the base on disk, in units of 512 bytes.
    """
    if staged is not None:
        size = staged.st_size
    elif size is None:
        size = st.st_size
    content = staged or st
    blocks = content.st_blocks + base_blocks
    return Attributes(
        key=key_of(st),
        mode=st.st_mode,
        nlink=st.st_nlink,
        uid=st.st_uid,
        gid=st.st_gid,
        rdev=st.st_rdev,
        size=size,
        blocks=max(blocks, 1) if size else blocks,
        atime_ns=st.st_atime_ns,
        mtime_ns=content.st_mtime_ns if mtime_ns is None else mtime_ns,
        ctime_ns=max(st.st_ctime_ns, content.st_ctime_ns),
    )
