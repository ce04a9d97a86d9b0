"""Syncs that run in the background, for a client that asks now and then how far they are.

A process that waits in a request to a FUSE daemon cannot be interrupted. So a client that a user may interrupt does not
wait there for the whole sync.
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
        error: once it has, any other failure, else ``None``.
    """

    done: bool
    failures: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None


class Syncs:
    """Runs syncs in the background and remembers how they ended.

    ``_lock`` protects the table.

    Args:
        sync: called with a logical path; raises as :meth:`qatqfs.store.Store.sync`.
    """

    def __init__(self, sync: Callable[[bytes], None]) -> None:
        self._sync = sync
        self._executor = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="qatqfs-sync")
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._known: OrderedDict[int, tuple[bytes, Future[SyncState]]] = OrderedDict()

    def start(self, below: bytes) -> int:
        """Start a sync of everything at or below a logical path; returns its number."""
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
        """Wait a little for the end of a sync; return its path and how far it is.

        Args:
            number: what :meth:`start` returned.
            wait_s: seconds to wait at most.

        Raises:
            KeyError: no sync has this number, or it is forgotten.
        """
        with self._lock:
            below, future = self._known[number]
        if not wait([future], wait_s).done:
            return below, SyncState(done=False)
        if future.cancelled():
            return below, SyncState(done=True, error="the store is being closed")
        return below, future.result()

    def stop(self) -> None:
        """Wait for the syncs that are under way, and cancel the others."""
        self._executor.shutdown(cancel_futures=True)
