"""Assertions on who holds a lock.

A method that needs a lock held says so with :func:`assert_held`. The assertions are on if ``QATQFS_CHECK_LOCKS`` is
set in the environment when this module is imported, as it is in all tests and in the mounts that tests make. Otherwise
:func:`assert_held` does nothing.
"""

import os
from collections.abc import Callable
from threading import RLock
from typing import Any

VARIABLE = "QATQFS_CHECK_LOCKS"
"""Environment variable that turns the assertions on, whatever its value; unset or empty it leaves them off."""


def _check(lock: Any) -> None:
    if not lock._is_owned():
        raise AssertionError("a lock that has to be held here is not held by this thread")


def _ignore(lock: Any) -> None:
    pass


assert_held: Callable[[RLock], None] = _check if os.environ.get(VARIABLE) else _ignore
"""Raise AssertionError if the calling thread does not hold a lock; does nothing while the assertions are off."""
