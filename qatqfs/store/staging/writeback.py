"""Has the disk write a file while it still grows, so that little is left when somebody waits for all of it.

The kernel begins to write a file when it is some seconds old or much of memory is dirty. A large container would be
complete by then, and the fsync that makes it durable would take as long as writing all of it does. So its disk blocks
are asked for every few megabytes, which hardly waits, and every now and then it is made durable as far as it is,
on a thread of its own, because that waits for the disk.
"""

from concurrent.futures import Executor, Future

from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd
from qatqfs.store.tuning import DEFAULT_TUNING, Tuning


class WriteBack:
    """Of one file; whoever makes it grow calls, one thread at a time.

    Args:
        io: makes the calls.
        fd: the file.
        executor: one thread that may wait for the disk.
        tuning: after how many bytes it does what.
    """

    def __init__(self, io: BackingIO, fd: Fd, executor: Executor, tuning: Tuning = DEFAULT_TUNING) -> None:
        self._io = io
        self._fd = fd
        self._executor = executor
        self._tuning = tuning
        self._begun = 0
        self._synced = 0
        self._sync: Future[None] | None = None

    def grown(self, size: int) -> None:
        """Note the size that the file has now in bytes.

        Raises:
            OSError: it could not be made durable, which is said once: the file is good for nothing.
        """
        if size - self._begun < self._tuning.writeback_bytes:
            return
        self._io.write_back(self._fd, self._begun, size - self._begun)
        self._begun = size
        if size - self._synced >= self._tuning.writeback_fsync_bytes and (self._sync is None or self._sync.done()):
            self.settle()
            self._synced = size
            self._sync = self._executor.submit(self._io.fdatasync, self._fd)

    def cut(self, size: int) -> None:
        """Note that the file was cut to so many bytes."""
        self._begun = min(self._begun, size)
        self._synced = min(self._synced, size)

    def settle(self) -> None:
        """Return when nothing is under way; raises OSError as :meth:`grown` does."""
        sync, self._sync = self._sync, None
        if sync is not None:
            sync.result()
