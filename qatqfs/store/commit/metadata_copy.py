"""The metadata of a file, given to the container or raw file that is about to replace it.

What replaces a durable file has to be durable itself, metadata included, before it is renamed into place. An fsync
waits for the disk, so it is done without locks. Under the locks the metadata are compared with the file's once more.
If a program has changed them meanwhile, or has called fsync for the first time, the locks are released and the copy is
made again. A file whose metadata change all the time gets its last copy under the locks, so that every commit comes to
its end.
"""

import os

from qatqfs.store.names.inode_copy import InodeMetadata, copy_metadata, has_all_of
from qatqfs.store.names.node import Node
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd

EMPTY_CONTAINER_SIZE = 72
"""Bytes of a container without values (format, section 6): header, length, one payload."""
_RENEWALS = 2
"""Copies that are made again without locks. Programs change a file's metadata in one go, so one is nearly always
enough."""


class MetadataCopy:
    """Copies the metadata at once, and makes the new file durable if the old one is. See the module's text.

    Args:
        io: makes the changes.
        node: the file; its commit lock is held.
        entry: of the file.
        fd: what is about to replace its container.

    Attributes:
        durable: whether the new file has to be durable before it is in place.

    Raises:
        OSError: copying or fsync failed.
    """

    def __init__(self, io: BackingIO, node: Node, entry: StagingEntry, fd: Fd) -> None:
        self._io = io
        self._node = node
        self._entry = entry
        self._fd = fd
        self._replaces_content = os.fstat(node.fd.number).st_size > EMPTY_CONTAINER_SIZE
        self._renewals = _RENEWALS
        self._make()

    def _make(self) -> None:
        self.durable = self._has_to_be_durable
        self._metadata, self._mtime_ns = InodeMetadata.of(self._node.fd), self._entry.mtime_ns
        copy_metadata(self._io, self._metadata, self._fd, self._mtime_ns)
        if self.durable:
            self._io.fsync(self._fd)

    @property
    def _has_to_be_durable(self) -> bool:
        return self._entry.log.durable or self._node.durable or self._replaces_content

    @property
    def is_complete(self) -> bool:
        """Whether the new file could be given all of the metadata."""
        return has_all_of(self._metadata, self._fd)

    def _needs_fsync(self, whole: bool) -> bool:
        if not self._has_to_be_durable:
            return False
        # As long as the entry stays it is the one that says what the mtime is, so every write would move it.
        moved = whole and self._entry.mtime_ns != self._mtime_ns
        return not self.durable or moved or InodeMetadata.of(self._node.fd) != self._metadata

    def has_to_be_renewed(self, *, whole: bool) -> bool:
        """Whether to release the locks and call :meth:`renew`; content and namespace lock held.

        Args:
            whole: the container has all of the entry, which is removed after this commit.
        """
        return self._renewals > 0 and self._needs_fsync(whole)

    def renew(self) -> None:
        """Make the copy again, which waits for the disk; namespace lock not held. Raises OSError."""
        self._renewals -= 1
        self._make()

    def bring_up_to_date(self, *, whole: bool) -> None:
        """Copy what differs still; content and namespace lock held until the file is in place. Raises OSError.

        This waits for the disk only after :meth:`renew` was called as often as it may be.
        """
        needs_fsync = self._needs_fsync(whole)
        metadata, mtime_ns = InodeMetadata.of(self._node.fd), self._entry.mtime_ns
        if metadata != self._metadata:
            copy_metadata(self._io, metadata, self._fd, mtime_ns)
        elif mtime_ns != self._mtime_ns:
            self._io.set_times(self._fd, None, mtime_ns)
        if needs_fsync:
            self._io.fsync(self._fd)
        self._metadata, self._mtime_ns = metadata, mtime_ns
        self.durable = self._has_to_be_durable
