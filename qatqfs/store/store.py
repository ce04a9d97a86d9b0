"""A backing directory as logical files: the store's public face.

    with Store("/data/kv", StoreOptions(level=Level.FAST)) as store:
        with store.create(b"layer0.bf16", 0o644) as handle:
            handle.write(tensor.tobytes(), 0)
        store.sync()

Paths are logical, ``bytes``, relative to BACKING, without leading slash; ``b""`` is the top. Every method may be
called from any thread. Everything raises :class:`OSError` with the errno that a system call would give.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from threading import RLock

from qatqfs.store.attributes import Attributes, Key
from qatqfs.store.background import Background
from qatqfs.store.commit.syncs import SyncState
from qatqfs.store.counters import Counters
from qatqfs.store.errors import StoreError
from qatqfs.store.facade import File, FileHandle, Owner, Target
from qatqfs.store.locks import assert_held
from qatqfs.store.names import changes, metadata
from qatqfs.store.names.handle import Handle
from qatqfs.store.names.node import Node
from qatqfs.store.names.opening import Opener
from qatqfs.store.names.pending import Pending
from qatqfs.store.names.state import NodeContext
from qatqfs.store.names.tree import Tree
from qatqfs.store.options import StoreOptions
from qatqfs.store.private import PrivateArea, open_backing, waiting_files
from qatqfs.store.reading.cache import ChunkCache
from qatqfs.store.reading.container import ReadContext
from qatqfs.store.reading.damage import DamageRegister
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.system.backing import BackingIO
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)

_NAMED = 20
"""Files that a line of the log names."""


def _own(target: Target) -> bytes | Node:
    """Return a target as this store knows it; raises AssertionError for a file of another store."""
    if isinstance(target, bytes):
        return target
    assert isinstance(target, Node)
    return target


class Store:
    """An open backing directory.

    Opening it for writing takes its lock, recovers what an earlier process left uncommitted, and starts the threads
    that encode. Close it, or use it in a ``with`` block.

    Args:
        path: BACKING, an existing directory.
        options: settings.
        io: makes every change below BACKING; tests pass one that fails.

    Attributes:
        options: as given.
        counters: counters.
        recovered: files that were found in staging. A read-write store serves them; in a read-only one they wait for
            the next read-write store. ``None`` if this user may not look.
        in_doubt: files whose newest content may be torn after a crash of the machine; it is kept in lost+found.
        tree: names and nodes; for tests.

    Raises:
        StoreError: BACKING cannot be used as asked.
        OSError: what the system reported otherwise.
    """

    def __init__(
        self, path: str | os.PathLike[str], options: StoreOptions | None = None, *, io: BackingIO | None = None
    ) -> None:
        io = io or BackingIO()
        self.options = options or StoreOptions()
        self.counters = Counters()
        root = open_backing(path)
        self._area: PrivateArea | None = None
        self._closed = False
        staging: StagingArea | None = None
        if not self.options.read_only:
            try:
                self._area = PrivateArea(root, io)
            except OSError as err:
                raise StoreError(f"cannot write to backing directory {os.fspath(path)!r}: {err.strerror}") from err
            staging = StagingArea(self._area.staging, self._area.lost_and_found, io, self.options.tuning)
        self._background = Background(io, root, self.options, self.sync)
        reading = ReadContext(
            cache=ChunkCache(self.options.cache_size, self.counters),
            damage=DamageRegister(self.counters),
            counters=self.counters,
            executor=self._background.decoders,
            workers=self.options.workers,
            tuning=self.options.tuning,
        )
        context = NodeContext(
            options=self.options,
            io=io,
            reading=reading,
            staging=staging,
            namespace_lock=RLock(),
            dirtied=self._background.dirtied,
            advanced=self._background.advanced,
            committed=self._background.committed,
            fsync_parent=self._fsync_parent,
        )
        self.tree = Tree(root, context)
        self.recovered: int | None = None
        self.in_doubt = 0
        if staging is not None:
            self._recover_and_start(staging)
        else:
            # Everything but .qatqfs may be open to this user.
            with contextlib.suppress(PermissionError):
                self.recovered = waiting_files(root)
        self._opener = Opener(self.tree, self._background.released)

    def _recover_and_start(self, staging: StagingArea) -> None:
        """Recover what is in staging; if that fails, release the lock and leave everything else to the next try."""
        try:
            recovery = self._background.start(self.tree, staging)
        except BaseException:
            self._closed = True
            self._background.shut_down_executors()
            if self._area is not None:
                self._area.close()
            raise
        self.recovered, self.in_doubt = recovery.recovered, recovery.in_doubt

    def _fsync_parent(self, path: bytes) -> None:
        self.tree.fsync_parent(path)

    # -- life ------------------------------------------------------------------------------------------

    def serves(self, mountpoint: str, device: str) -> None:
        """Let other processes that want to open this BACKING for writing know where it is mounted.

        Args:
            mountpoint: absolute path.
            device: ``major:minor`` of the mount.
        """
        if self._area is not None:
            self._area.serves(mountpoint, device)

    def pending(self, below: bytes = b"") -> Pending:
        """Return what at or below a path is in no container yet."""
        return Pending.of(self.tree.dirty_nodes(below))

    def sync(self, below: bytes = b"") -> None:
        """Return once what was written so far at or below a path is in containers, and these are durable.

        A file with several names is committed whichever of them is meant.

        Raises:
            NotCommitted: files could not be committed; their content stays in staging and is served from there.
            OSError: everything is committed, but staging could not be cleaned up, or the disk failed to write something
                on this filesystem. ESTALE: staging itself is gone.
        """
        if self._background.committer is not None:
            self._background.committer.commit_all(below)
        if self._area is not None:
            self._area.check_in_place()
            self._background.durability.make_all_durable()

    def start_sync(self, below: bytes) -> int:
        """Begin :meth:`sync` in the background; returns a number for :meth:`sync_state`."""
        return self._background.syncs.start(below)

    def sync_state(self, number: int, wait_s: float) -> tuple[bytes, SyncState]:
        """Return the path of a sync that was started and how far it is.

        See :meth:`qatqfs.store.facade.WritableStore.sync_state`.
        """
        return self._background.syncs.look(number, wait_s)

    def make_room(self) -> bool:
        """Commit a file that is not open, which gives its descriptors back.

        Returns:
            Whether there was one that could be committed.
        """
        closed = next((node for node in self.tree.dirty_nodes() if not node.handles), None)
        if closed is None or self._background.committer is None:
            return False
        try:
            self._background.committer.commit_now(closed)
        except OSError as err:
            log.debug("no room by a commit of %r: %s", closed.path, str(err))
            return False
        return True

    def close(self, *, commit: bool = True) -> None:
        """Commit everything, stop the threads and release the lock; a second call does nothing.

        What cannot be committed is made durable in staging, and the log names it.

        Args:
            commit: ``False`` leaves uncommitted content to the recovery of the next store.

        Raises:
            OSError: a file could not be committed, or not even be made durable in staging. Everything else was
                committed, and the store is closed.
        """
        if self._closed:
            return
        self._closed = True
        error: str | None = None if commit else "it was told not to"
        try:
            if self._area is not None:
                self._area.stops()
            if commit:
                self.sync()
        except BaseException as err:
            error = describe(err)
            raise
        finally:
            self._background.stop()
            try:
                self._leave_no_drafts()
                self.secure_staging()
            except OSError as err:
                error = f"{error}; {describe(err)}" if error is not None else describe(err)
                raise
            finally:
                if self._area is not None:
                    self._area.close(left=len(self.tree.dirty_nodes()), error=error)
                    self._area = None

    def secure_staging(self) -> None:
        """Make containers and uncommitted content durable, and log which files are dirty.

        Raises:
            OSError: they may not be durable; acknowledged content is in staging nevertheless.
        """
        if self._background.committer is None:
            return
        left = self.tree.dirty_nodes()
        names = ", ".join(shown_path(node.path) for node in left[:_NAMED])
        if len(left) > _NAMED:
            names += f" and {len(left) - _NAMED} more"
        try:
            self._background.durability.make_durable(left)
        except OSError as err:
            what = f"uncommitted content of {names}" if left else "what was committed lately"
            log.error("%s may not survive a loss of power: %s", what, str(err))
            what = "uncommitted content" if left else "what was committed lately"
            raise OSError(err.errno or errno.EIO, f"{what} may not survive a loss of power: {err.strerror}") from err
        if left:
            log.warning("left in staging for the next mount, durable: %s", names)

    def _leave_no_drafts(self) -> None:
        """Remove the drafts of dirty files, because the next store begins new ones."""
        for node in self.tree.dirty_nodes():
            with node.lock:
                if node.staging is not None:
                    node.staging.abandon_draft()
        if self.tree.context.staging is not None:
            self.tree.context.staging.retry_abandoned()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- files -----------------------------------------------------------------------------------------

    def open(self, path: bytes, flags: int = os.O_RDONLY) -> Handle:
        """Open an existing regular file; see :meth:`qatqfs.store.names.opening.Opener.open`."""
        return self._opener.open(path, flags)

    def create(self, path: bytes, mode: int = 0o644, owner: Owner = None, flags: int = os.O_RDWR) -> Handle:
        """Create a regular file; see :meth:`qatqfs.store.names.opening.Opener.create`."""
        return self._opener.create(path, mode, owner, flags)

    def attach(self, target: Target, flags: int) -> Handle:
        """Begin to open a regular file; see :meth:`qatqfs.store.names.opening.Opener.attach`."""
        return self._opener.attach(_own(target), flags)

    def attach_new(self, path: bytes, mode: int, owner: Owner, flags: int) -> tuple[Handle, bool]:
        """Create a regular file, or begin to open it; see :meth:`qatqfs.store.names.opening.Opener.attach_new`."""
        return self._opener.attach_new(path, mode, owner, flags)

    def finish_opening(self, handle: FileHandle, *, truncate: bool) -> Handle:
        """Finish opening an attached file; see :meth:`qatqfs.store.names.opening.Opener.finish_opening`."""
        assert isinstance(handle, Handle)
        return self._opener.finish_opening(handle, truncate=truncate)

    def flush(self, handle: FileHandle) -> None:
        """Do what close(2) is to wait for: nothing, or with ``commit_on_close`` the commit of what was written.

        Raises:
            OSError: the commit failed; the content is safe in staging, and the commit is tried again.
        """
        assert isinstance(handle, Handle)
        if self.options.commit_on_close and self._background.committer is not None and handle.writable:
            self._background.committer.commit_for_close(handle.node)

    def truncate(self, target: Target, size: int) -> None:
        """Set the logical size of a file in bytes; raises OSError."""
        own = _own(target)
        if isinstance(own, Node):
            own.truncate(size)
            return
        with self.open(own, os.O_WRONLY | (os.O_TRUNC if size == 0 else 0)) as handle:
            if size:
                handle.truncate(size)

    def file_with(self, key: Key) -> Node | None:
        """Return the file with a backing inode if it is open or dirty; namespace lock held."""
        assert_held(self.tree.lock)
        return self.tree.nodes.get(key)

    def watch_inodes(self, rekeyed: Callable[[Key, Key, File], None], gone: Callable[[Key], None]) -> None:
        """Have changes of backing inodes reported; see :meth:`qatqfs.store.facade.ReadableStore.watch_inodes`."""
        self.tree.on_rekey, self.tree.on_gone = rekeyed, gone

    @property
    def namespace_lock(self) -> RLock:
        """The namespace lock, for clients that make several calls one step."""
        return self.tree.lock

    # -- names -----------------------------------------------------------------------------------------

    def list_names(self, path: bytes = b"") -> list[bytes]:
        """Return the names in a directory; raises OSError."""
        return self.tree.list_names(path)

    def list_attributes(self, path: bytes, names: list[bytes]) -> list[tuple[bytes, Attributes | None]]:
        """Return the attributes of names in a directory; see :meth:`qatqfs.store.names.tree.Tree.list_attributes`."""
        found = self.tree.list_attributes(path, names)
        return [(name, self._shown(one) if one is not None else None) for name, one in found]

    def is_searchable(self, path: bytes) -> bool:
        """Whether a path leads to a directory in which this process may look for names."""
        return self.tree.is_searchable(path)

    def mkdir(self, path: bytes, mode: int = 0o755, owner: Owner = None) -> Attributes:
        """Make a directory; see :func:`qatqfs.store.names.changes.mkdir`."""
        return self._shown(changes.mkdir(self.tree, path, mode, owner))

    def symlink(self, path: bytes, target: bytes, owner: Owner = None) -> Attributes:
        """Make a symbolic link at ``path``; raises OSError."""
        return self._shown(changes.symlink(self.tree, path, target, owner))

    def mknod(self, path: bytes, mode: int, rdev: int = 0, owner: Owner = None) -> Attributes:
        """Make a fifo, socket or device node; raises OSError."""
        return self._shown(changes.mknod(self.tree, path, mode, rdev, owner))

    def readlink(self, path: bytes) -> bytes:
        """Return the target of a symbolic link; raises OSError."""
        return changes.readlink(self.tree, path)

    def link(self, path: bytes, new_path: bytes) -> Attributes:
        """Give a file another name; see :func:`qatqfs.store.names.changes.link`."""
        return self._shown(changes.link(self.tree, path, new_path))

    def unlink(self, path: bytes) -> None:
        """Remove a name; raises OSError."""
        changes.unlink(self.tree, path)

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory; raises OSError."""
        changes.rmdir(self.tree, path)

    def rename(self, path: bytes, new_path: bytes, flags: int = 0) -> None:
        """Rename, replacing; see :func:`qatqfs.store.names.changes.rename`."""
        changes.rename(self.tree, path, new_path, flags)

    # -- metadata --------------------------------------------------------------------------------------

    def stat(self, target: Target) -> Attributes:
        """Return the attributes of a path (symlinks not followed) or node; raises OSError."""
        return self._shown(metadata.attributes(self.tree, _own(target)))

    def _shown(self, attributes: Attributes) -> Attributes:
        """Return attributes with the ctime that programs see."""
        ctime_ns = self.tree.commit_times.ctime_ns(attributes)
        return attributes if ctime_ns == attributes.ctime_ns else replace(attributes, ctime_ns=ctime_ns)

    def chmod(self, target: Target, mode: int) -> None:
        """Set the permission bits; raises OSError."""
        metadata.chmod(self.tree, _own(target), mode)

    def chown(self, target: Target, uid: int, gid: int) -> None:
        """Set owner and group, -1 leaving one alone; raises OSError."""
        metadata.chown(self.tree, _own(target), uid, gid)

    def utimens(self, target: Target, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set access and modification time in nanoseconds, ``None`` leaving one alone; raises OSError."""
        if atime_ns is not None:
            metadata.set_atime(self.tree, _own(target), atime_ns)
        if mtime_ns is not None:
            metadata.set_mtime(self.tree, _own(target), mtime_ns)

    def getxattr(self, target: Target, name: bytes) -> bytes:
        """Return an extended attribute; raises OSError."""
        return metadata.getxattr(self.tree, _own(target), name)

    def listxattr(self, target: Target) -> list[bytes]:
        """Return the names of the extended attributes; raises OSError."""
        return metadata.listxattr(self.tree, _own(target))

    def setxattr(self, target: Target, name: bytes, value: bytes) -> None:
        """Set an extended attribute; raises OSError."""
        metadata.setxattr(self.tree, _own(target), name, value)

    def removexattr(self, target: Target, name: bytes) -> None:
        """Remove an extended attribute; raises OSError."""
        metadata.removexattr(self.tree, _own(target), name)

    def fsync_directory(self, path: bytes) -> None:
        """Make the names in a directory durable; raises OSError."""
        with self.tree.directory(path) as fd:
            self.tree.context.io.fsync_directory(fd)

    def statvfs(self) -> os.statvfs_result:
        """Return the backing filesystem's space in 4 KiB blocks, its inodes, and the longest logical name.

        What commits are going to need does not count as free.
        """
        return metadata.statvfs(self.tree)

    def backing_path(self) -> bytes:
        """Return the absolute path that BACKING has now; raises OSError."""
        return os.readlink(os.fsencode(self.tree.root.proc_path))

    def stats(self) -> dict[str, int]:
        """Return all counters, with what is in the cache and in staging now."""
        counts = self.counters.as_dict()
        counts["cache_bytes"] = self.tree.context.reading.cache.current_bytes
        counts["dirty_files"] = len(self.tree.dirty_nodes())
        return counts
