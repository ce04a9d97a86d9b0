"""The logical modification time of a dirty file: the data file's own, except while holes are punched into it.

Punching holes into the data file gives space back and changes nothing that a program can read, but it moves the mtime.
So the mtime is first recorded in the log, for recovery after a kill. Then this object keeps it, for readers meanwhile.
Afterwards the data file's own mtime is set to it again.
"""

import contextlib
import os
from collections.abc import Iterator

from qatqfs.store.staging.log import EntryLog
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.files import Fd


class LogicalMtime:
    """The logical mtime of one entry. The content lock protects changes; any thread may read without it at any time.

    Args:
        io: sets times.
        data: the data file.
        log: of the entry.
    """

    def __init__(self, io: BackingIO, data: Fd, log: EntryLog) -> None:
        self._io = io
        self._data = data
        self._log = log
        self._kept_ns: int | None = None  # the logical mtime while the data file's own differs
        self._times_kept = 0  # how often it differed

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
        self.restore()
        self._io.set_times(self._data, None, mtime_ns)

    @contextlib.contextmanager
    def unmoved(self) -> Iterator[None]:
        """Hide that the block moves the data file's mtime; raises OSError before the block runs."""
        mtime_ns = self.stat()[1]
        self._log.keep_mtime(mtime_ns)
        self.keep(mtime_ns)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # else the next change of the content restores it
                self.restore()

    def keep(self, mtime_ns: int) -> None:
        """Take this as the logical mtime in nanoseconds, which the log has already, until :meth:`restore`."""
        self._kept_ns = mtime_ns
        self._times_kept += 1  # a reader that is between two looks at the data file looks again

    def restore(self) -> None:
        """Set the data file's own mtime to the logical one again, before the content changes; raises OSError."""
        if self._kept_ns is not None:
            self._io.set_times(self._data, None, self._kept_ns)
            self._log.keep_mtime(None)
            self._kept_ns = None
