"""Where the chunks of containers without an index are.

Finding that out takes a walk over all chunk headers, which takes seconds for millions of chunks. So a walk is never
done with the namespace lock held, and its result is remembered.
"""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from cachetools import LRUCache

from qatqfs.codec import WalkedLayout
from qatqfs.store.reading.damage import FileSignature

_REMEMBERED_BYTES = 65 << 20
"""Memory for the places of chunks: enough for four million chunks."""
_OVERHEAD_BYTES = 1024


def _memory_of(layout: WalkedLayout) -> int:
    return layout.memory_bytes + _OVERHEAD_BYTES


class _Turn:
    """The lock under which one file is walked. The lock of :class:`Walks` protects ``users``."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Walks:
    """Remembers walks. Safe for any number of threads; bounded: the least recently used walk is forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Protected by the lock.
        self._layouts: LRUCache[Hashable, WalkedLayout] = LRUCache(_REMEMBERED_BYTES, getsizeof=_memory_of)
        self._turns: dict[FileSignature, _Turn] = {}

    def layout(self, content: Hashable, signature: FileSignature) -> WalkedLayout | None:
        """Return where the chunks of a container are, if it was walked.

        Args:
            content: names the content; it stays the same when only metadata change.
            signature: the state of the file. A walk that met damage is remembered for this state alone.
        """
        with self._lock:
            return self._layouts.get(content) or self._layouts.get(signature)

    def remember(self, content: Hashable, signature: FileSignature, layout: WalkedLayout) -> None:
        """Remember where chunks are, unless there are too many."""
        with self._lock:
            if _memory_of(layout) <= self._layouts.maxsize:
                self._layouts[content if layout.sound else signature] = layout

    @contextmanager
    def turn(self, signature: FileSignature) -> Iterator[None]:
        """Wait for a thread that walks the same file. Its result may be all that the caller needs."""
        with self._lock:
            turn = self._turns.setdefault(signature, _Turn())
            turn.users += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:
                    del self._turns[signature]
