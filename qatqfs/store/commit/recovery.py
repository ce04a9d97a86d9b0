"""What a starting store does with the staging entries that it finds.

Each entry is reattached as a dirty file and committed in the background, so that a mount answers at once. The log of an
entry names paths, a base, and containers that were about to replace the base:

* the base is at one of the paths: the entry is reattached to it;
* a container that was about to replace it is there: the entry builds on that one now, or is removed if nothing was
  written since;
* neither is there, and the file was unlinked: the entry is removed;
* neither is there, and the file was not unlinked: the content becomes a container in lost+found. If the base is found
  under another name, it completes the content.

If the machine went down since, or the log is damaged, only what a SYNC covers is sure to be whole, and the file gets
just that. The rest of the entry is in doubt, and becomes a container in lost+found. That happens in the background if
nothing of the entry is sure and it has no base, else before the file is served.

An entry is removed only if nothing was written, if a container has all of it, or if its file was removed. A data file
without a readable log is moved to lost+found as it is.
"""

import errno
import logging
import os
from collections.abc import Callable

from qatqfs.store.commit.engine import CommitEngine
from qatqfs.store.commit.metadata_copy import EMPTY_CONTAINER_SIZE
from qatqfs.store.commit.places import Locator, Place
from qatqfs.store.errors import StoreError
from qatqfs.store.names.node import Node
from qatqfs.store.names.own_files import put_modes_right
from qatqfs.store.names.tree import Tree
from qatqfs.store.staging.area import StagingArea
from qatqfs.store.staging.entry import StagingEntry
from qatqfs.store.staging.leftover import Leftover, differ, map_of, read_leftover
from qatqfs.store.staging.records import LogState, LogWriter, SilentWriter
from qatqfs.store.staging.view import ChunkMap
from qatqfs.store.system.descriptors import DescriptorShortage
from qatqfs.store.system.fd import Fd, pread_exact
from qatqfs.wording import shown_path

log = logging.getLogger(__name__)

_VERIFY_BYTES = 4 << 20


