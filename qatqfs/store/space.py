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


def _missing(worst: int, on_disk: int) -> int:
    return max(0, worst - on_disk)


class SpaceLedger:
    """What the dirty files of a store have reserved.

    Args:
        directory: on the filesystem in question.
    """

    def __init__(self, directory: Fd) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: dict[bytes, tuple[int, int]] = {}  # worst case, and how much of the container is on disk
        self._copies: dict[bytes, int] = {}
        self._total = 0
        self._largest_copy = 0
        self._left = 0
        self._asked_at = float("-inf")

    @property
    def reserved(self) -> int:
        """Bytes that are not free although the filesystem says so."""
        return self._total + self._largest_copy + _HEADROOM if self._files else 0

    def reserve(self, key: bytes, worst: int, writing: int = 0, *, copies: int | None = None) -> None:
        """Let a file reserve this much from now on, if there is room for that and for what is being written.

        Args:
            key: names the file.
            worst: bytes that its container takes at most, in place of what was said before.
            writing: bytes about to be written besides.
            copies: bytes of the old container that a commit of it copies, if that changed.

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
        self._total += _missing(worst, on_disk) - _missing(*self._files.get(key, (0, 0)))
        self._files[key] = worst, on_disk

    def written(self, key: bytes, on_disk: int) -> None:
        """Note how many bytes of a file's container are on disk: neither free nor reserved any more. Never fails.

        For fewer than before this has to be called before the space is given back, or others take what is promised.
        """
        with self._lock:
            if key in self._files:
                worst, before = self._files[key]
                self._set(key, worst, on_disk)
                if on_disk < before:
                    self._asked_at = float("-inf")  # more is reserved than what was left knows of

    def begin_anew(self, key: bytes) -> bool:
        """Let all of a file's container be reserved again, if there is room for it beside what is on disk of it."""
        with self._lock:
            worst, on_disk = self._files.get(key, (0, 0))
            st = os.fstatvfs(self._directory.number)
            more = worst - _missing(worst, on_disk)
            if st.f_bavail * st.f_frsize - self.reserved < more:
                return False
            self._set(key, worst, 0)
            self._asked_at = float("-inf")
            return True

    def _set_copies(self, key: bytes, copies: int) -> None:
        self._copies[key] = copies
        self._largest_copy = max(self._copies.values())

    def _take(self, more: int) -> None:
        now = time.monotonic()
        if now - self._asked_at > _FRESH_S or self._left - more < _AMPLE:
            st = os.fstatvfs(self._directory.number)
            self._left = st.f_bavail * st.f_frsize - self._total - self._largest_copy - _HEADROOM
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
            before, on_disk = self._files.get(key, (0, 0))
            if worst < before:
                self._set(key, worst, on_disk)

    def release(self, key: bytes) -> None:
        """Give back all that a file has reserved."""
        with self._lock:
            self._total -= _missing(*self._files.pop(key, (0, 0)))
            if self._copies.pop(key, None) is not None:
                self._largest_copy = max(self._copies.values(), default=0)
