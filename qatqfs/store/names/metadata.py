"""Mode, owner, times and extended attributes, which are always those of the backing inode.

The one exception is the mtime of a dirty file: until the commit its data file in staging has it.
A target is a logical path, or the node of an open file. A node also serves when its last name is gone.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from qatqfs.store import paths
from qatqfs.store.attributes import Attributes, key_of
from qatqfs.store.errors import os_error
from qatqfs.store.names.node import Node
from qatqfs.store.names.state import Storage
from qatqfs.store.names.tree import Tree
from qatqfs.store.system.fd import Fd, open_entry

Target = bytes | Node

_BLOCK = 4096


@contextmanager
def _backing(tree: Tree, target: Target, *, change: bool) -> Iterator[Fd]:
    """Open the backing inode of a target, as an O_PATH descriptor or better; namespace lock held."""
    if change and tree.context.options.read_only:
        raise os_error(errno.EROFS)
    with tree.lock:
        if isinstance(target, Node):
            node: Node | None = target
            yield target.fd
        elif not target:
            node = None
            yield tree.root
        else:
            with tree.parent(target) as (fd, above, name):
                opened = open_entry(fd, tree.resolve(fd, above, name).stored)
            node = tree.nodes.get(key_of(os.fstat(opened.number))) if change else None
            yield opened
        if change and node is not None:
            node.metadata_changed()


def attributes(tree: Tree, target: Target) -> Attributes:
    """Return what stat(2) shows; raises OSError."""
    return target.attributes() if isinstance(target, Node) else tree.attributes(target)


def chmod(tree: Tree, target: Target, mode: int) -> None:
    """Set the permission bits; raises OSError (EOPNOTSUPP for a symlink)."""
    with _backing(tree, target, change=True) as fd:
        tree.context.io.chmod(fd, mode & 0o7777)


def chown(tree: Tree, target: Target, uid: int, gid: int) -> None:
    """Set owner and group, -1 leaving one alone; a symlink's own. Raises OSError."""
    with _backing(tree, target, change=True) as fd:
        tree.context.io.chown(fd, uid, gid)


def set_atime(tree: Tree, target: Target, atime_ns: int) -> None:
    """Set the access time in nanoseconds and nothing else; raises OSError."""
    with _backing(tree, target, change=True) as fd:
        tree.context.io.set_times(fd, atime_ns, None)


def set_mtime(tree: Tree, target: Target, mtime_ns: int) -> None:
    """Set the modification time in nanoseconds and nothing else; raises OSError."""
    with _backing(tree, target, change=True) as fd:
        node = target if isinstance(target, Node) else tree.nodes.get(key_of(os.fstat(fd.number)))
        if node is None or node.storage is Storage.RAW:
            tree.context.io.set_times(fd, None, mtime_ns)
            return
    node.set_mtime(mtime_ns)


def getxattr(tree: Tree, target: Target, name: bytes) -> bytes:
    """Return an extended attribute; raises OSError (ENODATA, EOPNOTSUPP)."""
    with _backing(tree, target, change=False) as fd:
        return os.getxattr(fd.proc_path, name)


def listxattr(tree: Tree, target: Target) -> list[bytes]:
    """Return the names of all extended attributes; raises OSError."""
    with _backing(tree, target, change=False) as fd:
        return [os.fsencode(name) for name in os.listxattr(fd.proc_path)]


def setxattr(tree: Tree, target: Target, name: bytes, value: bytes) -> None:
    """Set an extended attribute; raises OSError."""
    with _backing(tree, target, change=True) as fd:
        tree.context.io.setxattr(fd, name, value)


def removexattr(tree: Tree, target: Target, name: bytes) -> None:
    """Remove an extended attribute; raises OSError (ENODATA)."""
    with _backing(tree, target, change=True) as fd:
        tree.context.io.removexattr(fd, name)


def statvfs(tree: Tree) -> os.statvfs_result:
    """Return the backing filesystem's space in 4 KiB blocks, its inodes, and the longest logical name; raises OSError.

    Space that commits are going to need does not count as free.
    """
    real = os.fstatvfs(tree.root.number)
    staging = tree.context.staging
    taken = -(-staging.space.reserved // _BLOCK) if staging is not None else 0
    free = [max(0, blocks * real.f_frsize // _BLOCK - taken) for blocks in (real.f_bfree, real.f_bavail)]
    scaled = (real.f_blocks * real.f_frsize // _BLOCK, *free)
    inodes = staging.space.reserved_inodes if staging is not None else 0
    inodes_free = [max(0, free - inodes) for free in (real.f_ffree, real.f_favail)]
    rest = (real.f_files, *inodes_free, real.f_flag, real.f_namemax - len(paths.SUFFIX))
    return os.statvfs_result((_BLOCK, _BLOCK, *scaled, *rest))
