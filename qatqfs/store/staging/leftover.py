"""What an earlier daemon left of an entry in staging: its files, and what its log adds up to.

There are two readings of the log. What is *sure* counts whatever has happened: all records of the running boot, and of
an earlier boot those that a SYNC covers. What is *said* is everything in the log. The two are the same unless the
machine went down meanwhile or the log is damaged. Then what is said and not sure is *in doubt*.
"""

import os
from dataclasses import dataclass

from qatqfs.store.reading.container import ContainerFile
from qatqfs.store.staging import records
from qatqfs.store.staging.area import DATA, LOG, StagingArea
from qatqfs.store.staging.records import LogState
from qatqfs.store.staging.view import ChunkMap, chunks_of, data_ranges
from qatqfs.store.system.descriptors import to_stay_open
from qatqfs.store.system.files import Fd

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Leftover:
    """An entry as an earlier daemon left it.

    Attributes:
        entry_id: its name.
        log: its log, open.
        data: its data file, open, ``None`` if there is none.
        sure: see the module's docstring; it has no base if nothing is sure.
        said: see the module's docstring; it has no base if the log cannot be read.
    """

    entry_id: bytes
    log: Fd
    data: Fd | None
    sure: LogState
    said: LogState

    @property
    def is_sure(self) -> bool:
        """Whether nothing is in doubt."""
        return self.said.is_sure

    @property
    def is_readable(self) -> bool:
        """Whether the log says enough to make anything of the data file."""
        return self.said.base is not None and bool(self.said.valid)

    @property
    def has_sure_content(self) -> bool:
        """Whether any content of the entry is sure, apart from the container that it builds on."""
        return self.sure.base is not None and bool(self.sure.valid) and (self.is_sure or self.was_durable)

    @property
    def was_durable(self) -> bool:
        """Whether a SYNC is sure."""
        return self.sure.durable_size is not None

    def sure_size(self, size: int) -> int:
        """Return the bytes of a data file of this size that are sure."""
        if self.is_sure or self.sure.durable_size is None:
            return size
        return min(size, self.sure.durable_size)


def read_leftover(area: StagingArea, entry_id: bytes) -> Leftover:
    """Open an entry that an earlier daemon left.

    Raises:
        DescriptorShortage: too many files are open.
        OSError: its files cannot be read.
    """
    where = area.directory.number
    log = Fd(os.open(entry_id + LOG, _FLAGS, dir_fd=where))
    content = os.pread(log.number, os.fstat(log.number).st_size, 0)
    try:
        data = to_stay_open(Fd(os.open(entry_id + DATA, _FLAGS, dir_fd=where)))
    except FileNotFoundError:
        data = None
    sure = records.replay(content, area.boot_id)
    said = records.replay(content, area.boot_id, doubtful=True)
    return Leftover(entry_id, log, data, sure, said)


def map_of(state: LogState, at: int, base: ContainerFile | None, data: Fd, size: int) -> ChunkMap:
    """Return the map of an entry over a container.

    Args:
        state: what the log says.
        at: which container it is: 0 the base, n the one of the n-th INTENT.
        base: the container, ``None`` when it is gone.
        data: the data file.
        size: of the content in bytes, at most that of the data file.
    """
    assert state.base is not None
    chunk_size = state.base.chunk_size
    held, low = state.since(at)
    # If the daemon was killed before it wrote the SIZE record of a cut, the size of the data file shows the cut.
    length = min(base.length if base is not None else 0, size, low if low is not None else size)
    chunks = ChunkMap(chunk_size, length)
    total = chunks_of(size, chunk_size)
    for first, stop in held:
        if first < min(stop, chunks.base_chunks, total):
            chunks.hold(first, min(stop, chunks.base_chunks, total))
    # Where the base has nothing, the data file itself tells what was written: the rest are holes. If records are lost,
    # that is true of the whole file.
    from_chunk = 0 if state.doubtful and state.cut_short else chunks.base_chunks
    for first, stop in data_ranges(data, size):
        start = max(first // chunk_size, from_chunk)
        if start < chunks_of(stop, chunk_size):
            chunks.hold(start, chunks_of(stop, chunk_size))
    return chunks


def differ(said: ChunkMap, sure: ChunkMap, sizes: tuple[int, int]) -> bool:
    """Whether two readings of an entry may give different bytes.

    Args:
        said: the map of what is said, which holds at least as many chunks as the other.
        sure: the map of what is sure.
        sizes: of the content in bytes according to each.
    """
    size, sure_size = sizes
    if size != sure_size or said.base_length != sure.base_length:
        return True
    return any(sure.any_from_base(*run) for run in said.runs(0, sure.base_chunks))
