"""Staging entries whose content is in containers, until they are removed.

An entry may go only once its container is sure to stay under its name, and if it cannot be removed nothing of its file
may be committed before it is: what it says would be wrong then.
"""

import threading
from dataclasses import dataclass

from qatqfs.store.attributes import Key
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.staging.entry import StagingEntry


@dataclass(frozen=True, slots=True)
class _Finished:
    """An entry that is done with; by its name, for the entry itself would keep its files open.

    Attributes:
        owner: the backing inode that has its content.
        area: where it is.
        entry_id: its name.
        synced: it is durable, so its removal has to be.
        path: where its container is, if it has to be sure to be there first.
    """

    owner: Key
    area: StagingArea
    entry_id: bytes
    synced: bool
    path: bytes


class FinishedEntries:
    """See the module's text; safe for any number of threads.

    Args:
        tree: the names.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._waiting: list[_Finished] = []  # protected by _lock

    def add(self, owner: Key, entry: StagingEntry, path: bytes) -> None:
        """Note that an entry is done with.

        Args:
            owner: the backing inode that has its content.
            entry: has no draft any more.
            path: where its container is, if that has to be made durable first, else ``b""``.
        """
        with self._lock:
            self._waiting.append(_Finished(owner, entry.area, entry.entry_id, entry.log.durable, path))

    def remove(self, key: Key | None = None) -> None:
        """Remove the entries that are done with, each once its container is sure to stay under its name.

        And what else was left in staging because it could not be removed.

        Args:
            key: the file whose entries have to be gone, ``None`` for all.

        Raises:
            OSError: the first failure that matters; what could not be removed is tried again with the next commit,
                or found to be done with by recovery.
        """
        failure: OSError | None = None
        if self._tree.context.staging is not None:
            self._tree.context.staging.retry_abandoned()
        with self._lock:  # throughout, so that whoever returns from here knows that his own entry is gone
            waiting, self._waiting = self._waiting, []
            for finished in waiting:
                try:
                    self._remove(finished)
                except OSError as err:
                    if key in (None, finished.owner):
                        failure = failure or err
                    self._waiting.append(finished)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # it refers to this frame: without the cycle nothing keeps the files open

    def _remove(self, finished: _Finished) -> None:
        if finished.path:
            self._tree.fsync_parent(finished.path)
        finished.area.discard(finished.entry_id)
        if finished.synced:  # or a power cut might bring it back when others have been committed over this one
            self._tree.context.io.fsync_directory(finished.area.directory.number)
