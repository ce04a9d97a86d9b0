"""The logical modification time of staged content: the data file's own, even when something else has moved that.

Punching holes into the data file gives space back and changes nothing that a program can read, but moves its mtime.
So the log says first what the mtime is, for whoever comes after a kill, then this object does, for whoever looks
meanwhile, and afterwards the data file's own is set to it again.
"""

import contextlib
import os
from collections.abc import Iterator

from qatqfs.store.staging.log import EntryLog
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd


class StagedTime:
    """See the module's text. The content lock protects changes; anybody may look without it at any time.

    Args:
        io: sets times.
        data: the data file.
        log: of the entry.
    """

    def __init__(self, io: BackingIO, data: Fd, log: EntryLog) -> None:
        self._io = io
        self._data = data
        self._log = log
        self._kept_ns: int | None = None  # the mtime while the data file's own is not to be believed
        self._times_kept = 0  # how often that was so

    def stat(self) -> tuple[os.stat_result, int]:
        """Return the data file's stat, and the logical mtime in nanoseconds."""
        while True:
            mark, kept_ns = self._times_kept, self._kept_ns
            found = os.fstat(self._data.number)
            if kept_ns is not None:
                return found, kept_ns
            if self._times_kept == mark:
                return found, found.st_mtime_ns

    def set(self, mtime_ns: int) -> None:
        """Set the logical mtime in nanoseconds; raises OSError."""
        self.settle()
        self._io.set_times(self._data, None, mtime_ns)

    @contextlib.contextmanager
    def unmoved(self) -> Iterator[None]:
        """Let nobody see that what is done inside moves the data file's mtime; raises OSError before that is done."""
        mtime_ns = self.stat()[1]
        self._log.keep_mtime(mtime_ns)
        self.keep(mtime_ns)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the next change does it
                self.settle()

    def keep(self, mtime_ns: int) -> None:
        """Let this be the logical mtime in nanoseconds, as the log says, until :meth:`settle`."""
        self._kept_ns = mtime_ns
        self._times_kept += 1  # who looked at the data file's own meanwhile has to look again

    def settle(self) -> None:
        """Let the data file's own mtime be the logical one again, before anything changes that; raises OSError."""
        if self._kept_ns is not None:
            self._io.set_times(self._data, None, self._kept_ns)
            self._log.keep_mtime(None)
            self._kept_ns = None
