"""Staging entries whose content is in containers, until they are removed.

Where the content has to survive a loss of power, its entry may be removed only once its container is durable under its
name. If an entry cannot be removed, no newer content of its file may be committed before it is gone: its records would
be wrong then.
"""

import threading
from dataclasses import dataclass

from qatqfs.store.attributes import Key
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.system.failures import FirstFailure


@dataclass(frozen=True, slots=True)
class _Committed:
    """A committed entry, by its name. The entry itself would keep its files open.

    Attributes:
        owner: the backing inode that has its content.
        area: where it is.
        entry_id: its name.
        durable: it is durable, so its removal has to be made durable too.
        path: where its container is, if that has to be made durable first.
    """

    owner: Key
    area: StagingArea
    entry_id: bytes
    durable: bool
    path: bytes


class CommittedEntries:
    """See the module's text; safe for any number of threads.

    Args:
        tree: the names.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._waiting: list[_Committed] = []  # protected by _lock

    def add(self, owner: Key, entry: StagingEntry, path: bytes) -> None:
        """Note that an entry is committed.

        Args:
            owner: the backing inode that has its content.
            entry: has no draft any more.
            path: where its container is, if that has to be made durable first, else ``b""``.
        """
        with self._lock:
            self._waiting.append(_Committed(owner, entry.area, entry.entry_id, entry.log.durable, path))

    def remove(self, key: Key | None = None) -> None:
        """Make the containers of committed entries durable under their names, and remove the entries.

        Abandoned files of staging that could not be removed before are tried again as well.

        Args:
            key: the file whose entries have to be gone on return, ``None`` for all.

        Raises:
            OSError: the first failure that concerns ``key``. An entry that could not be removed is tried again with the
                next commit, and recovery finds out that it is committed.
        """
        failure = FirstFailure()
        if self._tree.context.staging is not None:
            self._tree.context.staging.retry_abandoned()
        with self._lock:  # throughout, so that the caller's own entry is gone on return, whichever thread removes it
            waiting, self._waiting = self._waiting, []
            for committed in waiting:
                try:
                    self._remove(committed)
                except OSError as err:
                    if key in (None, committed.owner):
                        failure.note(err)
                    self._waiting.append(committed)
        failure.raise_it()

    def _remove(self, committed: _Committed) -> None:
        if committed.path:
            self._tree.fsync_parent(committed.path)
        committed.area.discard(committed.entry_id)
        if committed.durable:  # else a loss of power might bring it back after later commits
            self._tree.context.io.fsync_directory(committed.area.directory.number)
