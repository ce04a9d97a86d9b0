"""What a node knows about its file, and how that changes.

Two locks protect it. The content lock (``NodeState.lock``) protects what the file contains: a write, a truncate, the
start of staging and the last step of a commit hold it. The namespace lock, one for the store, protects where the file
is and how often it is open. The lock order is: the node's commit lock, its content lock, the namespace lock. A thread
that holds the namespace lock never waits for a content lock.

Readers take neither lock. They read ``staging`` once, and if it is ``None`` they read the container. A commit sets the
new container before it clears ``staging``. Descriptors stay open as long as a reader refers to them.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from qatqfs.store.attributes import Key
from qatqfs.store.locks import assert_held, lock_before
from qatqfs.store.options import StoreOptions
from qatqfs.store.reading.container import ContainerFile, ReadContext, signature_of
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.staging.draftlock import CommitLock
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd

if TYPE_CHECKING:
    from qatqfs.store.names.node import Node


class Storage(Enum):
    """How a regular file is stored."""

    CONTAINER = "container"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What all nodes of a store share.

    Attributes:
        options: the store's settings.
        io: makes every change below BACKING.
        reading: caches and counters of containers.
        staging: where written bytes go, ``None`` in a read-only store.
        namespace_lock: see the module's text.
        dirtied: called, without the namespace lock, when a node becomes dirty.
        advanced: called, without the namespace lock, when a sequential writer has got further by some megabytes.
        committed: called, without the namespace lock, when a container has got its name and is not durable yet.
        fsync_parent: makes the directory of a logical path durable.
    """

    options: StoreOptions
    io: BackingIO
    reading: ReadContext
    staging: StagingArea | None
    namespace_lock: threading.RLock
    dirtied: Callable[["Node"], None]
    advanced: Callable[["Node"], None]
    committed: Callable[[], None]
    fsync_parent: Callable[[bytes], None]


