"""When commits happen: a table of due times, and threads that do what is due.

* A file is committed at once when its last writer closes it. A file that stays open is committed when it has rested
  for a second.
* Some commits write much more than was changed, as when a little is appended to a large file. Such a file has to rest
  in proportion to what its commit writes. The rest doubles each time the file is rewritten soon after its last commit,
  up to five minutes. Its content is safe in staging meanwhile; a new container for each append would wear out the disk.
* A failed commit is tried again after growing pauses. Until one succeeds the file is served from staging.
* :meth:`Committer.commit_all` commits everything now.
"""

import errno
import heapq
import itertools
import logging
import os
import threading
import time

from cachetools import LRUCache

from qatqfs.store.commit.engine import CommitEngine
from qatqfs.store.errors import NotCommitted
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.wording import describe, shown_path

log = logging.getLogger(__name__)

_REMEMBERED = 10_000


def _reason(err: Exception) -> str:
    """Return why a commit failed, without the file's name."""
    return (err.strerror if isinstance(err, OSError) else None) or str(err) or type(err).__name__


class Committer:
    """Calls the engine when a commit is due, on background threads, and at once for a sync.

    ``_condition`` protects the tables.

    Args:
        tree: the names.
        engine: commits a node.
    """

    def __init__(self, tree: Tree, engine: CommitEngine) -> None:
        self._tree = tree
        self._engine = engine
        self._options = tree.context.options
        self._tuning = self._options.tuning
        self._counters = tree.context.reading.counters
        self._condition = threading.Condition()
        self._due: dict[Node, int] = {}  # its number in the queue
        self._queue: list[tuple[float, int]] = []  # a heap of due times and numbers; numbers without a node are skipped
        self._waiting: dict[int, Node] = {}  # the node of each number
        self._serial = itertools.count()
        self._pause: dict[Node, float] = {}
        self._rewrites: LRUCache[bytes, tuple[int, float]] = LRUCache(_REMEMBERED)  # by path: how often, when last
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"qatqfs-commit-{i}", daemon=True)
            for i in range(self._options.workers)
        ]

    def start(self) -> None:
        """Start the background threads."""
        for thread in self._threads:
            thread.start()

    # -- when ------------------------------------------------------------------------------------------

    def dirtied(self, node: Node) -> None:
        """Note that a node got uncommitted content."""
        self._set_due(node, self._rest_while_open(node))

    def released(self, node: Node) -> None:
        """Note that the last writer of a dirty node has closed it."""
        self._set_due(node, self._rest_once_closed(node))

    def _rest_while_open(self, node: Node) -> float:
        return max(self._options.idle_seconds, self._rest_once_closed(node))

    def _rest_once_closed(self, node: Node) -> float:
        """Return the seconds that a closed file has to rest before its commit is worth its cost.

        If there are rules and the file meets none, its name may be a temporary one: it gets a moment to be renamed.
        """
        path = node.path or b""
        options = self._options
        named = options.is_raw(path) or options.rule_dtype(path) is not None
        least = min(self._tuning.rename_s, options.idle_seconds) if options.has_rules and not named else 0.0
        cost = self._cost(node)
        if cost is None:
            return least
        with self._condition:
            times, _ = self._rewrites.get(path, (0, 0.0))
        tuning = self._tuning
        rest: float = tuning.cost_factor * cost / tuning.assumed_bytes_per_s * 2**times
        return max(least, min(rest, tuning.longest_rest_s))

    def _cost(self, node: Node) -> int | None:
        """Return the bytes that a commit writes if they are many compared with what was changed, else ``None``."""
        entry = node.staging
        if entry is None:
            return None
        view = entry.view
        copied = view.base.stored_size if view.base is not None and view.chunks.base_length else 0
        changed = view.chunks.held_bytes(entry.size)
        if copied <= max(self._tuning.cheap_bytes, self._tuning.cheap_factor * changed):
            return None
        return copied + changed

    def _note_rewrite(self, path: bytes, rest: float) -> None:
        now = time.monotonic()
        with self._condition:
            times, last = self._rewrites.get(path, (0, now))
            self._rewrites[path] = (times + 1 if now - last < self._tuning.cost_factor * rest else 0, now)

    def _set_due(self, node: Node, delay: float) -> None:
        with self._condition:
            if node.path is None:
                return  # it is never committed, and the removal of its last name calls forget
            due = time.monotonic() + max(delay, self._pause.get(node, 0.0))
            number = next(self._serial)
            self._waiting.pop(self._due.get(node, -1), None)
            self._due[node], self._waiting[number] = number, node
            heapq.heappush(self._queue, (due, number))
            self._condition.notify()

    def _run(self) -> None:
        while self._commit_next():
            pass

    def _commit_next(self) -> bool:
        """Wait for the next node that is due and commit it; ``False`` at the end.

        This is a function of its own so that a waiting thread keeps no reference to the last node, and no file open.
        """
        node = self._next_due()
        if node is None:
            return False
        try:
            self._commit_if_rested(node)
        except Exception:
            log.exception("%s: could not be committed", shown_path(node.path))
            self._retry_later(node)
        return True

    def _next_due(self) -> Node | None:
        with self._condition:
            while not self._stopping:
                if not self._queue:
                    self._condition.wait()
                    continue
                due, number = self._queue[0]
                wait = due - time.monotonic()
                if number in self._waiting and wait > 0:
                    self._condition.wait(wait)
                    continue
                heapq.heappop(self._queue)
                node = self._waiting.pop(number, None)
                if node is not None:
                    del self._due[node]
                    return node
            return None

    def _commit_if_rested(self, node: Node) -> None:
        rest = self._rest_while_open(node) if node.writers else self._rest_once_closed(node)
        remaining = node.changed_at + rest - time.monotonic()
        if remaining > 0 and node.dirty:
            self._set_due(node, remaining)
            return
        path, costly = node.path, self._cost(node) is not None
        try:
            done = self._engine.commit(node)
        except OSError as err:
            self._report_failure(node, err)
            self._retry_later(node)
            return
        if done and costly and path is not None:
            self._note_rewrite(path, rest)
        if not done or node.dirty:
            self._set_due(node, self._rest_while_open(node))
        self._succeeded(node)

    def _retry_later(self, node: Node) -> None:
        with self._condition:
            if node.path is None:
                return
            pause = min(2 * self._pause.get(node, self._tuning.first_retry_s / 2), self._tuning.longest_retry_s)
            self._pause[node] = pause
        self._set_due(node, pause)

    def _report_failure(self, node: Node, err: Exception) -> None:
        self._counters.add("commit_failures")
        log.error("%s: could not be committed and stays in staging: %s", shown_path(node.path), describe(err))

    def commit_all(self, below: bytes = b"") -> None:
        """Return once everything written so far at or below a logical path is in containers.

        Raises:
            NotCommitted: some files could not be committed; all were tried, and their staging is kept.
            OSError: all are committed, but committed entries could not be removed from staging.
            Exception: a fault of this program.
        """
        unremoved: Exception | None = None
        fault: Exception | None = None
        failures: list[tuple[str, str]] = []
        number = errno.EIO
        try:
            self._engine.remove_committed()
        except OSError as err:
            unremoved = err
        for node in self._tree.dirty_nodes(below):
            try:
                if self._stopping:
                    raise OSError(errno.EBUSY, "the store is being closed")
                self.commit_now(node)
            except Exception as err:
                if not isinstance(err, OSError):
                    log.exception("%s: could not be committed", shown_path(node.path))
                    fault = fault or err
                elif not failures:
                    number = err.errno or errno.EIO
                self._report_failure(node, err)
                self._retry_later(node)
                failures.append((os.fsdecode(node.path or b""), _reason(err)))
        try:
            if fault is not None:
                raise fault
            if failures:
                raise NotCommitted(failures, number)
            if unremoved is not None:
                raise unremoved
        finally:
            del unremoved, fault  # they refer to this frame: without the cycle nothing keeps the files open

    def commit_now(self, node: Node) -> None:
        """Return once everything written to a node so far is in its container; raises OSError."""
        for attempt in range(self._tuning.free_attempts + 1):
            if self._engine.commit(node, exclusive=attempt == self._tuning.free_attempts):
                break
        else:
            if node.dirty and node.path is not None:
                raise OSError(errno.EBUSY, "the file was changed again and again")
        self._succeeded(node)

    def commit_for_close(self, node: Node) -> None:
        """As :meth:`commit_now`, for a close(2) that waits. The program gets the errno; the log names the file."""
        try:
            self.commit_now(node)
        except OSError as err:
            self._report_failure(node, err)
            raise

    def stop(self) -> None:
        """Stop the background threads; call :meth:`commit_all` first to leave nothing in staging."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def forget(self, node: Node) -> None:
        """Forget a node that was removed or has nothing to commit."""
        with self._condition:
            self._pause.pop(node, None)
            self._waiting.pop(self._due.pop(node, -1), None)

    def _succeeded(self, node: Node) -> None:
        """Note that a commit of a node has succeeded."""
        with self._condition:
            self._pause.pop(node, None)
            if not node.dirty:
                self._waiting.pop(self._due.pop(node, -1), None)
