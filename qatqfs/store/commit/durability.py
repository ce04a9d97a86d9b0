"""Makes content durable some seconds after it was written, without an fsync of the program.

Every few seconds a thread looks at the files that got uncommitted content, and at containers that are in place but not
durable. No writer waits for it. It holds a content lock only to mark what a file is
(:meth:`qatqfs.store.staging.log.EntryLog.mark`), and waits for the disk without any lock. The record that it writes
afterwards covers what was marked, whatever has been written since.

The order is that of fsync(2), for all files together: first the bases and their names, then the data files, then the
logs. A few files are made durable one by one. For many files, and for containers that are not open any more, one
syncfs(2) does it. Each file gets its fsync even then: it costs nothing, and only there the system reports which file
could not be written.
"""

import logging
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qatqfs.store.names.node import Node
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.log import Mark
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.calls import yield_to_others
from qatqfs.store.system.failures import FirstFailure
from qatqfs.store.system.fd import Fd

log = logging.getLogger(__name__)

_FEW = 8
"""Up to this many files are made durable one by one."""


@dataclass(frozen=True, slots=True)
class _Marked:
    node: Node
    entry: StagingEntry
    mark: Mark
    sequence: int


class Durability:
    """See the module's text. ``_condition`` protects the sets of what is not durable.

    Args:
        io: makes the calls.
        root: open descriptor of BACKING.
        seconds: between two passes, 0 for none.
    """

    def __init__(self, io: BackingIO, root: Fd, seconds: float) -> None:
        self._io = io
        self._root = root
        self._seconds = seconds
        self._condition = threading.Condition()
        self._nodes: weakref.WeakSet[Node] = weakref.WeakSet()  # may have content that is not durable
        self._containers = False  # some container is not durable
        self._stopping = False
        self._passes = threading.Lock()  # held during a pass
        self._thread = threading.Thread(target=self._run, name="qatqfs-durable", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def dirtied(self, node: Node) -> None:
        """Note that a node got uncommitted content."""
        if self._seconds:
            with self._condition:
                self._wake_if_idle()
                self._nodes.add(node)

    def committed(self) -> None:
        """Note that a container is in place that is not durable."""
        with self._condition:
            self._wake_if_idle()
            self._containers = True

    def _wake_if_idle(self) -> None:
        if not (self._nodes or self._containers):
            self._condition.notify()

    def _run(self) -> None:
        yield_to_others()
        told: str | None = None
        while self._wait():
            try:
                self.make_durable(self._take())
                told = None
            except OSError as err:
                if told != str(err):  # a failing disk must not fill the log
                    told = str(err)
                    log.error("what was written lately cannot be made durable yet: %s", told)
            except Exception:
                log.exception("what was written lately cannot be made durable")

    def _wait(self) -> bool:
        """Wait for something to do, and then for the pause; returns whether to go on."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._nodes or self._containers)
            self._condition.wait_for(lambda: self._stopping, self._seconds)
            return not self._stopping

    def make_all_durable(self) -> None:
        """Make everything on BACKING's filesystem durable; raises OSError."""
        with self._condition:
            self._containers = False
        try:
            self._io.syncfs(self._root)
        except BaseException:
            self.committed()
            raise

    def make_durable(self, nodes: Sequence[Node]) -> None:
        """Make durable what was written so far to some files, and all containers.

        Raises:
            OSError: the first failure; everything that it does not concern is durable.
        """
        with self._passes:
            self._make_durable(nodes)

    def _make_durable(self, nodes: Sequence[Node]) -> None:
        failure = FirstFailure()
        waiting: list[_Marked] = []
        for node in nodes:
            try:
                waiting += _marked(node)
            except OSError as err:
                failure.note(err)
        many = self._containers or len(waiting) > _FEW
        if many:
            self.make_all_durable()
        logged = []
        for one in waiting:
            try:
                if _make_content_durable(one):
                    logged.append(one)
            except OSError as err:
                failure.note(err)
        if len(logged) > _FEW:
            self.make_all_durable()
        for one in logged:
            try:
                one.entry.log.make_durable()
            except OSError as err:
                failure.note(err)
            else:
                one.node.made_durable(one.sequence)
        failure.raise_it()

    def _take(self) -> Sequence[Node]:
        """Return the files to look at, and forget those that are not dirty any more."""
        with self._condition:
            waiting = [node for node in self._nodes if node.dirty and node.path is not None]
            self._nodes = weakref.WeakSet(waiting)
            return waiting


def _marked(node: Node) -> Iterable[_Marked]:
    """Mark what a file is now, unless that is durable already; raises OSError."""
    with node.lock:
        entry = node.staging
        if entry is None or entry.in_doubt or node.path is None or node.durable_sequence == node.sequence:
            return []
        return [_Marked(node, entry, entry.mark(), node.sequence)]


def _make_content_durable(one: _Marked) -> bool:
    """Make the content of a file durable as it was marked, and log that; returns whether the log got a record.

    Raises:
        OSError: that failed; the program's next fsync raises it as well.
    """
    node = one.node
    if not (node.durable and node.metadata_durable):
        node.make_container_durable()
    one.entry.log.fsync_data(one.entry.data)
    return one.entry.log.log_durable(one.mark)
