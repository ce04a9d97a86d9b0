"""How worker threads fill a draft: each takes some chunks, encodes them, and appends the payloads that are next.

A worker may finish its chunks before those that precede them. Then it leaves its payloads and goes on, and the worker
that fills the gap appends them, too. So no thread exists only to append. A worker waits only if the others are far
behind, which bounds the payloads in flight and the memory. One file keeps the workers for a bounded time, and then
queues again behind others.
"""

import errno
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from queue import SimpleQueue

from qatqfs.codec import Level
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.draftlock import CommitLock
from qatqfs.store.system.failures import FirstFailure
from qatqfs.store.tuning import DEFAULT_TUNING, Tuning

Payloads = Callable[[int, int], list[bytes]]
"""``payloads(first, stop)`` returns the payloads of these chunks; called on worker threads."""


def fill(
    draft: Draft,
    stop: int,
    payloads: Payloads,
    executor: Executor,
    workers: int,
    *,
    gives_way_to: CommitLock | None = None,
    tuning: Tuning = DEFAULT_TUNING,
) -> None:
    """Append the chunks up to ``stop`` to a draft, or fewer if a commit waits.

    Args:
        draft: only the workers change it until this returns.
        stop: number of chunks that it has afterwards.
        payloads: makes the payloads.
        executor: runs the workers.
        workers: how many of its threads to use.
        gives_way_to: before each hop, the workers check whether a commit waits for this lock, and stop if so.
        tuning: how much a worker takes at a time.

    Raises:
        OSError, QatcError: what reading, encoding or writing raised, or ECANCELED when the executor is shut down.
            The draft must not be used then.
    """
    if draft.count < stop:
        _Filling(draft, stop, payloads, workers, gives_way_to, tuning).run(executor)


def _closing() -> OSError:
    return OSError(errno.ECANCELED, "the store is being closed")


def _failure_of(future: "Future[None]") -> BaseException | None:
    try:
        return future.exception()
    except CancelledError:
        return _closing()


class _Filling:
    """One call of :func:`fill`.

    ``_condition`` protects everything that changes. The worker that set ``_appending`` owns the draft.
    """

    def __init__(
        self,
        draft: Draft,
        stop: int,
        payloads: Payloads,
        workers: int,
        gives_way_to: CommitLock | None,
        tuning: Tuning,
    ) -> None:
        self._draft = draft
        self._stop = stop
        self._payloads = payloads
        wanted = stop - draft.count
        size = tuning.small_level_hop_bytes if draft.level is Level.SMALL else tuning.hop_bytes
        most = max(1, min(size, tuning.in_flight_bytes // workers) // draft.chunk_size)
        self._hop = min(most, -(-wanted // (workers * tuning.hops_per_worker)))
        self._workers = min(workers, -(-wanted // self._hop))
        self._turn = max(1, tuning.turn_bytes // (self._hop * draft.chunk_size))  # hops before a worker queues again
        self._most_ahead = self._workers * (1 + tuning.hops_per_worker) * self._hop  # chunks taken, not appended
        self._gives_way_to = gives_way_to
        self._condition = threading.Condition()
        self._taken = draft.count  # chunks that a worker has taken so far
        self._made: dict[int, list[bytes]] = {}  # payloads that wait for earlier ones, by their first chunk
        self._appending = False
        self._ending = False

    def run(self, executor: Executor) -> None:
        """Run the workers until all is appended or one of them fails; raises what the first failure was."""
        failure = FirstFailure()
        ended: BaseException | None = None
        finished: SimpleQueue[Future[None]] = SimpleQueue()  # cancelled futures come here, too
        running = 0
        try:
            wanted = self._workers
            while wanted or running:
                for _ in range(wanted):
                    executor.submit(self._work).add_done_callback(finished.put)
                    running += 1
                ended = _failure_of(finished.get())
                running -= 1
                failure.note(ended)
                wanted = int(not failure and not self._ending)
        except RuntimeError:  # the executor is shut down
            failure.note(_closing())
        finally:
            self._end()
            while running:
                finished.get()
                running -= 1
            ended = None
        failure.raise_it()

    def _end(self) -> None:
        with self._condition:
            self._ending = True
            self._condition.notify_all()

    def _work(self) -> None:
        try:
            for _ in range(self._turn):
                first = self._take()
                if first is None:
                    return
                self._append(first, self._payloads(first, min(first + self._hop, self._stop)))
        except BaseException:
            self._end()
            raise

    def _take(self) -> int | None:
        """Return the first chunk of the next hop, ``None`` when there is none."""
        with self._condition:
            while True:
                if self._taken >= self._stop or (self._gives_way_to is not None and self._gives_way_to.wanted):
                    self._ending = True
                if self._ending:
                    return None
                if self._taken - self._draft.count < self._most_ahead:
                    break
                self._condition.wait()
            first = self._taken
            self._taken = min(first + self._hop, self._stop)
            return first

    def _append(self, first: int, payloads: list[bytes]) -> None:
        """Hand in the payloads from chunk ``first`` on, and append all payloads whose turn it is."""
        with self._condition:
            self._made[first] = payloads
            if self._appending:
                return
            self._appending = True
        while True:
            with self._condition:
                ready = self._made.pop(self._draft.count, None)
                if ready is None:
                    self._appending = False
                    return
            self._draft.append(ready)  # if this fails, _appending stays set and no worker appends any more
            with self._condition:
                self._condition.notify_all()
