"""The lock of whoever makes a file's container: its commit, or the encoder ahead, which gives way to it.

A commit is waited for, encoding ahead by nobody. A plain lock would let the encoder hold it for as long as a writer
goes on, and take it again before a waiting commit has woken up. So commits say that they wait, and the encoder,
which looks every few chunks, stops and keeps away.
"""

import threading


class CommitLock:
    """A context manager for commits; :meth:`try_to_encode_ahead` and :meth:`release` for the encoder ahead."""

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
        """Give the lock back."""
        self._lock.release()
