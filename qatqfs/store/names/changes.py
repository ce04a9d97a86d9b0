"""Changes of names: mkdir, symlink, mknod, link, unlink, rmdir, rename.

Where a logical file has both a container and a raw file, unlink and rename treat both. The log of a
dirty file gets a record of a rename or an unlink *before* it happens, and recovery looks at every path in the log.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from qatqfs.store import paths
from qatqfs.store.attributes import Attributes, from_stat
from qatqfs.store.errors import os_error
from qatqfs.store.names.node import Node
from qatqfs.store.names.opening import set_owner
from qatqfs.store.names.state import Storage
from qatqfs.store.names.tree import Located, Tree
from qatqfs.store.system.calls import RENAME_EXCHANGE, RENAME_NOREPLACE
from qatqfs.store.system.fd import open_entry

Owner = tuple[int, int] | None


@contextlib.contextmanager
def _free_place(tree: Tree, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Open the parent of a path at which something new that is no regular file may appear; namespace lock held."""
    _check_writable(tree, path)
    with tree.lock, tree.parent(path) as (fd, above, name):
        if paths.is_private(above, name):
            raise os_error(errno.EPERM, path)
        try:
            tree.resolve(fd, above, name)
        except FileNotFoundError:
            pass
        else:
            raise os_error(errno.EEXIST, path)
        if not paths.plain_name_allowed(name):
            raise os_error(errno.EINVAL, path)
        with tree.room_for_one():
            yield fd, name


def _check_writable(tree: Tree, path: bytes) -> None:
    if tree.context.options.read_only:
        raise os_error(errno.EROFS, path)


def _adopt(tree: Tree, fd: int, name: bytes, mode: int, owner: Owner) -> Attributes:
    opened = open_entry(fd, name)
    set_owner(tree.context.io, opened, fd, mode, owner)
    return from_stat(os.fstat(opened.number))


def mkdir(tree: Tree, path: bytes, mode: int, owner: Owner) -> Attributes:
    """Make a directory; raises OSError (EINVAL for a name that ends in ``.qatc``)."""
    with _free_place(tree, path) as (fd, name):
        tree.context.io.mkdir(fd, name, mode & 0o7777)
        return _adopt(tree, fd, name, mode, owner)


def symlink(tree: Tree, path: bytes, target: bytes, owner: Owner) -> Attributes:
    """Make a symbolic link to any target; raises OSError."""
    with _free_place(tree, path) as (fd, name):
        tree.context.io.symlink(target, fd, name)
        if owner is not None and os.geteuid() == 0:
            gid = -1 if os.fstat(fd).st_mode & stat.S_ISGID else owner[1]
            tree.context.io.chown_symlink(fd, name, owner[0], gid)
        return from_stat(os.stat(name, dir_fd=fd, follow_symlinks=False))


def mknod(tree: Tree, path: bytes, mode: int, rdev: int, owner: Owner) -> Attributes:
    """Make a fifo, socket or device node; raises OSError."""
    with _free_place(tree, path) as (fd, name):
        tree.context.io.mknod(fd, name, mode, rdev)
        return _adopt(tree, fd, name, mode, owner)


def readlink(tree: Tree, path: bytes) -> bytes:
    """Return the target of a symbolic link; raises OSError (EINVAL if it is none)."""
    with tree.lock, tree.parent(path) as (fd, above, name):
        return os.readlink(tree.resolve(fd, above, name).stored, dir_fd=fd)


def link(tree: Tree, path: bytes, new_path: bytes) -> Attributes:
    """Give anything but a directory another name.

    Raises:
        OSError: EPERM for directories, EEXIST, EXDEV for a raw file that would get a name ending in ``.qatc``,
            EINVAL for a symlink or special file that would.
    """
    _check_writable(tree, new_path)
    with tree.lock, tree.parent(path) as (fd, above, name):
        located = tree.resolve(fd, above, name)
        if located.is_directory:
            raise os_error(errno.EPERM, path)
        with tree.parent(new_path) as (new_fd, new_above, new_name):
            if paths.is_private(new_above, new_name):
                raise os_error(errno.EPERM, new_path)
            with contextlib.suppress(FileNotFoundError):
                tree.resolve(new_fd, new_above, new_name)
                raise os_error(errno.EEXIST, new_path)
            stored = _stored_target(located, new_path, new_name)
            node = tree.nodes.get(located.key)
            if node is not None:
                node.got_several_names()
                if node.staging is not None:
                    node.staging.log.path(b"")  # recovery may find it under either name
            tree.context.io.link(fd, located.stored, new_fd, stored)
        return tree.attributes_of(fd, path, tree.resolve(fd, above, name))


def unlink(tree: Tree, path: bytes) -> None:
    """Remove a name; an open file stays readable and writable until its last close. Raises OSError."""
    _check_writable(tree, path)
    with tree.lock, tree.parent(path) as (fd, above, name):
        located = tree.resolve(fd, above, name)
        if located.is_directory:
            raise os_error(errno.EISDIR, path)
        if located.shadowed is not None:
            tree.context.io.unlink(fd, located.shadowed)
        _announce_loss(tree, located)
        tree.context.io.unlink(fd, located.stored)
        _after_loss(tree, located)


def _announce_loss(tree: Tree, located: Located) -> None:
    """Log that the last name of a file is about to go; namespace lock held."""
    node = tree.nodes.get(located.key)
    if node is not None and located.st.st_nlink > 1:
        node.got_several_names()  # its path may be the name that is removed
    elif node is not None and node.staging is not None:
        try:
            node.staging.announce_unlink()
        except OSError as err:
            # Removing must work on a full disk. Without the record a crash would leave a copy in lost+found.
            if err.errno != errno.ENOSPC:
                raise