class Recovery:
    """Reattaches what an earlier daemon left in staging.

    Args:
        tree: the names.
        area: where the entries are.
        engine: makes the containers in lost+found that cannot wait.
        commit_some: commits files that were recovered already, which frees their descriptors.

    Attributes:
        recovered: files that have content to commit.
        in_doubt: files of which something went, or is going, to lost+found because it may be torn.
    """

    def __init__(
        self, tree: Tree, area: StagingArea, engine: CommitEngine, commit_some: Callable[[], None] = lambda: None
    ) -> None:
        self._tree = tree
        self._area = area
        self._locator = Locator(tree, area)
        self._engine = engine
        self._commit_some = commit_some
        self.recovered = 0
        self.in_doubt = 0

    def run(self) -> None:
        """Recover every entry.

        An entry that cannot be read is left as it is, with a line in the log.

        Raises:
            OSError: the staging directory cannot be read.
            StoreError: there is no space for content that is in doubt; nothing is lost.
        """
        self.in_doubt += self._area.remove_leftovers()
        put_modes_right(self._area, self._tree.root)
        for entry_id in self._area.entry_ids():
            try:
                self._recover_with_room(entry_id)
            except OSError as err:
                log.error("staging entry %s cannot be recovered and is kept: %s", entry_id.decode(), err)
        counters = self._tree.context.reading.counters
        if self.recovered:
            log.info("recovered %d file(s) with uncommitted content", self.recovered)
            counters.add("recovered_files", self.recovered)
        if self.in_doubt:
            counters.add("files_in_doubt", self.in_doubt)

    def _recover_with_room(self, entry_id: bytes) -> None:
        try:
            self._recover(read_leftover(self._area, entry_id))
        except DescriptorShortage:
            log.info("more files have uncommitted content than may be open; committing some of them first")
        else:
            return
        self._commit_some()
        self._recover(read_leftover(self._area, entry_id))

    def _recover(self, left: Leftover) -> None:
        if left.data is None or left.sure.done:
            if left.was_durable and not (left.said.done or left.said.unlinked or left.said.intents):
                log.error("staging entry %s was durable, but its data file is missing", left.entry_id.decode())
            self._area.discard(left.entry_id)
        elif not left.is_readable:
            self.in_doubt += self._area.keep_entry(left.entry_id, "has a log that cannot be read")
        elif left.is_sure:
            self._recover_sure(left, left.data)
        else:
            self._recover_doubtful(left, left.data)

    def _recover_sure(self, left: Leftover, data: Fd) -> None:
        state = left.sure
        raw = self._locator.raw_file(state, left.entry_id)
        if raw is not None:
            self._locator.remove_replaced(state, raw[1])
            self._area.discard(left.entry_id)
            return
        place = self._locator.place(state, left.entry_id, data)
        if place is None or place.has_all_of(state):
            self._area.discard(left.entry_id)
            return
        entry = self._entry(left, data)
        if state.kept_mtime_ns is not None:
            entry.time.keep(state.kept_mtime_ns)
        self._attach(entry, state, place)

    def _entry(self, left: Leftover, data: Fd, *, in_doubt: bool = False) -> StagingEntry:
        """Return an entry of existing files; :meth:`StagingEntry.attach` has to follow."""
        area, state = self._area, left.said
        kind = SilentWriter if in_doubt else LogWriter
        writer = kind(area.io, left.log, area.boot_id, sequence=state.next_sequence, offset=state.good_length)
        entry = StagingEntry(area, left.entry_id, data, left.log, writer)
        entry.log.durable = True  # it may be on disk already, and no commit may make it less durable
        entry.in_doubt = in_doubt
        return entry

    def _attach(self, entry: StagingEntry, state: LogState, place: Place) -> None:
        """Make a file dirty with the content of an entry."""
        entry.attach(state, place.at, place.base, place.path, redo=place.redo)
        if not (state.is_sure or entry.in_doubt):
            entry.renew_log()
        node = place.node
        node.recovered(entry)
        with self._tree.lock:
            self._tree.nodes[node.key] = node
        self._tree.context.dirtied(node)
        self.recovered += not entry.in_doubt

    # -- what is in doubt ------------------------------------------------------------------------------

    def _recover_doubtful(self, left: Leftover, data: Fd) -> None:
        """Give a file the content that is sure, and put the rest into lost+found."""
        said = left.said
        raw = self._locator.raw_file(said, left.entry_id)
        if raw is not None:
            self._recover_raw(left, data, raw)
            return
        place = self._locator.place(said, left.entry_id, data)
        size = os.fstat(data.number).st_size
        if place is None or (place.has_all_of(said) and self._is_whole(place.node, size)):
            self._area.discard(left.entry_id)
            return
        if not place.named or place.has_all_of(said):
            self._give_away(left, data, place)
            return
        sure_size, sure_map = self._sure_content(left, data, place, size)
        more = size > 0 and differ(map_of(said, place.at, place.base, data, size), sure_map, (size, sure_size))
        if size == 0 < sure_size:
            log.error(
                "%s: has %d bytes again: that it was emptied is not known to have reached the disk",
                shown_path(place.path),
                sure_size,
            )
        if more and not left.has_sure_content and said.is_self_contained(size, place.at):
            self._give_away(left, data, place)
            return
        if more:  # at once, because its base may be replaced as soon as the file is served
            self._keep_copy(left, data, place)
        if not left.has_sure_content:
            self._area.discard(left.entry_id)
            return
        if size > sure_size:
            self._area.io.ftruncate(data, sure_size)
        self._area.io.set_times(data, None, left.sure.durable_mtime_ns)
        self._attach(self._entry(left, data), left.sure, place)

    def _recover_raw(self, left: Leftover, data: Fd, raw: tuple[Fd, bytes]) -> None:
        """Recover an entry whose commit put a raw file in place of the container.

        No checksum tells whether a raw file is torn. But it was made durable before it got its name if the entry was
        durable, or if it replaced content.
        """
        assert left.said.base is not None
        opened, path = raw
        durable = left.was_durable or left.said.base.identity.size > EMPTY_CONTAINER_SIZE
        if not durable and not _same_content(opened, data):
            self._give_away(left, data, self._locator.lost_place(path, data))
            return
        self._locator.remove_replaced(left.said, path)
        self._area.discard(left.entry_id)

    @staticmethod
    def _sure_content(left: Leftover, data: Fd, place: Place, size: int) -> tuple[int, ChunkMap]:
        """Return size and chunk map of the content that is sure: that of the entry, or if it has none, of its base."""
        assert left.said.base is not None
        if not left.has_sure_content:
            length = place.base.length if place.base is not None else 0
            return length, ChunkMap(left.said.base.chunk_size, length)
        sure_size = left.sure_size(size)
        return sure_size, map_of(left.sure, place.at, place.base, data, sure_size)

    def _give_away(self, left: Leftover, data: Fd, place: Place) -> None:
        """Make an entry a container in lost+found, in the background."""
        self._area.io.fdatasync(data)  # so that a next recovery finds the same; the log never says that it is durable
        node = self._locator.node_without_name(place.path, data)
        base = place.base if not place.has_all_of(left.said) else None
        at = place.at if base is not None else 0
        entry = self._entry(left, data, in_doubt=True)
        if left.said.kept_mtime_ns is not None:
            entry.time.keep(left.said.kept_mtime_ns)
        self._report(left, place.path, os.fstat(data.number).st_size, "it goes to lost+found")
        self._attach(entry, left.said, Place(node, at, base, place.path, named=False))

    def _keep_copy(self, left: Leftover, data: Fd, place: Place) -> None:
        """Put the content of an entry into lost+found, and leave the entry as it is.

        Raises:
            StoreError: there is no space for it.
            OSError: any other failure.
        """
        node = self._locator.node_without_name(place.path, data)
        entry = self._entry(left, data, in_doubt=True)
        if left.said.kept_mtime_ns is not None:
            entry.time.keep(left.said.kept_mtime_ns)
        entry.attach(left.said, place.at, place.base, place.path, redo=place.redo)
        node.recovered(entry)
        self._report(left, place.path, entry.size, "all of it goes to lost+found, and the file is as before")
        try:
            self._engine.keep_copy(node)
        except OSError as err:
            if err.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(
                f"no space to keep a copy of {os.fsdecode(place.path)!r}, of which the newest content may be torn:"
                f" free {entry.size} bytes on the filesystem of BACKING and try again ({err.strerror})"
            ) from err
        finally:
            self._area.space.release(left.entry_id)

    def _report(self, left: Leftover, path: bytes, size: int, what: str) -> None:
        self.in_doubt += 1
        why = "its log is damaged" if left.said.damaged else "the machine went down before it was known to be on disk"
        log.error(
            "%s: %d bytes in staging entry %s may be torn, because %s: %s",
            shown_path(path),
            size,
            left.entry_id.decode(),
            why,
            what,
        )

    @staticmethod
    def _is_whole(node: Node, size: int) -> bool:
        """Whether a container of ``size`` bytes is whole; compares every checksum."""
        try:
            container = node.container()
            for offset in range(0, container.length, _VERIFY_BYTES):
                container.read_uncached(offset, min(_VERIFY_BYTES, container.length - offset))
        except OSError:
            return False
        return container.length == size


def _same_content(one: Fd, other: Fd) -> bool:
    """Whether two files have the same bytes; raises OSError."""
    size = os.fstat(one.number).st_size
    if os.fstat(other.number).st_size != size:
        return False
    return all(
        pread_exact(one.number, _VERIFY_BYTES, offset) == pread_exact(other.number, _VERIFY_BYTES, offset)
        for offset in range(0, size, _VERIFY_BYTES)
    )
