"""What a mount, or any other client, uses of a store: the store's face as a :class:`typing.Protocol`.

:class:`~qatqfs.store.store.Store` is one such store, over a local BACKING. A client that is typed against
:class:`FileStore` works with any other: a store that can only be read implements :class:`ReadableStore`. It
refuses every change in :class:`WritableStore` with EROFS, and has nothing to sync.

Paths are logical, ``bytes``, relative to the top, without leading slash; ``b""`` is the top. Everything raises
:class:`OSError` with the errno that a system call would give. Every method may be called from any thread, with or
without the namespace lock unless it says otherwise.
"""

import os
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Protocol, Self

from qatqfs.store.attributes import Attributes, Key
from qatqfs.store.counters import Counters
from qatqfs.store.options import StoreOptions

if TYPE_CHECKING:
    from qatqfs.store.commit.syncs import SyncState
    from qatqfs.store.names.pending import Pending
    from qatqfs.store.reading.cache import Chunk

Owner = tuple[int, int] | None
"""uid and gid of a new file; ``None`` for those of this process."""


class File(Protocol):
    """A regular file that is open or dirty, whatever it is called. None of its members waits for a disk."""

    @property
    def key(self) -> Key:
        """The backing inode; stable while the namespace lock is held."""

    @property
    def path(self) -> bytes | None:
        """A logical path, ``None`` once its last name is gone; stable while the namespace lock is held."""

    @property
    def dirty(self) -> bool:
        """Whether there is content that is in no container yet."""

    @property
    def opened(self) -> bool:
        """Whether attributes are known without reading the container."""

    def content_tag(self) -> object:
        """Return a value that changes when content changes other than by a write to this file, ``None`` if unknown."""


Target = bytes | File
"""A logical path, or a file that is open; a file also serves when it has no name any more."""


class FileHandle(Protocol):
    """An open file. It is closed exactly once."""

    @property
    def file(self) -> File:
        """The file; not once the handle is closed."""

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""

    def read(self, size: int, offset: int) -> "Chunk":
        """Return exactly the bytes of a range, cut only at the end of the file; raises OSError."""

    def read_cached(self, size: int, offset: int) -> "Chunk | None":
        """As :meth:`read` when that takes no disk access and no decoding, else ``None``; never blocks."""

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write bytes and return how many; raises OSError (EBADF on a handle opened for reading)."""

    def write_quickly(self, data: bytes | bytearray | memoryview, offset: int) -> int | None:
        """As :meth:`write` if that is one system call, else ``None``; raises OSError."""

    def truncate(self, size: int) -> None:
        """Set the logical size in bytes; raises OSError."""

    def fsync(self) -> None:
        """Make what was written durable; raises OSError."""

    def close(self) -> None:
        """Give the handle back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ReadableStore(Protocol):
    """Names, attributes and content."""

    options: StoreOptions
    counters: Counters

    @property
    def namespace_lock(self) -> RLock:
        """The lock that every change of a name holds. A client holds it to make several calls one step."""

    def watch_inodes(self, rekeyed: Callable[[Key, Key, File], None], gone: Callable[[Key], None]) -> None:
        """Have changes of backing inodes reported, with the namespace lock held.

        Args:
            rekeyed: called with the old key, the new key and the file when a file gets another backing inode.
            gone: called with the key when the last name of a backing inode is gone.
        """

    def backing_path(self) -> bytes:
        """Return where the content is kept, as people know it; raises OSError."""

    def stat(self, target: Target) -> Attributes:
        """Return the attributes of a path (symlinks not followed) or file; raises OSError."""

    def file_with(self, key: Key) -> File | None:
        """Return the file with this backing inode if it is open or dirty; namespace lock held."""

    def is_searchable(self, path: bytes) -> bool:
        """Whether a path leads to a directory in which this process may look for names."""

    def list_names(self, path: bytes = b"") -> list[bytes]:
        """Return the names in a directory; raises OSError."""

    def list_attributes(self, path: bytes, names: list[bytes]) -> list[tuple[bytes, Attributes | None]]:
        """Return the attributes of names in a directory, without those that are gone; raises OSError.

        They are ``None`` where this process may list the directory but not look at what is in it.
        """

    def readlink(self, path: bytes) -> bytes:
        """Return the target of a symbolic link; raises OSError."""

    def getxattr(self, target: Target, name: bytes) -> bytes:
        """Return an extended attribute; raises OSError."""

    def listxattr(self, target: Target) -> list[bytes]:
        """Return the names of the extended attributes; raises OSError."""

    def statvfs(self) -> os.statvfs_result:
        """Return how much space there is, in blocks of 4 KiB, and the longest logical name; raises OSError."""

    def stats(self) -> dict[str, int]:
        """Return all counters."""

    def attach(self, target: Target, flags: int) -> FileHandle:
        """Take a handle of a regular file without touching its content; raises OSError.

        A client may hold the namespace lock, which keeps the name in place. :meth:`finish_opening` must follow, without
        that lock.

        Args:
            target: what to open.
            flags: of open(2); the access mode and O_TRUNC count.
        """

    def finish_opening(self, handle: FileHandle, *, truncate: bool) -> FileHandle:
        """Truncate an attached file, or make sure that its content can be read; namespace lock not held.

        Raises:
            OSError: it failed; the handle is closed.
        """

    def make_room(self) -> bool:
        """Give back the descriptors of a file that is not open; returns whether there was one."""


