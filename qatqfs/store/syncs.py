"""Syncs that somebody has asked for and looks after now and then, without being held up meanwhile.

A process that waits in a request to a FUSE daemon cannot be interrupted, so whoever may want to leave does not wait
there for long.
"""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from qatqfs.store.errors import NotCommitted
from qatqfs.wording import describe

_AT_ONCE = 4
_MOST_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class SyncState:
    """How far a sync is.

    Attributes:
        done: whether it has ended.
        failures: once it has, logical path and reason of what could not be committed.
        error: once it has, what else went wrong, ``None`` if nothing did.
    """

    done: bool
    failures: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None


class Syncs:
    """Runs syncs in the background and remembers how they ended.

    ``_lock`` protects the table.

    Args:
        sync: what to call with a logical path; raises as :meth:`qatqfs.store.Store.sync`.
    """

    def __init__(self, sync: Callable[[bytes], None]) -> None:
        self._sync = sync
        self._executor = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="qatqfs-sync")
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._known: OrderedDict[int, tuple[bytes, Future[SyncState]]] = OrderedDict()

    def start(self, below: bytes) -> int:
        """Begin to sync what is at or below a logical path; returns a number to ask for it by."""
        with self._lock:
            number = next(self._numbers)
            self._known[number] = (below, self._executor.submit(self._outcome, below))
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
            return number

    def _outcome(self, below: bytes) -> SyncState:
        """Sync, and return how it ended: an error that is remembered would keep the files open that it is about."""
        try:
            self._sync(below)
        except NotCommitted as err:
            return SyncState(done=True, failures=err.failures)
        except BaseException as err:
            return SyncState(done=True, error=describe(err))
        return SyncState(done=True)

    def look(self, number: int, wait_s: float) -> tuple[bytes, SyncState]:
        """Return the path of a sync and how far it is, having waited for its end a little.

        Args:
            number: what :meth:`start` returned.
            wait_s: seconds to wait at most.

        Raises:
            KeyError: it is not known (any more).
        """
        with self._lock:
            below, future = self._known[number]
        if not wait([future], wait_s).done:
            return below, SyncState(done=False)
        if future.cancelled():
            return below, SyncState(done=True, error="the store is being closed")
        return below, future.result()

    def stop(self) -> None:
        """Wait for the syncs that are under way, and begin no other."""
        self._executor.shutdown(cancel_futures=True)
