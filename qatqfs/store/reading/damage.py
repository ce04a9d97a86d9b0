"""What is known to be corrupt: said once in the log, counted, remembered."""

import logging
import threading

from cachetools import LRUCache

from qatqfs.store.counters import Counters
from qatqfs.wording import damaged_chunk, shown_path

log = logging.getLogger(__name__)

FileSignature = tuple[int, int, int, int, int]
"""(st_dev, st_ino, stored size, mtime_ns, ctime_ns): one state of a file, as a stat call shows it.

Whoever changes or repairs a file in place may put its mtime back, but not its ctime.
"""

_REMEMBERED = 65_536


class DamageRegister:
    """Remembers corrupt chunks and files by the file's state, so that replacing or repairing one makes it good again.

    A change of metadata makes a new state, too; what is damaged then is found, and logged, once more.

    Bounded: of very many damaged chunks the oldest are forgotten and found (and logged) again.
    """

    def __init__(self, counters: Counters) -> None:
        self._lock = threading.Lock()
        self._chunks: LRUCache[tuple[FileSignature, int], str] = LRUCache(_REMEMBERED)
        self._files: LRUCache[FileSignature, str] = LRUCache(_REMEMBERED)
        self._counters = counters

    def known(self, signature: FileSignature, chunk: int) -> str | None:
        """Return why a chunk is corrupt if that was found before."""
        with self._lock:
            return self._chunks.get((signature, chunk))

    def file_known(self, signature: FileSignature) -> bool:
        """Whether a file with this signature is known to be damaged anywhere."""
        with self._lock:
            return signature in self._files

    def report_chunk(
        self, path: bytes, signature: FileSignature, chunk: int, logical: int | None, stored: int | None, reason: str
    ) -> None:
        """Note a chunk whose bytes are not what was written.

        Args:
            path: the file's logical path.
            signature: its state.
            chunk: which.
            logical: the first byte of the chunk in the content, ``None`` when that cannot be said.
            stored: that in the container, likewise.
            reason: what is wrong.
        """
        with self._lock:
            fresh = (signature, chunk) not in self._chunks
            self._chunks[signature, chunk] = reason
            self._files[signature] = reason
        if fresh:
            self._counters.add("corrupt_chunks")
            log.error("%s: %s", shown_path(path), damaged_chunk(chunk, logical, stored, reason))

    def report_file(self, path: bytes, signature: FileSignature, reason: str) -> None:
        """Note a file that cannot be opened as a container at all."""
        with self._lock:
            fresh = signature not in self._files
            self._files[signature] = reason
        if fresh:
            self._counters.add("corrupt_files")
            log.error("%s: not a readable QATC container: %s", shown_path(path), reason)
