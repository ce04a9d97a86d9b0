"""What is known to be damaged: logged once, counted, remembered."""

import logging
import threading

from cachetools import LRUCache

from qatqfs.store.counters import Counters
from qatqfs.wording import damaged_chunk, shown_path

log = logging.getLogger(__name__)

FileSignature = tuple[int, int, int, int, int]
"""(st_dev, st_ino, stored size, mtime_ns, ctime_ns): one state of a file, as a stat call shows it.

A program that changes or repairs a file in place may restore its mtime, but not its ctime.
"""

_REMEMBERED = 65_536


class DamageRegister:
    """Remembers damaged chunks and files by the file's state, so a file that was replaced or repaired is read again.

    A change of metadata also makes a new state; then the damage is found and logged once more.

    Bounded: of very many damaged chunks the oldest are forgotten, and found and logged again.
    """

    def __init__(self, counters: Counters) -> None:
        self._lock = threading.Lock()
        self._chunks: LRUCache[tuple[FileSignature, int], str] = LRUCache(_REMEMBERED)
        self._files: LRUCache[FileSignature, str] = LRUCache(_REMEMBERED)
        self._counters = counters

    def known(self, signature: FileSignature, chunk: int) -> str | None:
        """Return why a chunk is damaged, if that was found before."""
        with self._lock:
            return self._chunks.get((signature, chunk))

    def file_known(self, signature: FileSignature) -> bool:
        """Whether any damage of a file with this signature is known."""
        with self._lock:
            return signature in self._files

    def report_chunk(
        self, path: bytes, signature: FileSignature, chunk: int, logical: int | None, stored: int | None, reason: str
    ) -> None:
        """Note a damaged chunk.

        Args:
            path: the file's logical path.
            signature: its state.
            chunk: its number.
            logical: offset of the chunk in the content, ``None`` if unknown.
            stored: offset of the chunk in the container, ``None`` if unknown.
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
        """Note a file that cannot be opened as a container."""
        with self._lock:
            fresh = signature not in self._files
            self._files[signature] = reason
        if fresh:
            self._counters.add("corrupt_files")
            log.error("%s: not a readable QATC container: %s", shown_path(path), reason)
