"""Requests of programs that fail for lack of space: each is counted, and the log says so once a minute.

A program may go on writing while each of its requests fails. One line of the log a minute is enough to say why.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable

from qatqfs.store.facade import FileStore
from qatqfs.wording import shown_path

log = logging.getLogger(__name__)

_QUIET_S = 60.0


class NoSpaceLog:
    """Counts and logs; any thread may call :meth:`count` and :meth:`say`.

    ``_silent_until`` (monotonic seconds) and ``_unsaid`` belong to ``_lock``.

    Args:
        store: gets the counter, and knows how much is free.
    """

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._silent_until = float("-inf")
        self._unsaid = 0

    def count(self, err: OSError) -> bool:
        """Count a request if it failed for lack of space; returns whether it is time for :meth:`say`."""
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            return False
        self._store.counters.add("no_space_errors")
        with self._lock:
            self._unsaid += 1
            now = time.monotonic()
            if now < self._silent_until:
                return False
            self._silent_until = now + _QUIET_S
            return True

    def say(self, request: str, find_path: Callable[[], bytes], text: str) -> None:
        """Write the line.

        Args:
            request: the request that failed, by its name in FUSE.
            find_path: returns the logical path it was about; may raise OSError.
            text: the error's.
        """
        with self._lock:
            failures, self._unsaid = self._unsaid, 0
        try:
            path = shown_path(find_path())
            st = self._store.statvfs()
        except Exception:  # for example the file was removed; a line of the log is not worth an error
            log.warning("%s failed: %s; %d such failures since this was said last", request, text, failures)
            return
        log.warning(
            "%s: %s failed: %s; %d bytes are free beside what commits are going to need;"
            " %d such failures since this was said last",
            *(path, request, text, st.f_bavail * st.f_frsize, failures),
        )
