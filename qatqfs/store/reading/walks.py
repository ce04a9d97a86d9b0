"""Where the chunks of containers without an index lie, which takes a walk over all their headers to find out.

A walk over millions of chunks takes seconds. So nobody walks while he holds the namespace lock, and what was found is
remembered.
"""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from cachetools import LRUCache

from qatqfs.codec import WalkedLayout
from qatqfs.store.reading.damage import FileSignature

_REMEMBERED_BYTES = 65 << 20
"""Memory for the places of chunks: those of four million."""
_OVERHEAD_BYTES = 1024


def _memory_of(layout: WalkedLayout) -> int:
    return layout.memory_bytes + _OVERHEAD_BYTES


class _Turn:
    """Who walks a file; ``users`` belongs to the lock of :class:`Walks`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Walks:
    """Safe for any number of threads; bounded, what was used least recently goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Protected by the lock.
        self._layouts: LRUCache[Hashable, WalkedLayout] = LRUCache(_REMEMBERED_BYTES, getsizeof=_memory_of)
        self._turns: dict[FileSignature, _Turn] = {}

    def layout(self, content: Hashable, signature: FileSignature) -> WalkedLayout | None:
        """Return where the chunks of a container lie if it was walked.

        Args:
            content: names what it holds, whatever has become of the file's metadata.
            signature: the state of the file; damage is remembered for that alone.
        """
        with self._lock:
            return self._layouts.get(content) or self._layouts.get(signature)

    def remember(self, content: Hashable, signature: FileSignature, layout: WalkedLayout) -> None:
        """Remember where chunks lie, unless they are too many."""
        with self._lock:
            if _memory_of(layout) <= self._layouts.maxsize:
                self._layouts[content if layout.sound else signature] = layout

    @contextmanager
    def turn(self, signature: FileSignature) -> Iterator[None]:
        """Wait for whoever walks the same file: what he found may be all that is wanted."""
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
