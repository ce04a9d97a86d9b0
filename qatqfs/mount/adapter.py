"""What the request handlers share: errors to errnos, worker threads, replies."""

import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyfuse3
import trio

from qatqfs.codec import without_frames
from qatqfs.mount.inodes import Inode, InodeTable
from qatqfs.mount.nospace import NoSpaceLog
from qatqfs.store.attributes import BLOCK_SIZE, Attributes
from qatqfs.store.facade import FileHandle, FileStore, Target
from qatqfs.store.locks import assert_held
from qatqfs.store.system.descriptors import DescriptorShortage, fitting_threads

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="HasHandlers")

_ON_FILES = frozenset({"write", "flush", "fsync"})
"""Requests whose first argument is a file handle; the first argument of all others is an inode."""
_ON_NAMES = frozenset({"create", "mkdir", "mknod", "symlink", "rename"})
"""Requests whose first arguments are a directory and a name in it."""

ATTRIBUTE_TIMEOUT_S = 1.0
"""How long the kernel may cache a name or an attribute. Changes made in BACKING itself show after that."""
MAX_THREADS = 64


class HasHandlers(Protocol):
    """What a class with handlers has."""

    async def note_failure(self, request: str, arguments: Sequence[Any], err: OSError) -> None:
        """Take note of a request that fails, before it is answered; raises nothing."""


