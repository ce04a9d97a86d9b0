"""Room for commits: what is written to staging reserves what its container will take.

A commit needs room for the whole new container beside the old one. So each dirty file reserves the worst case of
encoding what was written to it, and the store keeps free the largest container that a commit would copy. A write
that does not fit beside that gets ENOSPC at once, where the program can deal with it, and no commit fails later
for want of space. Space that others take meanwhile cannot be prevented: then a commit fails after all, and is
tried again.

Inodes are space, too: a commit needs one for its container beside those of the old container and of staging. Each
dirty file reserves it, and whatever makes files leaves that many (:meth:`SpaceLedger.new_files`). Filesystems that
make inodes as they need them say that they have none at all; then nothing is counted.

One lock guards the sums. Free space is asked for again when half a second has passed or what was left of the
last answer gets scarce, so a stream of small writes does not make a system call each.
"""

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Iterator

from qatqfs.store.system.fd import Fd

_FRESH_S = 0.5
_AMPLE = 64 << 20
_HEADROOM = 128 << 10
"""Bytes kept free for logs, directory blocks and the rounding of sizes to blocks."""
_PER_CHUNK = 160
_PER_FILE = 16 << 10
_PER_NAME = 8 << 10
"""Bytes that something new takes: a block for its first content, and a share of a directory block."""
_AMPLE_INODES = 1000


def worst_case(dirty_bytes: int, chunks: int) -> int:
    """Return the most that so many bytes take when no strategy makes them smaller, framing included."""
    return dirty_bytes + dirty_bytes // 256 + chunks * _PER_CHUNK + _PER_FILE


def _missing(worst: int, on_disk: int) -> int:
    return max(0, worst - on_disk)


def _missing_inodes(worst: int, on_disk: int) -> int:
    return int(worst > 0 and on_disk == 0)


def _no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
        self._inodes = 0  # what the files have still to make
        self._being_made = 0
        self._inodes_left = 0
        self._asked_at = float("-inf")

    @property
    def reserved(self) -> int:
        """Bytes that are not free although the filesystem says so."""
        return self._total + self._largest_copy + _HEADROOM if self._files else 0

    @property
    def reserved_inodes(self) -> int:
        """Inodes that are not free although the filesystem says so."""
        return self._inodes

    @contextlib.contextmanager
    def new_files(self, count: int, *, later: int = 0) -> Iterator[None]:
        """Let files, directories or the like be made inside, if that leaves what commits need.

        Args:
            count: how many.
            later: how many more the caller is going to reserve inside.

        Raises:
            OSError: ENOSPC, before anything is made.
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
        """Let so many bytes be written that belong to no dirty file, if that leaves what commits need.

        Raises:
            OSError: ENOSPC.
        """
        with self._lock:
            if self._files:
                self._take(size)

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
        before = self._files.get(key, (0, 0))
        self._total += _missing(worst, on_disk) - _missing(*before)
        self._inodes += _missing_inodes(worst, on_disk) - _missing_inodes(*before)
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
            raise _no_space()
        self._left -= more

    def _take_inodes(self, more: int) -> None:
        if self._is_old() or self._inodes_left - more < _AMPLE_INODES:
            self._ask()
        if self._inodes_left < more:
            raise _no_space()
        self._inodes_left -= more

    def _is_old(self) -> bool:
        return time.monotonic() - self._asked_at > _FRESH_S

    def _ask(self) -> None:
        st = os.fstatvfs(self._directory.number)
        self._left = st.f_bavail * st.f_frsize - self._total - self._largest_copy - _HEADROOM
        self._inodes_left = st.f_favail - self._inodes - self._being_made if st.f_files else sys.maxsize
        self._asked_at = time.monotonic()

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
            before = self._files.pop(key, (0, 0))
            self._total -= _missing(*before)
            self._inodes -= _missing_inodes(*before)
            if self._copies.pop(key, None) is not None:
                self._largest_copy = max(self._copies.values(), default=0)
