"""Reserve room for commits: each dirty file reserves what its container may take.

A commit needs room for the whole new container beside the old one. So each dirty file reserves the worst case of
encoding what was written to it. The store also keeps free the size of the largest container that a commit would copy.
A write that does not fit beside all this gets ENOSPC at once, when the program can deal with it. So no commit fails
later for want of space, unless other programs fill the disk meanwhile. Such a commit is tried again.

Inodes are space, too. A commit needs one for its container, beside those of the old container and of the entry. Each
dirty file reserves it, and everything that creates files leaves that many free (:meth:`SpaceLedger.new_files`).
Filesystems that create inodes on demand report none at all. Then inodes are not counted.

One lock protects the sums. The free space is queried again after half a second, or when little is left of the last
answer. So a stream of small writes does not cost a system call each.
"""

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Iterator

from qatqfs.store.system.files import Fd

_FRESH_S = 0.5
_AMPLE = 64 << 20
_HEADROOM = 128 << 10
"""Bytes kept free for logs, directory blocks and the rounding of sizes to blocks."""
_PER_CHUNK = 160
_PER_FILE = 16 << 10
_PER_NAME = 8 << 10
"""Bytes that a new file or directory takes: a block for its first content, and a share of a directory block."""
_AMPLE_INODES = 1000


def worst_case(dirty_bytes: int, chunks: int) -> int:
    """Return the most bytes that encoding takes: no strategy makes the content smaller, and framing is added."""
    return dirty_bytes + dirty_bytes // 256 + chunks * _PER_CHUNK + _PER_FILE


def _missing(worst: int, on_disk: int) -> int:
    return max(0, worst - on_disk)


def _missing_inodes(worst: int, on_disk: int) -> int:
    return int(worst > 0 and on_disk == 0)


def no_space() -> OSError:
    """Return ENOSPC."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class SpaceLedger:
    """What the dirty files of a store have reserved.

    Args:
        directory: any directory on the filesystem.
    """

    def __init__(self, directory: Fd) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: dict[bytes, tuple[int, int]] = {}  # worst case, and bytes of the container on disk
        self._copies: dict[bytes, int] = {}
        self._total = 0
        self._largest_copy = 0
        self._left = 0
        self._inodes = 0  # that the files have still to create
        self._being_made = 0
        self._inodes_left = 0
        self._asked_at = float("-inf")

    @property
    def reserved(self) -> int:
        """Bytes that the filesystem reports as free and that are reserved."""
        return self._total + self._largest_copy + _HEADROOM if self._files else 0

    @property
    def reserved_inodes(self) -> int:
        """Inodes that the filesystem reports as free and that are reserved."""
        return self._inodes

    @contextlib.contextmanager
    def new_files(self, count: int, *, later: int = 0) -> Iterator[None]:
        """Let the block create files or directories, if that leaves what commits need.

        Args:
            count: how many the block creates.
            later: how many more the block reserves.

        Raises:
            OSError: ENOSPC, before the block runs.
        """
        with self._lock:
            if self._files:
                self._take(count * _PER_NAME)
            self._take_inodes(count + later)
            self._being_made += count + later
        try:
            yield
        finally:
            with self._lock:
                self._being_made -= count + later

    def leave_room(self, size: int) -> None:
        """Check that so many bytes of no dirty file may be written, which has to leave what commits need.

        Raises:
            OSError: ENOSPC.
        """
        with self._lock:
            if self._files:
                self._take(size)

    def reserve(self, key: bytes, worst: int, writing: int = 0, *, copies: int | None = None) -> None:
        """Change what a file reserves, if there is room for that and for what is being written.

        Args:
            key: names the file.
            worst: most bytes that its container takes, in place of the previous value.
            writing: bytes about to be written as well.
            copies: bytes of the base that a commit of the file copies, if they changed.

        Raises:
            OSError: ENOSPC, and nothing has changed.
        """
        with self._lock:
            before, on_disk = self._files.get(key, (0, 0))
            more = _missing(worst, on_disk) - _missing(before, on_disk) + writing
            if copies is not None and copies > self._largest_copy:
                more += copies - self._largest_copy
            if more > 0:
                self._take(more)
            self._set(key, worst, on_disk)
            if copies is not None:
                self._set_copies(key, copies)

    def _set(self, key: bytes, worst: int, on_disk: int) -> None:
        before = self._files.get(key, (0, 0))
        self._total += _missing(worst, on_disk) - _missing(*before)
        self._inodes += _missing_inodes(worst, on_disk) - _missing_inodes(*before)
        self._files[key] = worst, on_disk

    def written(self, key: bytes, on_disk: int) -> None:
        """Note how many bytes of a file's container are on disk, and so neither free nor reserved; never fails.

        If they get fewer, this has to be called before the space is given back. Otherwise others could take the space
        that is promised.
        """
        with self._lock:
            if key in self._files:
                worst, before = self._files[key]
                self._set(key, worst, on_disk)
                if on_disk < before:
                    self._asked_at = float("-inf")  # more is reserved now than at the last query

    def begin_anew(self, key: bytes) -> bool:
        """Reserve all of a file's container again, beside what is on disk of it; return whether there was room."""
        with self._lock:
            worst, on_disk = self._files.get(key, (0, 0))
            st = os.fstatvfs(self._directory.number)
            more = worst - _missing(worst, on_disk)
            if st.f_bavail * st.f_frsize - self.reserved < more:
                return False
            if st.f_files and st.f_favail <= self._inodes + self._being_made:
                return False
            self._set(key, worst, 0)
            self._asked_at = float("-inf")
            return True

    def _set_copies(self, key: bytes, copies: int) -> None:
        self._copies[key] = copies
        self._largest_copy = max(self._copies.values())

    def _take(self, more: int) -> None:
        if self._is_old() or self._left - more < _AMPLE:
            self._ask()
        if self._left < more:
            raise no_space()
        self._left -= more

    def _take_inodes(self, more: int) -> None:
        if self._is_old() or self._inodes_left - more < _AMPLE_INODES:
            self._ask()
        if self._inodes_left < more:
            raise no_space()
        self._inodes_left -= more

    def _is_old(self) -> bool:
        return time.monotonic() - self._asked_at > _FRESH_S

    def _ask(self) -> None:
        st = os.fstatvfs(self._directory.number)
        self._left = st.f_bavail * st.f_frsize - self._total - self._largest_copy - _HEADROOM
        self._inodes_left = st.f_favail - self._inodes - self._being_made if st.f_files else sys.maxsize
        self._asked_at = time.monotonic()

    def charge(self, key: bytes, worst: int, copies: int) -> None:
        """Set what a file reserves that exists already, whether or not there is room for it; never fails."""
        with self._lock:
            self._set(key, worst, 0)
            self._set_copies(key, copies)

    def lower(self, key: bytes, worst: int) -> None:
        """Reduce what a file reserves to ``worst`` bytes, if it is more; never fails."""
        with self._lock:
            before, on_disk = self._files.get(key, (0, 0))
            if worst < before:
                self._set(key, worst, on_disk)

    def release(self, key: bytes) -> None:
        """Give back all that a file has reserved; never fails."""
        with self._lock:
            before = self._files.pop(key, (0, 0))
            self._total -= _missing(*before)
            self._inodes -= _missing_inodes(*before)
            if self._copies.pop(key, None) is not None:
                self._largest_copy = max(self._copies.values(), default=0)
