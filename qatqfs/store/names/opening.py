"""Opening and creating regular files."""

import errno
import os
import stat
from collections.abc import Callable

from qatqfs.codec import DType, empty_container
from qatqfs.store import paths
from qatqfs.store.attributes import key_of
from qatqfs.store.errors import os_error
from qatqfs.store.names.handle import Handle
from qatqfs.store.names.inode_copy import InodeMetadata, copy_xattrs
from qatqfs.store.names.node import Node
from qatqfs.store.names.state import Storage
from qatqfs.store.names.tree import Located, Tree
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.calls import RENAME_NOREPLACE
from qatqfs.store.system.descriptors import to_stay_open
from qatqfs.store.system.fd import Fd
from qatqfs.store.tensors.dtype import dtype_of_suffix

_WRITE_MODES = (os.O_WRONLY, os.O_RDWR)
_SET_ID_BITS = stat.S_ISUID | stat.S_ISGID

# Errors of filesystems that cannot do something. Network and FUSE filesystems give others than the man pages say.
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS, errno.EINVAL, errno.EIO, errno.EPERM)
_NO_LINKS = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO, errno.EPERM, errno.EMLINK)
_NO_RENAME_FLAGS = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Opener:
    """Opens and creates files in a tree, and takes handles back.

    Args:
        tree: the names.
        release_dirty: called once the last writer of a dirty node has closed it. The caller of :meth:`Handle.close` may
            hold the namespace lock, no other is held.
    """

    def __init__(self, tree: Tree, release_dirty: Callable[[Node], None]) -> None:
        self._tree = tree
        self._options = tree.context.options
        self._io = tree.context.io
        self._release_dirty = release_dirty

    def open(self, path: bytes, flags: int) -> Handle:
        """Open an existing regular file: :meth:`attach` and :meth:`finish_opening`, which see for flags and errors."""
        return self.finish_opening(self.attach(path, flags), truncate=bool(flags & os.O_TRUNC))

    def attach(self, path: bytes | Node, flags: int) -> Handle:
        """Find a regular file and take a handle of it, without touching its content.

        The caller may hold the namespace lock, which keeps the name in place. :meth:`finish_opening` must follow,
        without that lock.

        Args:
            path: logical path, or the node of a file that is open already.
            flags: of open(2); the access mode and O_TRUNC count.

        Raises:
            OSError: ENOENT, EISDIR, ELOOP (a symlink), ENXIO (a special file), EROFS, EXDEV (for
                writing, a container on another device).
        """
        writable = flags & os.O_ACCMODE in _WRITE_MODES
        truncate = bool(flags & os.O_TRUNC)
        with self._tree.lock:
            if isinstance(path, Node):
                if writable:
                    self._prepare_for_writing(path)
                return self._handle(path, writable=writable)
            with self._tree.parent(path) as (fd, above, name):
                located = self._tree.resolve(fd, above, name)
                if self._tree.hidden(located) and not truncate:
                    raise os_error(errno.ENOENT, path)
                self._check_openable(path, located, changes=writable or truncate)
                node = self._tree.node_of(fd, path, located)
                if (writable or truncate) and not (
                    truncate
                    and self._is_to_become_container(fd, path, name, located)
                    and self._rewrite_raw_as_container(fd, path, name, located, node)
                ):
                    self._prepare_for_writing(node)
                return self._handle(node, writable=writable)

    def finish_opening(self, handle: Handle, *, truncate: bool) -> Handle:
        """Truncate an attached file, or make sure that its content can be read; closes the handle if not.

        Raises:
            OSError: EIO (no QATC container), ENOSPC ...
        """
        try:
            if truncate:
                handle.node.truncate(0)
            elif handle.node.storage is Storage.CONTAINER and not handle.node.dirty:
                handle.node.container()
        except BaseException:
            handle.close()
            raise
        return handle

    @staticmethod
    def _prepare_for_writing(node: Node) -> None:
        """Make sure that written content can get into the backing inode; namespace lock held."""
        if node.storage is Storage.RAW or os.geteuid() != 0:
            node.open_for_writing()

    def _check_openable(self, path: bytes, located: Located, *, changes: bool) -> None:
        mode = located.st.st_mode
        if stat.S_ISDIR(mode):
            raise os_error(errno.EISDIR, path)
        if stat.S_ISLNK(mode):
            raise os_error(errno.ELOOP, path)
        if located.storage is None:
            raise os_error(errno.ENXIO, path)
        if not changes:
            return
        if self._options.read_only:
            raise os_error(errno.EROFS, path)
        if located.storage is Storage.CONTAINER and located.st.st_dev != self._tree.device:
            raise os_error(errno.EXDEV, path)

    def _handle(self, node: Node, *, writable: bool) -> Handle:
        node.handle_opened(writable=writable)
        return Handle(node, writable=writable, release=self._release)

    def _release(self, handle: Handle) -> None:
        node = handle.node
        with self._tree.lock:
            node.handle_closed(writable=handle.writable)
            self._tree.forget_if_idle(node)
            due = node.dirty and node.writers == 0 and node.path is not None
        if due:
            self._release_dirty(node)

    def create(self, path: bytes, mode: int, owner: tuple[int, int] | None = None, flags: int = os.O_RDWR) -> Handle:
        """Create a regular file, or open it: :meth:`attach_new` and :meth:`finish_opening`, which see."""
        handle, truncate = self.attach_new(path, mode, owner, flags)
        return self.finish_opening(handle, truncate=truncate)

    def attach_new(self, path: bytes, mode: int, owner: tuple[int, int] | None, flags: int) -> tuple[Handle, bool]:
        """Create a regular file, or attach to it if it is there and O_EXCL is not given.

        The name appears in one step, with its final mode and owner, as an empty container or, if a rule says so, as an
        empty raw file.

        Args:
            path: logical path.
            mode: permission bits, already reduced by the caller's umask.
            owner: uid and gid of the new file; a set-group-id directory overrides the gid.
            flags: of open(2).

        Returns:
            The handle, and what :meth:`finish_opening` has to be told.

        Raises:
            OSError: EEXIST, ENOENT, EROFS, EPERM (the store's own name), ENAMETOOLONG, ENOSPC ...
        """
        with self._tree.lock, self._tree.parent(path) as (fd, above, name):
            if self._options.read_only:
                raise os_error(errno.EROFS, path)
            if paths.is_private(above, name):
                raise os_error(errno.EPERM, path)
            existing = self._existing(fd, above, name)
            if existing is None:
                with self._tree.room_for_one():
                    node = self._create_node(fd, path, name, mode, owner)
                return self._handle(node, writable=flags & os.O_ACCMODE in _WRITE_MODES), False
            if self._tree.hidden(existing):
                flags |= os.O_TRUNC
            elif flags & os.O_EXCL:
                raise os_error(errno.EEXIST, path)
            return self.attach(path, flags), bool(flags & os.O_TRUNC)

    def _existing(self, fd: int, above: bytes, name: bytes) -> Located | None:
        try:
            return self._tree.resolve(fd, above, name)
        except FileNotFoundError:
            return None

    def _create_node(self, fd: int, path: bytes, name: bytes, mode: int, owner: tuple[int, int] | None) -> Node:
        if self._options.is_raw(path) and paths.plain_name_allowed(name):
            storage = Storage.RAW
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            opened = self._io.open(fd, name, flags, mode & 0o7777)
            set_owner(self._io, opened, fd, mode, owner)
        else:
            storage = Storage.CONTAINER
            opened = self._place_container(fd, path, name, mode, owner)
        key = key_of(os.fstat(opened.number))
        node = Node(self._tree.context, key, path, storage, opened)
        self._tree.nodes[key] = node
        return node

    def _place_container(self, fd: int, path: bytes, name: bytes, mode: int, owner: tuple[int, int] | None) -> Fd:
        """Put a complete empty container under its real name in one step."""
        if os.fstat(fd).st_dev != self._tree.device:
            raise os_error(errno.EXDEV, path)
        dtype = self._options.rule_dtype(path) or dtype_of_suffix(path) or DType.BF16
        content = empty_container(dtype)

        def fill(opened: Fd) -> None:
            to_stay_open(opened)
            if self._io.pwrite_all(opened, content, 0) != len(content):
                raise os_error(errno.ENOSPC, path)
            set_owner(self._io, opened, fd, mode, owner)

        stored = paths.container_name(name)
        opened = self._place_by_link(fd, stored, mode, fill)
        return opened if opened is not None else self._place_by_rename(fd, stored, mode, fill)

    def _place_by_link(self, fd: int, stored: bytes, mode: int, fill: Callable[[Fd], None]) -> Fd | None:
        """Fill a file without a name, then link it; returns ``None`` if the filesystem cannot do that.

        The file gets group and default ACL from its directory.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOATIME | os.O_TMPFILE
        try:
            opened = self._io.open(fd, b".", flags, mode & 0o7777)
        except OSError as err:
            if err.errno not in _NO_UNNAMED_FILES:
                raise
            return None
        fill(opened)
        try:
            self._io.link_open(opened, fd, stored)
        except OSError as err:
            if err.errno not in _NO_LINKS:
                raise
            return None
        return opened

    def _place_by_rename(self, fd: int, stored: bytes, mode: int, fill: Callable[[Fd], None]) -> Fd:
        """Fill a file in staging and rename it into place; it gets the group of its directory, but no default ACL.

        If the filesystem has no RENAME_NOREPLACE, this checks first that the name is free. The caller holds the
        namespace lock, so the mount cannot make that name in between.
        """
        area = self._tree.context.staging
        assert area is not None  # only a read-only store has none
        with area.temporary_file(mode & 0o7777) as (opened, temporary):
            st = os.fstat(fd)
            if st.st_mode & stat.S_ISGID:
                self._io.chown(opened, -1, st.st_gid)
            fill(opened)
            source = area.directory.number
            try:
                self._io.rename(source, temporary, fd, stored, RENAME_NOREPLACE)
            except OSError as err:
                if err.errno not in _NO_RENAME_FLAGS:
                    raise
                if _exists(fd, stored):
                    raise os_error(errno.EEXIST, stored) from None
                self._io.rename(source, temporary, fd, stored)
            return opened

    def _is_to_become_container(self, fd: int, path: bytes, name: bytes, located: Located) -> bool:
        """Whether a raw file that is being truncated to nothing becomes a container."""
        return (
            located.storage is Storage.RAW
            and located.st.st_nlink == 1
            and os.geteuid() in (0, located.st.st_uid)  # or it would change its owner
            and paths.plain_name_allowed(name)
            and not self._options.is_raw(path)
            and len(paths.container_name(name)) <= os.fstatvfs(fd).f_namemax
        )

    def _rewrite_raw_as_container(self, fd: int, path: bytes, name: bytes, located: Located, node: Node) -> bool:
        """Replace a raw file that is being truncated by an empty container; namespace lock held.

        Returns:
            ``False`` if this process may not change names in the directory; the file stays raw then.

        Raises:
            OSError: any other failure.
        """
        st = located.st
        old = node.key
        try:
            if located.shadowed is not None:
                self._io.unlink(fd, located.shadowed)
            opened = self._place_container(fd, path, name, st.st_mode, (st.st_uid, st.st_gid))
        except PermissionError:
            return False
        copy_xattrs(self._io, InodeMetadata.of(node.fd), opened)
        self._io.unlink(fd, name)
        node.become_container(opened, key_of(os.fstat(opened.number)))
        self._tree.rekey(node, old)
        return True


def _exists(directory: int, stored: bytes) -> bool:
    try:
        os.stat(stored, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def set_owner(io: BackingIO, opened: Fd, directory: int, mode: int, owner: tuple[int, int] | None) -> None:
    """Give a new file its owner, as far as its directory and the privileges of this process allow.

    Raises:
        OSError: a privileged daemon was not allowed to.
    """
    if owner is None:
        return
    st = os.fstat(opened.number)
    uid, gid = owner
    if os.fstat(directory).st_mode & stat.S_ISGID:
        gid = st.st_gid
    if (uid, gid) != (st.st_uid, st.st_gid):
        try:
            io.chown(opened, uid, gid)
        except PermissionError:
            if os.geteuid() == 0:
                raise
    if mode & _SET_ID_BITS and not stat.S_ISDIR(st.st_mode):
        # chown(2) has removed them, and so has write(2) unless this process is root.
        io.chmod(opened, stat.S_IMODE(st.st_mode) | (mode & _SET_ID_BITS))
