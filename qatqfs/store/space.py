"""Room for commits: what is written to staging reserves what its container will take.

A commit needs room for the whole new container beside the old one. So each dirty file reserves the worst case of
encoding what was written to it, and the store keeps free the largest container that a commit would copy. A write
that does not fit beside that gets ENOSPC at once, where the program can deal with it, and no commit fails later
for want of space. Space that others take meanwhile cannot be prevented: then a commit fails after all, and is
tried again.

One lock guards the sums. Free space is asked for again when half a second has passed or what was left of the
last answer gets scarce, so a stream of small writes does not make a system call each.
"""

import errno
import os
import threading
import time

from qatqfs.store.sysfile import Fd

_FRESH_S = 0.5
_AMPLE = 64 << 20
_HEADROOM = 128 << 10
"""Bytes kept free for logs, directory blocks and the rounding of sizes to blocks."""
_PER_CHUNK = 160
_PER_FILE = 16 << 10


def worst_case(dirty_bytes: int, chunks: int) -> int:
    """Return the most that so many bytes take when no strategy makes them smaller, framing included."""
    return dirty_bytes + dirty_bytes // 256 + chunks * _PER_CHUNK + _PER_FILE if dirty_bytes or chunks else 0


class SpaceLedger:
    """What the dirty files of a store have reserved.

    Args:
        directory: on the filesystem in question.
    """

    def __init__(self, directory: Fd) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: dict[bytes, tuple[int, int]] = {}  # worst case, and how much of it is on disk already
        self._copies: dict[bytes, int] = {}
        self._total = 0
        self._largest_copy = 0
        self._left = 0
        self._asked_at = float("-inf")

    @property
    def reserved(self) -> int:
        """Bytes that are not free although the filesystem says so."""
        return max(0, self._total) + self._largest_copy + _HEADROOM if self._files else 0

    def has_room(self, size: int) -> bool:
        """Whether so many bytes are free beside all that is reserved."""
        st = os.fstatvfs(self._directory.number)
        with self._lock:
            return st.f_bavail * st.f_frsize - self.reserved >= size

    def reserve(self, key: bytes, worst: int, writing: int = 0, *, done: int = 0, copies: int | None = None) -> None:
        """Let a file reserve this much from now on, if there is room for that and for what is being written.

        Args:
            key: names the file.
            worst: bytes that its container takes at most, in place of what was said before.
            writing: bytes about to be written besides.
            done: bytes of the container that are on disk already.
            copies: bytes of the old container that a commit of it copies, if that changed.

        Raises:
            OSError: ENOSPC, and nothing has changed.
        """
        with self._lock:
            before, _ = self._files.get(key, (0, 0))
            self._set(key, before, done)  # what is on disk by now is neither free nor reserved any more
            more = worst - before + writing
            if copies is not None and copies > self._largest_copy:
                more += copies - self._largest_copy
            if more > 0:
                self._take(more)
            self._set(key, worst, done)
            if copies is not None:
                self._set_copies(key, copies)

    def _set(self, key: bytes, worst: int, done: int) -> None:
        old_worst, old_done = self._files.get(key, (0, 0))
        self._files[key] = worst, done
        self._total += (worst - done) - (old_worst - old_done)

    def _set_copies(self, key: bytes, copies: int) -> None:
        self._copies[key] = copies
        self._largest_copy = max(self._copies.values())

    def _take(self, more: int) -> None:
        now = time.monotonic()
        if now - self._asked_at > _FRESH_S or self._left - more < _AMPLE:
            st = os.fstatvfs(self._directory.number)
            self._left = st.f_bavail * st.f_frsize - max(0, self._total) - self._largest_copy - _HEADROOM
            self._asked_at = now
        if self._left < more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._left -= more

    def charge(self, key: bytes, worst: int, copies: int) -> None:
        """As :meth:`reserve` for what is there already: never fails, whatever is free."""
        with self._lock:
            self._set(key, worst, 0)
            self._set_copies(key, copies)

    def lower(self, key: bytes, worst: int) -> None:
        """Let a file reserve less; never fails."""
        with self._lock:
            before, done = self._files.get(key, (0, 0))
            if worst < before:
                self._set(key, worst, min(done, worst))

    def release(self, key: bytes) -> None:
        """Give back all that a file has reserved."""
        with self._lock:
            worst, done = self._files.pop(key, (0, 0))
            self._total -= worst - done
            if self._copies.pop(key, None) is not None:
                self._largest_copy = max(self._copies.values(), default=0)
