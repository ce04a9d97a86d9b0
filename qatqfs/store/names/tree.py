"""The tree of logical names over BACKING: which stored file a path means, and the table of nodes.

Every path is walked from BACKING with directory descriptors and without following symlinks. So a user who can write to
BACKING cannot make the store leave it.

``Tree.lock``, the namespace lock, is held for every change of a name and for every look-up of one. So a look-up sees a
rename or a commit as a whole or not at all. Listing the names in a directory takes no lock.

A thread that holds the lock never encodes, decodes or copies content. It may wait for the disk: a commit makes durable,
with the lock held, metadata that changed since it did so without the lock, and the record that announces its container.
A rename appends to the logs of dirty files.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from cachetools import LRUCache

from qatqfs.store import paths
from qatqfs.store.attributes import Attributes, Key, from_stat, key_of
from qatqfs.store.errors import os_error
from qatqfs.store.locks import assert_held
from qatqfs.store.names.node import Node
from qatqfs.store.names.own_files import open_whatever_the_mode
from qatqfs.store.names.shown_ctimes import CommitTimes
from qatqfs.store.names.state import NodeContext, Storage
from qatqfs.store.options import OnCorrupt
from qatqfs.store.reading.container import logical_length, signature_of
from qatqfs.store.reading.damage import FileSignature
from qatqfs.store.system.descriptors import is_want, to_stay_open
from qatqfs.store.system.fd import Fd, open_directory, open_entry, open_listing, reopen

_SIZES_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Located:
    """What a logical name means in BACKING.

    Attributes:
        stored: the stored name.
        st: its lstat.
        storage: how a regular file is stored, ``None`` for everything else.
        shadowed: the other stored file of the same logical name, if there are both.
    """

    stored: bytes
    st: os.stat_result
    storage: Storage | None
    shadowed: bytes | None

    @property
    def key(self) -> Key:
        """The backing inode."""
        return key_of(self.st)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.st.st_mode)


class Tree:
    """Names, nodes and the namespace lock of one store.

    Args:
        root: open descriptor of BACKING.
        context: what nodes share; its ``namespace_lock`` is this tree's.

    Attributes:
        lock: the namespace lock.
        nodes: regular files that are open or dirty, by backing inode; protected by ``lock``.
        on_rekey: called with the old and the new key, under ``lock``, when a logical file gets another
            backing inode.
        on_gone: called with the key, under ``lock``, when the last name of a backing inode is gone.
        on_dropped: called with a node, under ``lock``, that has no name any more, or that is neither open nor dirty. A
            table that keeps the node keeps its descriptors open, and so the space of removed files.
        commit_times: which ctime to show after a commit.
    """

    def __init__(self, root: Fd, context: NodeContext) -> None:
        self.root = root
        self.context = context
        self.lock = context.namespace_lock
        self.nodes: dict[Key, Node] = {}
        self.device = os.fstat(root.number).st_dev
        self.on_rekey: Callable[[Key, Key, Node], None] = lambda old, new, node: None
        self.on_gone: Callable[[Key], None] = lambda key: None
        self.on_dropped: Callable[[Node], None] = lambda node: None
        self.commit_times = CommitTimes(context.io)
        self._sizes: LRUCache[FileSignature, int] = LRUCache(_SIZES_REMEMBERED)
        self._sizes_lock = threading.Lock()

    # -- directories -----------------------------------------------------------------------------------

    @contextmanager
    def directory(self, path: bytes) -> Iterator[int]:
        """Open the directory at a logical path as an O_PATH descriptor for use as ``dir_fd``.

        Raises:
            OSError: ENOENT, ENOTDIR, EACCES.
        """
        parts = paths.components(path)
        if parts and paths.is_private(b"", parts[0]):
            raise os_error(errno.ENOENT, path)
        fd = open_directory(self.root.number, parts)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def parent(self, path: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        """Open the directory a path is in; yields its descriptor, its logical path and the last name."""
        above, name = paths.split(path)
        if not paths.components(path):
            raise os_error(errno.EBUSY)  # the parent of the top is not in the store
        with self.directory(above) as fd:
            yield fd, above, name

    def is_directory(self, path: bytes) -> bool:
        """Whether a logical path leads to a directory."""
        try:
            with self.directory(path):
                return True
        except OSError:
            return False

    def is_searchable(self, path: bytes) -> bool:
        """Whether a logical path leads to a directory in which this process may look for names."""
        try:
            with self.directory(path) as fd:
                return os.access(f"/proc/self/fd/{fd}", os.X_OK, effective_ids=True)
        except OSError:
            return False

    def fsync_parent(self, path: bytes) -> None:
        """Make the names in the directory of a path durable, if it is still there; raises OSError."""
        try:
            with self.directory(paths.split(path)[0]) as fd:
                self.context.io.fsync_directory(fd)
        except FileNotFoundError:
            pass
        except PermissionError:  # the directory cannot be opened, but syncfs makes everything durable
            self.context.io.syncfs(self.root)

    # -- resolution ------------------------------------------------------------------------------------

    def resolve(self, fd: int, above: bytes, name: bytes) -> Located:
        """Find what a name in an open directory means.

        If there are a container and a raw file, the one that was modified last counts, and the container on a tie.

        Namespace lock held.

        Raises:
            OSError: ENOENT.
        """
        assert_held(self.lock)
        if paths.is_private(above, name):
            raise os_error(errno.ENOENT, name)
        stored = paths.container_name(name)
        container = self._lstat(fd, stored)
        if container is not None and not stat.S_ISREG(container.st_mode):
            container = None  # not a regular file, so its name is shown as it is
        plain = self._lstat(fd, name)
        if plain is not None and stat.S_ISREG(plain.st_mode) and paths.is_container_name(name):
            plain = None  # the container of a shorter name
        if container is None and plain is None:
            raise os_error(errno.ENOENT, paths.join(above, name))
        if plain is None or (
            container is not None and stat.S_ISREG(plain.st_mode) and self._mtime_ns(container) >= plain.st_mtime_ns
        ):
            assert container is not None
            return Located(stored, container, Storage.CONTAINER, name if plain is not None else None)
        storage = Storage.RAW if stat.S_ISREG(plain.st_mode) else None
        return Located(name, plain, storage, stored if container is not None else None)

    def _mtime_ns(self, st: os.stat_result) -> int:
        node = self.nodes.get(key_of(st))
        return node.mtime_ns if node is not None else st.st_mtime_ns

    @staticmethod
    def _lstat(fd: int, stored: bytes) -> os.stat_result | None:
        try:
            return os.stat(stored, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as err:
            if err.errno == errno.ENAMETOOLONG:  # only with the suffix; the kernel checked the logical name
                return None
            raise

    def lookup(self, fd: int, above: bytes, name: bytes) -> Located:
        """As :meth:`resolve`, but with ``OnCorrupt.ENOENT`` a file that is known to be damaged is absent."""
        located = self.resolve(fd, above, name)
        if self.hidden(located):
            raise os_error(errno.ENOENT, paths.join(above, name))
        return located

    def hidden(self, located: Located) -> bool:
        """Whether a file is to look absent because it is known to be damaged; namespace lock held."""
        assert_held(self.lock)
        return (
            self.context.options.on_corrupt is OnCorrupt.ENOENT
            and located.storage is Storage.CONTAINER
            and self.context.reading.damage.file_known(signature_of(located.st))
            and not self._is_dirty(located.key)
        )

    def _is_dirty(self, key: Key) -> bool:
        node = self.nodes.get(key)
        return node is not None and node.dirty

    # -- attributes and listing ------------------------------------------------------------------------

    def attributes(self, path: bytes) -> Attributes:
        """Return what lstat(2) of a logical path shows; raises OSError."""
        with self.lock:
            if not path:
                return from_stat(os.fstat(self.root.number))
            with self.parent(path) as (fd, above, name):
                return self.attributes_of(fd, path, self.lookup(fd, above, name))

    def attributes_of(self, fd: int, path: bytes, located: Located) -> Attributes:
        """Return the attributes of what was found in an open directory; namespace lock held.

        Raises:
            OSError: a container could not be opened for lack of descriptors or memory.
        """
        assert_held(self.lock)
        node = self.nodes.get(located.key)
        if node is not None and located.storage is not None:
            return node.attributes()
        if located.storage is Storage.CONTAINER:
            return from_stat(located.st, self._container_length(fd, path, located))
        return from_stat(located.st)

    def _container_length(self, fd: int, path: bytes, located: Located) -> int:
        reading, signature = self.context.reading, signature_of(located.st)
        with self._sizes_lock:
            known = self._sizes.get(signature)
        if known is not None:
            return known
        try:
            length = logical_length(self.open_stored(fd, located.stored), path, reading)
        except OSError as err:
            if is_want(err):  # a guess would cut off what a program reads
                raise
            length = located.st.st_size  # not readable as a container: show the stored size; open(2) gives EIO
            if not reading.damage.file_known(signature):
                return length  # it may be readable the next time
        with self._sizes_lock:
            self._sizes[signature] = length
        return length

    def open_stored(self, fd: int, stored: bytes) -> Fd:
        """Open a regular file in an open directory for reading; raises OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return Fd(os.open(stored, flags | os.O_NOATIME, dir_fd=fd))
        except PermissionError:  # only the owner and root may use O_NOATIME
            pass
        try:
            return Fd(os.open(stored, flags, dir_fd=fd))
        except PermissionError:
            return self.open_regular(open_entry(fd, stored))

    def open_regular(self, fd: Fd) -> Fd:
        """Open an O_PATH descriptor of a regular file for reading; raises OSError (EINVAL if it is none)."""
        if not stat.S_ISREG(os.fstat(fd.number).st_mode):
            raise os_error(errno.EINVAL)
        try:
            return reopen(fd, os.O_RDONLY)
        except PermissionError:
            return self.open_whatever_the_mode(fd)

    def open_whatever_the_mode(self, fd: Fd) -> Fd:
        """As ``own_files.open_whatever_the_mode``; the change of the mode does not show through the mount."""
        with self.lock:
            shown_ns = self.commit_times.ctime_ns(from_stat(os.fstat(fd.number)))
            try:
                return open_whatever_the_mode(self.context.staging, fd)
            finally:
                self.commit_times.committed(os.fstat(fd.number), shown_ns)

    def list_names(self, path: bytes) -> list[bytes]:
        """Return the logical names in a directory, each once, in the order of the backing filesystem.

        Raises:
            OSError: ENOENT, ENOTDIR, EACCES.
        """
        found: dict[bytes, None] = {}
        with self.directory(path) as fd:
            readable = open_listing(fd)
            try:
                with os.scandir(readable) as entries:
                    for entry in entries:
                        stored = os.fsencode(entry.name)
                        if not paths.is_private(path, stored):
                            regular = entry.is_file(follow_symlinks=False)
                            found[paths.logical_name(stored, regular=regular)] = None
            finally:
                os.close(readable)
        return [name for name in found if not paths.is_private(path, name)]

    def list_attributes(self, path: bytes, wanted: list[bytes]) -> list[tuple[bytes, Attributes | None]]:
        """Return the attributes of names in a directory, leaving out those that are gone; raises OSError.

        They are ``None`` where this process may list the directory but not look at what is in it.
        """
        result: list[tuple[bytes, Attributes | None]] = []
        with self.lock, self.directory(path) as fd:
            for name in wanted:
                try:
                    located = self.lookup(fd, path, name)
                    result.append((name, self.attributes_of(fd, paths.join(path, name), located)))
                except FileNotFoundError:
                    continue
                except PermissionError:
                    result.append((name, None))
        return result

    # -- room ------------------------------------------------------------------------------------------

    def room_for_one(self) -> AbstractContextManager[None]:
        """Reserve an inode for one new file or directory in the block; raises OSError (ENOSPC) if commits need it."""
        staging = self.context.staging
        return staging.room_for(1) if staging is not None else nullcontext()

    # -- nodes -----------------------------------------------------------------------------------------

    def node_of(self, fd: int, path: bytes, located: Located) -> Node:
        """Return the node of a regular file, made now if there is none; namespace lock held.

        Raises:
            OSError: it cannot be opened.
        """
        assert_held(self.lock)
        assert located.storage is not None
        node = self.nodes.get(located.key)
        if node is not None:
            node.refresh(located.st)
            return node
        opened = to_stay_open(self.open_stored(fd, located.stored))
        key = key_of(os.fstat(opened.number))
        if key != located.key:  # another program has just replaced it
            raise os_error(errno.ESTALE, path)
        node = Node(self.context, key, path, located.storage, opened)
        self.nodes[key] = node
        return node

    def forget_if_idle(self, node: Node) -> None:
        """Drop a node that is neither open nor dirty; namespace lock held."""
        assert_held(self.lock)
        if node.handles:
            return
        if node.path is None:
            node.forget_content()
        if not node.dirty:
            if self.nodes.get(node.key) is node:
                del self.nodes[node.key]
            self.on_dropped(node)

    def rekey(self, node: Node, old: Key) -> None:
        """Move a node to the key of its new backing inode; namespace lock held."""
        assert_held(self.lock)
        if self.nodes.get(old) is node:
            del self.nodes[old]
        self.nodes[node.key] = node
        self.on_rekey(old, node.key, node)

    def last_name_gone(self, key: Key) -> None:
        """Handle the loss of the last name of a backing inode; namespace lock held."""
        assert_held(self.lock)
        self.on_gone(key)
        node = self.nodes.get(key)
        if node is not None:
            node.lost_last_name()
            self.on_dropped(node)
            if node.staging is not None:
                node.staging.cancel_commit()
                node.staging.abandon_draft()
            self.forget_if_idle(node)

    def dirty_nodes(self, below: bytes = b"") -> list[Node]:
        """Return the dirty nodes that have, or may have, a name at or below a logical path.

        A node knows one of its names, so those with several names are always among them.
        """
        with self.lock:
            nodes = [node for node in self.nodes.values() if node.dirty]
            return [n for n in nodes if n.path is not None and (paths.is_below(n.path, below) or n.has_several_names)]
