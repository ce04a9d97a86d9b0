"""What is known to be corrupt: said once in the log, counted, remembered."""

import logging
import os
import threading

from cachetools import LRUCache

from qatqfs.store.stats import Statistics

log = logging.getLogger(__name__)

ContentId = tuple[int, int, int, int, bytes]
"""(st_dev, st_ino, stored size, mtime_ns, first 32 bytes): one container's content as it was opened."""

FileSignature = tuple[int, int, int, int]
"""The part of a :data:`ContentId` that a stat call shows."""

_REMEMBERED = 65_536


class DamageRegister:
    """Remembers corrupt chunks and files by content, so that replacing a file makes it good again.

    Bounded: of very many damaged chunks the oldest are forgotten and found (and logged) again.
    """

    def __init__(self, statistics: Statistics) -> None:
        self._lock = threading.Lock()
        self._chunks: LRUCache[tuple[ContentId, int], str] = LRUCache(_REMEMBERED)
        self._files: LRUCache[FileSignature, str] = LRUCache(_REMEMBERED)
        self._statistics = statistics

    def known(self, content: ContentId, chunk: int) -> str | None:
        """Return why a chunk is corrupt if that was found before."""
        with self._lock:
            return self._chunks.get((content, chunk))

    def file_known(self, signature: FileSignature) -> bool:
        """Whether a file with this signature is known to be damaged anywhere."""
        with self._lock:
            return signature in self._files

    def report_chunk(self, path: bytes, content: ContentId, chunk: int, offset: int, reason: str) -> None:
        """Note a chunk whose bytes are not what was written; ``offset`` is its first logical byte."""
        with self._lock:
            fresh = (content, chunk) not in self._chunks
            self._chunks[content, chunk] = reason
            self._files[content[:4]] = reason
        if fresh:
            self._statistics.add("corrupt_chunks")
            log.error("%s: chunk %d at offset %d is corrupt: %s", os.fsdecode(path), chunk, offset, reason)

    def report_file(self, path: bytes, signature: FileSignature, reason: str) -> None:
        """Note a file that cannot be opened as a container at all."""
        with self._lock:
            fresh = signature not in self._files
            self._files[signature] = reason
        if fresh:
            self._statistics.add("corrupt_files")
            log.error("%s: not a readable QATC container: %s", os.fsdecode(path), reason)
