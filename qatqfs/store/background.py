"""The threads of a store: those that decode, encode, commit, encode ahead, make durable, and sync on request."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from qatqfs.store.commit.ahead import AheadEncoder
from qatqfs.store.commit.durability import Durability
from qatqfs.store.commit.engine import CommitEngine
from qatqfs.store.commit.making import DraftFactory
from qatqfs.store.commit.recovery import Recovery
from qatqfs.store.commit.schedule import Committer
from qatqfs.store.commit.syncs import Syncs
from qatqfs.store.names.node import Node
from qatqfs.store.names.tree import Tree
from qatqfs.store.options import StoreOptions
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.calls import yield_to_others
from qatqfs.store.system.fd import Fd


class Background:
    """The threads of one store. In a read-only store :meth:`start` is not called, and only ``decoders`` work.

    Args:
        io: makes every change below BACKING.
        root: open descriptor of BACKING.
        options: settings of the store.
        sync: what :attr:`syncs` call with a logical path.

    Attributes:
        decoders: threads that decode.
        committer: commits files that rest, ``None`` before :meth:`start`.
        durability: makes durable what no program asked for.
        syncs: syncs that a client started and asks about later.
    """

    def __init__(self, io: BackingIO, root: Fd, options: StoreOptions, sync: Callable[[bytes], None]) -> None:
        self._options = options
        self.decoders = ThreadPoolExecutor(options.workers, thread_name_prefix="qatqfs-decode")
        self._encoders = ThreadPoolExecutor(
            options.workers, thread_name_prefix="qatqfs-encode", initializer=yield_to_others
        )
        self._disk_waiter = ThreadPoolExecutor(1, thread_name_prefix="qatqfs-disk")
        self.committer: Committer | None = None
        self._ahead: AheadEncoder | None = None
        self.durability = Durability(io, root, options.durable_after)
        self.syncs = Syncs(sync)

    def start(self, tree: Tree, staging: StagingArea) -> Recovery:
        """Recover what is in staging, and start the threads; returns the recovery, which is over.

        Raises:
            StoreError, OSError: recovery failed; no thread was started.
        """
        factory = DraftFactory(tree, self._encoders, self._disk_waiter)
        engine = CommitEngine(tree, factory)
        self.committer = Committer(tree, engine)
        self._ahead = AheadEncoder(factory, self._options)
        tree.on_dropped = self._dropped
        recovery = Recovery(tree, staging, engine, self.committer.commit_all)
        recovery.run()
        self.committer.start()
        self.durability.start()
        self._ahead.start()
        return recovery

    def stop(self) -> None:
        """End the threads once they have finished what they are at."""
        if self._ahead is not None:
            self._ahead.stop()
        if self.committer is not None:
            self.committer.stop()
        self.syncs.stop()
        self.durability.stop()
        self.shut_down_executors()

    def shut_down_executors(self) -> None:
        """End the threads that decode and encode, and leave out what they have not begun."""
        for executor in (self.decoders, self._encoders, self._disk_waiter):
            executor.shutdown(cancel_futures=True)

    # -- what nodes tell -------------------------------------------------------------------------------

    def dirtied(self, node: Node) -> None:
        """Hear that a node became dirty."""
        if self.committer is not None:
            self.committer.dirtied(node)
            self.durability.dirtied(node)

    def advanced(self, node: Node) -> None:
        """Hear that a sequential writer has got further."""
        if self._ahead is not None:
            self._ahead.advanced(node)

    def committed(self) -> None:
        """Hear that a container has got its name and is not durable yet."""
        self.durability.committed()

    def released(self, node: Node) -> None:
        """Hear that the last writer of a dirty node has closed it."""
        if self.committer is not None:
            self.committer.released(node)

    def _dropped(self, node: Node) -> None:
        if self.committer is not None:
            self.committer.forget(node)
        if self._ahead is not None:
            self._ahead.forget(node)
