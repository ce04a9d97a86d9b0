"""Assertions on which locks a thread holds, and in which order it takes them.

A method that needs a lock held says so with :func:`assert_held`. :func:`lock_before` makes a lock that must not be
waited for while another one is held. The assertions are on if ``QATQFS_CHECK_LOCKS`` is set in the environment when
this module is imported, as it is in all tests and in the mounts that tests make. Otherwise :func:`assert_held` does
nothing, and the locks are ordinary ones.
"""

import os
from collections.abc import Callable
from threading import RLock
from typing import Any, cast

VARIABLE = "QATQFS_CHECK_LOCKS"
"""Environment variable that turns the assertions on, whatever its value; unset or empty it leaves them off."""

_CHECKED = bool(os.environ.get(VARIABLE))


def _check(lock: Any) -> None:
    if not lock._is_owned():
        raise AssertionError("a lock that has to be held here is not held by this thread")


def _ignore(lock: Any) -> None:
    pass


class _LockBefore:
    """An RLock; see :func:`lock_before`."""

    def __init__(self, later: Any) -> None:
        self._lock: Any = RLock()
        self._later = later

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking and self._later._is_owned() and not self._lock._is_owned():
            raise AssertionError("a lock is waited for while a lock that comes after it is held")
        return bool(self._lock.acquire(blocking, timeout))

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())


def lock_before(later: RLock) -> RLock:
    """Return a new lock that comes before another one in the lock order.

    While the assertions are on, waiting for it with the other lock held raises AssertionError.
    """
    return cast(RLock, _LockBefore(later)) if _CHECKED else RLock()


assert_held: Callable[[RLock], None] = _check if _CHECKED else _ignore
"""Raise AssertionError if the calling thread does not hold a lock; does nothing while the assertions are off."""