class NodeState:
    """The fields of a node and its transitions.

    Only this class and :class:`~qatqfs.store.names.node.Node` assign the fields. Each transition asserts the locks that
    it needs.

    Args:
        context: what all nodes share.
        key: the backing inode.
        path: a logical path of the file.
        storage: how it is stored.
        fd: the backing inode, open.
        durable: the container and the name are durable.
        several_names: the file may have other names.

    Attributes:
        key: the backing inode, which has the metadata. Namespace lock.
        path: the logical path, ``None`` once the last name is gone. Namespace lock.
        storage: how it is stored. Namespace lock.
        fd: the backing inode, open for reading; also for writing if :meth:`Node.open_for_writing` was called. Namespace
            lock.
        lock: the content lock.
        staging: uncommitted content, ``None`` when the container has all of it. Set and cleared with the namespace
            lock and the content lock; :meth:`forget_content` clears it with the namespace lock alone.
        sequence: counts changes of content, so that a commit sees them. Content lock.
        changed_at: monotonic time of the last change in seconds. Content lock, except in :meth:`become_container`.
        durable_sequence: the value of ``sequence`` whose content was last made durable; -1 if unknown. No lock: a
            value that is too small costs one more fsync.
        handles: open handles. Namespace lock.
        writers: those of them that may write. Namespace lock.
        commit_lock: held during a commit, so that there is one at a time, and during encoding ahead.
        several_names: true once the file had more than one name; ``path`` may then be stale. Set with the namespace
            lock or the content lock, and never cleared.
        durable: the name and the container are durable. Namespace lock.
        stays_container: the file cannot become raw although a rule wants it. Commit lock.
        metadata_durable: the metadata of the container is durable. No lock: see :meth:`Node.make_container_durable`.
    """

    def __init__(
        self,
        context: NodeContext,
        key: Key,
        path: bytes,
        storage: Storage,
        fd: Fd,
        *,
        durable: bool = False,
        several_names: bool = False,
    ) -> None:
        self.context = context
        self.key = key
        self.path: bytes | None = path
        self.storage = storage
        self.fd = fd
        self.lock = lock_before(context.namespace_lock)
        self.staging: StagingEntry | None = None
        self.sequence = 0
        self.changed_at = 0.0
        self.durable_sequence = -1
        self.handles = 0
        self.writers = 0
        self.commit_lock = CommitLock()
        self.durable = durable
        self.metadata_durable = False
        self.several_names = several_names
        self.stays_container = False
        self._container: ContainerFile | None = None
        self._generation = 0  # counts what may make an open container stale; namespace lock

    # -- questions -------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether there is content that is in no container yet."""
        return self.staging is not None

    @property
    def opened_container(self) -> ContainerFile | None:
        """The container if it is open already."""
        return self._container

    @property
    def opened(self) -> bool:
        """Whether attributes are known without reading the container."""
        return self.staging is not None or self._container is not None or self.storage is Storage.RAW

    @property
    def has_several_names(self) -> bool:
        """Whether it may have names besides ``path``, including names made in BACKING itself."""
        return self.several_names or os.fstat(self.fd.number).st_nlink > 1

    # -- handles and names: namespace lock held ----------------------------------------------------------

    def handle_opened(self, *, writable: bool) -> None:
        """Count a new handle; namespace lock held."""
        assert_held(self.context.namespace_lock)
        self.handles += 1
        self.writers += writable

    def handle_closed(self, *, writable: bool) -> None:
        """Count a handle that was closed; namespace lock held."""
        assert_held(self.context.namespace_lock)
        self.handles -= 1
        self.writers -= writable

    def renamed(self, path: bytes) -> None:
        """Take another logical path, whose name is not durable yet; namespace lock held."""
        assert_held(self.context.namespace_lock)
        self.path = path
        self.durable = False

    def lost_last_name(self) -> None:
        """Have no name any more; namespace lock held."""
        assert_held(self.context.namespace_lock)
        self.path = None

    def got_several_names(self) -> None:
        """Remember that ``path`` may be stale from now on; namespace lock held."""
        assert_held(self.context.namespace_lock)
        self.several_names = True

    # -- content ---------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Count a change of content; content lock held."""
        assert_held(self.lock)
        self.sequence += 1
        self.changed_at = time.monotonic()

    def _stage(self, entry: StagingEntry, path: bytes | None) -> None:
        """Become dirty; content lock held, namespace lock not.

        Args:
            entry: the uncommitted content.
            path: the path that the entry's log has.

        Raises:
            OSError: the log cannot be brought up to date; the node stays as it is.
        """
        assert_held(self.lock)
        with self.context.namespace_lock:
            # Renames and unlinks are logged only once the entry is here, so log those that came before.
            if self.path is None:
                entry.announce_unlink()
            elif self.path != path:
                entry.log.path(self.path)
            self.staging = entry

    def recovered(self, entry: StagingEntry) -> None:
        """Become dirty with the content that recovery found; no lock held."""
        with self.lock, self.context.namespace_lock:
            self.staging = entry

    def replaced(self, fd: Fd, key: Key, container: ContainerFile, *, whole: bool) -> None:
        """Take over a new container that has just got the old one's name; content and namespace lock held.

        Args:
            fd: the new container, open.
            key: its inode.
            container: it as a container.
            whole: it has all of the content, so the node is not dirty any more.
        """
        self._assert_both_held()
        self._generation += 1
        self.fd, self.key = fd, key
        self._container = container
        self.durable = False
        if whole:
            self.staging = None  # last: a reader that finds none uses the container

    def committed_in_place(self, container: ContainerFile) -> None:
        """Be clean: all content is in the backing inode, durably; content and namespace lock held.

        Args:
            container: the backing inode as it is now.
        """
        self._assert_both_held()
        self._generation += 1
        self._container = container
        self.durable = True
        self.staging = None  # last: a reader that finds none uses the container

    def become_container(self, fd: Fd, key: Key) -> None:
        """Turn from a raw file into the (empty) container that replaced it; namespace lock held."""
        assert_held(self.context.namespace_lock)
        self._generation += 1
        self.storage, self.fd, self.key = Storage.CONTAINER, fd, key
        self._container = None
        self.durable = False
        self.changed_at = time.monotonic()

    def become_raw(self, fd: Fd, key: Key) -> None:
        """Turn from a container into the raw file that replaced it; content and namespace lock held."""
        self._assert_both_held()
        self._generation += 1
        self.storage, self.fd, self.key = Storage.RAW, fd, key
        self._container = None
        self.durable = False
        self.staging = None  # last: a reader that finds none looks at the rest

    def stay_container(self) -> None:
        """Never try again to become raw; called by a commit of this node, which has the commit lock."""
        self.stays_container = True

    def forget_content(self) -> None:
        """Give up the uncommitted content of a file that has neither a name nor a handle; namespace lock held.

        This is the one place that clears ``staging`` without the content lock, which would have to be taken first. No
        writer is left. A commit that is under way finds its snapshot cancelled, or ``staging`` gone.
        """
        assert_held(self.context.namespace_lock)
        assert self.path is None and self.handles == 0
        if self.staging is not None:
            self.staging.abandon()
            self.staging = None

    # -- the open container ------------------------------------------------------------------------------

    def refresh(self, st: os.stat_result) -> None:
        """Forget the container's layout if another program changed the file in place; namespace lock held."""
        assert_held(self.context.namespace_lock)
        found = self._container
        if found is not None and found.signature != signature_of(st) and not self.dirty:
            self._container = None
            self._generation += 1

    def forget_container(self) -> ContainerFile | None:
        """Forget where chunks are in the backing inode, which is going to change; returns what is forgotten."""
        with self.context.namespace_lock:
            self._generation += 1
            found, self._container = self._container, None
        return found

    # -- durability ------------------------------------------------------------------------------------

    def metadata_changed(self) -> None:
        """Note that the backing inode has metadata that no fsync has made durable yet."""
        self.metadata_durable = False

    def made_durable(self, sequence: int) -> None:
        """Note that the content that ``sequence`` counted is durable."""
        self.durable_sequence = max(self.durable_sequence, sequence)

    def _assert_both_held(self) -> None:
        assert_held(self.lock)
        assert_held(self.context.namespace_lock)