class WritableStore(Protocol):
    """Changes of names, metadata and content."""

    def attach_new(self, path: bytes, mode: int, owner: Owner, flags: int) -> tuple[FileHandle, bool]:
        """Create a regular file, or attach to it if it is there and O_EXCL is not given; raises OSError.

        Returns:
            The handle, and whether :meth:`ReadableStore.finish_opening` is to truncate.
        """

    def mkdir(self, path: bytes, mode: int = 0o755, owner: Owner = None) -> Attributes:
        """Make a directory; raises OSError."""

    def symlink(self, path: bytes, target: bytes, owner: Owner = None) -> Attributes:
        """Make a symbolic link; raises OSError."""

    def mknod(self, path: bytes, mode: int, rdev: int = 0, owner: Owner = None) -> Attributes:
        """Make a fifo, socket or device node; raises OSError."""

    def link(self, path: bytes, new_path: bytes) -> Attributes:
        """Give a file another name; raises OSError."""

    def unlink(self, path: bytes) -> None:
        """Remove a name; raises OSError."""

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory; raises OSError."""

    def rename(self, path: bytes, new_path: bytes, flags: int = 0) -> None:
        """Rename, replacing, with flags as renameat2(2); raises OSError."""

    def chmod(self, target: Target, mode: int) -> None:
        """Set the permission bits; raises OSError."""

    def chown(self, target: Target, uid: int, gid: int) -> None:
        """Set owner and group, -1 leaving one alone; raises OSError."""

    def utimens(self, target: Target, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set access and modification time in nanoseconds, ``None`` leaving one alone; raises OSError.

        To set a modification time may wait for a write, so the namespace lock must not be held then.
        """

    def setxattr(self, target: Target, name: bytes, value: bytes) -> None:
        """Set an extended attribute; raises OSError."""

    def removexattr(self, target: Target, name: bytes) -> None:
        """Remove an extended attribute; raises OSError."""

    def fsync_directory(self, path: bytes) -> None:
        """Make the names in a directory durable; raises OSError."""

    def flush(self, handle: FileHandle) -> None:
        """Do what close(2) is to wait for: nothing, or with ``commit_on_close`` the commit; raises OSError."""

    def pending(self, below: bytes = b"") -> "Pending":
        """Return what at or below a path is in no container yet."""

    def sync(self, below: bytes = b"") -> None:
        """Return once what was written so far at or below a path is in containers, durably.

        Raises:
            NotCommitted: files could not be committed; their content is safe in staging.
            OSError: everything is committed, but may not be durable.
        """

    def start_sync(self, below: bytes) -> int:
        """Begin :meth:`sync` in the background; returns its number."""

    def sync_state(self, number: int, wait_s: float) -> "tuple[bytes, SyncState]":
        """Return the path of a sync that was started and how far it is, after waiting for its end.

        Args:
            number: what :meth:`start_sync` returned.
            wait_s: seconds to wait at most.

        Raises:
            KeyError: the number is unknown, or forgotten.
        """


class FileStore(ReadableStore, WritableStore, Protocol):
    """All that a mount uses of a store, its life included.

    Attributes:
        options: the settings.
        counters: counters of what is done.
        recovered: files that an earlier process left uncommitted, ``None`` if that cannot be seen.
        in_doubt: files of which the newest content may be torn, so that it is kept in lost+found.
    """

    recovered: int | None
    in_doubt: int

    def serves(self, mountpoint: str, device: str) -> None:
        """Let other processes know where this store is mounted.

        Args:
            mountpoint: absolute path.
            device: ``major:minor`` of the mount.
        """

    def secure_staging(self) -> None:
        """Make containers and uncommitted content durable, and log which files have some; raises OSError."""

    def close(self, *, commit: bool = True) -> None:
        """Commit everything, stop the threads and release the lock; a second call does nothing.

        Args:
            commit: ``False`` leaves uncommitted content to the recovery of the next store.

        Raises:
            OSError: a file could not be committed, or not even made durable; the store is closed nevertheless.
        """
