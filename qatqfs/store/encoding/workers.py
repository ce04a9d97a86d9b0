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

HOP_BYTES = 4 << 20
"""Raw bytes that a worker takes at a time, at most. Each hop takes the interpreter's lock some times, and may wait for
it until a thread that has it gets a processor again: with 512 KiB, encoding ahead stood still half of the time."""
_SLOW_HOP_BYTES = 512 << 10
"""The same at level ``small``, which takes a second for as much."""
_IN_FLIGHT_BYTES = 32 << 20
"""Raw bytes that all workers together have at a time, at most: with many of them each takes less."""
_BYTES_IN_A_ROW = 16 << 20
"""Raw bytes of one file that a worker encodes before it queues again."""
_HOPS_PER_WORKER = 2
"""Into at least how many hops for each worker what is to be done is parted, lest one of them be idle in the end; and by
how many of them the last taken may be before the last appended, beside what the workers have in hand."""

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
) -> None:
    """Append the chunks up to ``stop`` to a draft, or fewer if a commit waits.

    Args:
        draft: only the workers change it until this returns.
        stop: number of chunks that it has afterwards.
        payloads: makes the payloads.
        executor: runs the workers.
        workers: how many of its threads to use.
        gives_way_to: before each hop, the workers check whether a commit waits for this lock, and stop if so.

    Raises:
        OSError, QatcError: what reading, encoding or writing raised, or ECANCELED when the executor is shut down.
            The draft must not be used then.
    """
    if draft.count < stop:
        _Filling(draft, stop, payloads, workers, gives_way_to).run(executor)


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
        self, draft: Draft, stop: int, payloads: Payloads, workers: int, gives_way_to: CommitLock | None
    ) -> None:
        self._draft = draft
        self._stop = stop
        self._payloads = payloads
        wanted = stop - draft.count
        size = _SLOW_HOP_BYTES if draft.level is Level.SMALL else HOP_BYTES
        most = max(1, min(size, _IN_FLIGHT_BYTES // workers) // draft.chunk_size)
        self._hop = min(most, -(-wanted // (workers * _HOPS_PER_WORKER)))
        self._workers = min(workers, -(-wanted // self._hop))
        self._gives_way_to = gives_way_to
        self._condition = threading.Condition()
        self._taken = draft.count  # chunks that a worker has taken so far
        self._made: dict[int, list[bytes]] = {}  # payloads that wait for earlier ones, by their first chunk
        self._appending = False
        self._ending = False

    def run(self, executor: Executor) -> None:
        """Run the workers until all is appended or one of them fails; raises what the first failure was."""
        failure: BaseException | None = None
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
                failure = failure or ended
                wanted = int(failure is None and not self._ending)
        except RuntimeError:  # the executor is shut down
            failure = failure or _closing()
        finally:
            self._end()
            while running:
                finished.get()
                running -= 1
            ended = None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it refers to this frame, and such a cycle would keep files open

    def _end(self) -> None:
        with self._condition:
            self._ending = True
            self._condition.notify_all()

    def _work(self) -> None:
        try:
            for _ in range(max(1, _BYTES_IN_A_ROW // (self._hop * self._draft.chunk_size))):
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
                if self._taken - self._draft.count < self._workers * (1 + _HOPS_PER_WORKER) * self._hop:
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