def handler(
    method: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Wrap a request handler so that it raises nothing but FUSEError: any other exception would end the mount."""

    @wraps(method)
    async def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except OSError as err:
            await self.note_failure(method.__name__, args, err)
            number = err.errno or errno.EIO
            if number == errno.EMFILE:  # the daemon has no descriptors left, not the program
                number = errno.ENFILE
            raise pyfuse3.FUSEError(number) from err
        except MemoryError as err:
            raise pyfuse3.FUSEError(errno.ENOMEM) from err
        except Exception as err:
            log.exception("%s failed", method.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from err

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, R]], wrapped)


def notification(
    method: Callable[Concatenate[S, P], Awaitable[None]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, None]]:
    """Wrap a handler that has no answer: it may not raise even FUSEError, because that would end the mount."""

    @wraps(method)
    async def wrapped(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await method(self, *args, **kwargs)
        except Exception:
            log.exception("%s failed", method.__name__)

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, None]], wrapped)


class _Failure:
    """An error that a worker thread hands over."""

    __slots__ = ("error",)

    def __init__(self, error: OSError | MemoryError) -> None:
        self.error = error


def _outcome_of(work: Callable[[], R]) -> R | _Failure:
    try:
        return work()
    except (OSError, MemoryError) as err:
        return _Failure(without_frames(err))


class OpenFile:
    """A file handle that the kernel holds."""

    __slots__ = ("handle", "inode")

    def __init__(self, handle: FileHandle, inode: Inode) -> None:
        self.handle = handle
        self.inode = inode


class Adapter(pyfuse3.Operations):
    """State and helpers of all handlers.

    The trio thread runs the handlers. Whatever may block runs in a worker thread, by :meth:`run`. Code between two
    awaits is atomic against other handlers, but not against worker threads. So the namespace lock protects the table
    of inodes, and ``_files`` and ``_next_handle`` belong to the trio thread.

    Args:
        store: the open store.
    """

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, store: FileStore) -> None:
        super().__init__()
        self.store = store
        self.lock = store.namespace_lock
        self.inodes = InodeTable(store.stat(b""), self.lock, store.is_searchable)
        self._files: dict[int, OpenFile] = {}
        self._next_handle = 1
        self._limiter = trio.CapacityLimiter(fitting_threads(MAX_THREADS))
        self._no_space = NoSpaceLog(store)
        store.watch_inodes(self.inodes.rekey, self.inodes.gone)

    async def run(self, function: Callable[..., R], *args: object) -> R:
        """Call a function in a worker thread; raises what it raised.

        An OSError or MemoryError comes without its traceback. Otherwise trio's frame would refer to the error, and the
        error to a file, which would stay open in that cycle. An idle daemon never collects garbage.
        """
        work = partial(self._call, function, *args)
        result: R | _Failure = await trio.to_thread.run_sync(_outcome_of, work, limiter=self._limiter)
        if isinstance(result, _Failure):
            try:
                raise result.error
            finally:
                del result
        return result

    def _call(self, function: Callable[..., R], *args: object) -> R:
        """Call a function, and call it again each time a commit has freed descriptors that it lacked."""
        while True:
            try:
                return function(*args)
            except DescriptorShortage:
                if not self.store.make_room():
                    raise

    async def note_failure(self, request: str, arguments: Sequence[Any], err: OSError) -> None:
        """Count requests that fail for lack of space, and log that now and then; raises nothing."""
        if self._no_space.count(err):
            await self.run(self._no_space.say, request, lambda: self.path_of(request, arguments), str(err.strerror))

    def path_of(self, request: str, arguments: Sequence[Any]) -> bytes:
        """Return the logical path that a request is about, for the log. Takes the lock; raises OSError."""
        with self.lock:
            if request in _ON_FILES:
                return self.inodes.path(self.file(arguments[0]).inode)
            inode = self.inodes.get(arguments[0])
            return self.inodes.child_path(inode, arguments[1]) if request in _ON_NAMES else self.inodes.path(inode)

    def target(self, number: int) -> tuple[Inode, Target]:
        """Return an inode and what to call it in the store: its file while that is open, else its path; lock held.

        Raises:
            OSError: ENOENT, it has no name and is not open.
        """
        assert_held(self.lock)
        inode = self.inodes.get(number)
        return inode, inode.file if inode.file is not None else self.inodes.path(inode)

    def reply(self, inode: Inode, attributes: Attributes) -> pyfuse3.EntryAttributes:
        """Turn the store's attributes into a reply to the kernel."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode.number
        entry.generation = inode.generation
        entry.entry_timeout = ATTRIBUTE_TIMEOUT_S
        entry.attr_timeout = ATTRIBUTE_TIMEOUT_S
        entry.st_mode = attributes.mode
        entry.st_nlink = attributes.nlink
        entry.st_uid = attributes.uid
        entry.st_gid = attributes.gid
        entry.st_rdev = attributes.rdev
        entry.st_size = attributes.size
        entry.st_blksize = BLOCK_SIZE
        entry.st_blocks = attributes.blocks
        entry.st_atime_ns = attributes.atime_ns
        entry.st_mtime_ns = attributes.mtime_ns
        entry.st_ctime_ns = attributes.ctime_ns
        return entry

    def attached(self, inode: Inode, handle: FileHandle) -> None:
        """Note that an inode was opened; lock held."""
        assert_held(self.lock)
        inode.file = handle.file
        inode.opens += 1

    def detached(self, inode: Inode, handle: FileHandle) -> None:
        """Close a handle and note it; takes the lock."""
        with self.lock:
            inode.opens -= 1
            if inode.opens == 0:
                inode.file = None
            handle.close()

    def add_file(self, inode: Inode, handle: FileHandle) -> pyfuse3.FileHandleT:
        """Give an open file a number for the kernel; trio thread only."""
        number = self._next_handle
        self._next_handle += 1
        self._files[number] = OpenFile(handle, inode)
        return number

    def file(self, number: int) -> OpenFile:
        """Return an open file by the number the kernel has; trio thread only. Raises OSError (EBADF)."""
        try:
            return self._files[number]
        except KeyError:
            raise OSError(errno.EBADF, "unknown file handle") from None

    def take_file(self, number: int) -> OpenFile:
        """Remove an open file from the table and return it; trio thread only. Raises OSError (EBADF)."""
        open_file = self.file(number)
        del self._files[number]
        return open_file


def owner_of(ctx: pyfuse3.RequestContext) -> tuple[int, int]:
    """Return uid and gid of the process that made a request."""
    return ctx.uid, ctx.gid
