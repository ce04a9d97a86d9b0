"""The lock under which a file's container is made, by its commit or by the encoder ahead, which gives way to it.

Programs wait for a commit, but not for encoding ahead. With a plain lock, the encoder could hold the lock as long as a
writer goes on, and take it again before a waiting commit has woken up. So commits note that they wait. The encoder
checks this every few chunks, stops, and does not take the lock again while a commit waits.
"""

import threading


class CommitLock:
    """A context manager for commits. The encoder ahead uses :meth:`try_to_encode_ahead` and :meth:`release`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0

    @property
    def wanted(self) -> bool:
        """Whether a commit waits."""
        return self._waiting > 0

    def __enter__(self) -> None:
        with self._counting:
            self._waiting += 1
        try:
            self._lock.acquire()
        finally:
            with self._counting:
                self._waiting -= 1

    def __exit__(self, *_: object) -> None:
        self.release()

    def try_to_encode_ahead(self) -> bool:
        """Take the lock, unless a commit has it or waits for it."""
        return not self.wanted and self._lock.acquire(blocking=False)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()