def _after_loss(tree: Tree, located: Located) -> None:
    if located.is_directory or located.st.st_nlink == 1:
        tree.last_name_gone(located.key)


def rmdir(tree: Tree, path: bytes) -> None:
    """Remove an empty directory; raises OSError."""
    _check_writable(tree, path)
    with tree.lock, tree.parent(path) as (fd, above, name):
        located = tree.resolve(fd, above, name)
        if not located.is_directory:
            raise os_error(errno.ENOTDIR, path)
        tree.context.io.rmdir(fd, located.stored)
        _after_loss(tree, located)


def rename(tree: Tree, src: bytes, dst: bytes, flags: int = 0) -> None:
    """Rename, replacing what is at ``dst``; with flags as renameat2(2).

    Raises:
        OSError: EINVAL for other flags, for a directory, symlink or special file that would get a name ending
            in ``.qatc``, and for an exchange between a container and anything else; EXDEV for a raw file that
            would get such a name (mv then copies it); otherwise as renameat2.
    """
    if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
        raise os_error(errno.EINVAL, dst)
    _check_writable(tree, dst)
    with tree.lock, tree.parent(src) as (src_fd, src_above, src_name):
        located = tree.resolve(src_fd, src_above, src_name)
        with tree.parent(dst) as (dst_fd, dst_above, dst_name):
            if paths.is_private(dst_above, dst_name):
                raise os_error(errno.EPERM, dst)
            try:
                replaced = tree.resolve(dst_fd, dst_above, dst_name)
            except FileNotFoundError:
                if flags & RENAME_EXCHANGE:
                    raise
                replaced = None
            if replaced is not None and flags & RENAME_NOREPLACE:
                raise os_error(errno.EEXIST, dst)
            if src == dst or (replaced is not None and replaced.key == located.key):
                return
            if flags & RENAME_EXCHANGE:
                assert replaced is not None
                _exchange(tree, (src_fd, src, located), (dst_fd, dst, replaced))
            else:
                _replace(tree, (src_fd, src, located), (dst_fd, dst, dst_name), replaced)


def _stored_target(located: Located, dst: bytes, dst_name: bytes) -> bytes:
    if located.storage is Storage.CONTAINER:
        return paths.container_name(dst_name)
    if not paths.plain_name_allowed(dst_name):
        raise os_error(errno.EXDEV if located.storage is Storage.RAW else errno.EINVAL, dst)
    return dst_name


def _replace(
    tree: Tree, source: tuple[int, bytes, Located], target: tuple[int, bytes, bytes], replaced: Located | None
) -> None:
    src_fd, src, located = source
    dst_fd, dst, dst_name = target
    stored = _stored_target(located, dst, dst_name)
    if replaced is not None and replaced.is_directory != located.is_directory:
        raise os_error(errno.EISDIR if replaced.is_directory else errno.ENOTDIR, dst)
    moving = _nodes_at(tree, src, located)
    _log_paths(moving, src, dst)
    if replaced is not None:
        _announce_loss(tree, replaced)
    tree.context.io.rename(src_fd, located.stored, dst_fd, stored)
    stale = {replaced.stored, replaced.shadowed} - {stored, None} if replaced is not None else set()
    for name in stale:
        assert name is not None
        tree.context.io.unlink(dst_fd, name)
    if located.shadowed is not None:
        _move_shadowed(tree, located, src_fd, dst_fd, dst_name)
    if replaced is not None:
        _after_loss(tree, replaced)
    _set_paths(moving, src, dst)


def _move_shadowed(tree: Tree, located: Located, src_fd: int, dst_fd: int, dst_name: bytes) -> None:
    assert located.shadowed is not None
    container = located.storage is not Storage.CONTAINER
    if container or paths.plain_name_allowed(dst_name):
        stored = paths.container_name(dst_name) if container else dst_name
        tree.context.io.rename(src_fd, located.shadowed, dst_fd, stored)


def _exchange(tree: Tree, one: tuple[int, bytes, Located], other: tuple[int, bytes, Located]) -> None:
    one_fd, one_path, one_located = one
    other_fd, other_path, other_located = other
    containers = [located.storage is Storage.CONTAINER for located in (one_located, other_located)]
    if containers[0] != containers[1] or one_located.shadowed or other_located.shadowed:
        raise os_error(errno.EINVAL, other_path)
    forth = _nodes_at(tree, one_path, one_located)
    back = _nodes_at(tree, other_path, other_located)
    _log_paths(forth, one_path, other_path)
    _log_paths(back, other_path, one_path)
    tree.context.io.rename(one_fd, one_located.stored, other_fd, other_located.stored, RENAME_EXCHANGE)
    _set_paths(forth, one_path, other_path)
    _set_paths(back, other_path, one_path)


def _nodes_at(tree: Tree, path: bytes, located: Located) -> list[Node]:
    """Return the nodes that move with a name: its own, or all below a directory."""
    if located.is_directory:
        return [n for n in tree.nodes.values() if n.path is not None and paths.is_below(n.path, path)]
    node = tree.nodes.get(located.key)
    return [node] if node is not None and node.path == path else []


def _log_paths(nodes: list[Node], src: bytes, dst: bytes) -> None:
    for node in nodes:
        if node.staging is not None and node.path is not None:
            node.staging.log.path(dst + node.path[len(src) :])


def _set_paths(nodes: list[Node], src: bytes, dst: bytes) -> None:
    for node in nodes:
        if node.path is not None:
            node.renamed(dst + node.path[len(src) :])
