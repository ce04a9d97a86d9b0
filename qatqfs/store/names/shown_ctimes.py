"""What a commit does to times, and how that is hidden.

To a program nothing happens to a file when it is committed. On disk a new container is renamed over the old one. That
sets the file's ctime to now, and mtime and ctime of the directory too, although no program changed a name. tar reports
a file or directory whose ctime changes while it is read. rsync reports one whose mtime is not what it set.

So a commit restores the mtime of the directory. A ctime cannot be set, so a table says which ctime to show instead. An
item of the table counts only while the ctime on disk is the one that the commit left. The table is not stored: after a
remount a file may show the ctime of its commit.
"""

import contextlib
import os
import threading
from collections.abc import Iterator

from cachetools import LRUCache

from qatqfs.store.attributes import Attributes, Key, key_of
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd

_REMEMBERED = 100_000


class CommitTimes:
    """The ctimes to show. Any thread may call the methods; one lock protects the table.

    Args:
        io: sets times of directories.
    """

    def __init__(self, io: BackingIO) -> None:
        self._io = io
        self._lock = threading.Lock()
        self._shown: LRUCache[Key, tuple[int, int]] = LRUCache(_REMEMBERED)  # ctime on disk, ctime to show

    def ctime_ns(self, attributes: Attributes) -> int:
        """Return the ctime to show for attributes as they are on disk, in nanoseconds."""
        return self._to_show(attributes.key, attributes.ctime_ns)

    def _to_show(self, key: Key, on_disk_ns: int) -> int:
        with self._lock:
            known = self._shown.get(key)
        return known[1] if known is not None and known[0] == on_disk_ns else on_disk_ns

    def committed(self, st: os.stat_result, ctime_ns: int) -> None:
        """Remember the ctime that a file showed before a new container took its place."""
        self._note(key_of(st), st.st_ctime_ns, ctime_ns)

    def _note(self, key: Key, on_disk_ns: int, shown_ns: int) -> None:
        with self._lock:
            self._shown[key] = on_disk_ns, min(shown_ns, on_disk_ns)

    @contextlib.contextmanager
    def unchanged(self, directory: int) -> Iterator[None]:
        """Hide the change of names in a directory as far as possible; namespace lock held.

        Raises:
            OSError: its times cannot be read; nothing is done.
        """
        before, fd = os.fstat(directory), Fd(os.dup(directory))
        yield
        with contextlib.suppress(OSError):  # for example another user's directory; the names stay changed
            self._io.set_times(fd, before.st_atime_ns, before.st_mtime_ns)
            after = os.fstat(directory)
            self._note(key_of(after), after.st_ctime_ns, self._to_show(key_of(before), before.st_ctime_ns))
