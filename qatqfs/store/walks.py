"""What was found out about containers that tell nothing by themselves: how long they are, where their chunks lie.

A container without an index has to be walked, header by header, and may have millions of them. That takes seconds,
so nobody does it while he holds the namespace lock: whoever needs to know the length then gets :class:`Unmeasured`,
lets go of the lock, has the file measured, and begins anew. What was found is remembered, so it is done once.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from cachetools import LRUCache

from qatqfs.codec import WalkedLayout
from qatqfs.store.damage import FileSignature

P = ParamSpec("P")
R = TypeVar("R")

_LENGTHS_REMEMBERED = 100_000
_LAYOUT_BYTES = 64 << 20
"""Memory for the places of chunks: those of four million."""
_LAYOUT_OVERHEAD_BYTES = 1024


class Unmeasured(Exception):
    """The length of a container is not known, and finding it takes longer than a lock may be held.

    Args:
        measure: finds and remembers it; to be called without locks. It raises OSError when that cannot be done.
    """

    def __init__(self, measure: Callable[[], None]) -> None:
        super().__init__("a container has to be walked first")
        self.measure = measure


def measuring(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function, again after each container that has to be measured first; no lock may be held.

    Raises:
        OSError: a container could not be measured; and whatever the function raises.
    """
    while True:
        try:
            return function(*args, **kwargs)
        except Unmeasured as err:
            measure = err.measure
        measure()


def _memory_of(layout: WalkedLayout) -> int:
    return layout.memory_bytes + _LAYOUT_OVERHEAD_BYTES


class Walks:
    """Safe for any number of threads; bounded, the least recently used goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Protected by the lock.
        self._lengths: LRUCache[FileSignature, int] = LRUCache(_LENGTHS_REMEMBERED)
        self._layouts: LRUCache[Hashable, WalkedLayout] = LRUCache(_LAYOUT_BYTES, getsizeof=_memory_of)
        self._turns: dict[FileSignature, _Turn] = {}

    def length(self, signature: FileSignature) -> int | None:
        """Return the logical size in bytes of a state of a file if it is known."""
        with self._lock:
            return self._lengths.get(signature)

    def remember_length(self, signature: FileSignature, length: int) -> None:
        """Remember a logical size."""
        with self._lock:
            self._lengths[signature] = length

    def layout(self, content: Hashable, signature: FileSignature) -> WalkedLayout | None:
        """Return where the chunks of a container lie if it was walked.

        Args:
            content: names what it holds, whatever has become of the file's metadata.
            signature: the state of the file; damage is remembered for that alone.
        """
        with self._lock:
            return self._layouts.get(content) or self._layouts.get(signature)

    def remember_layout(self, content: Hashable, signature: FileSignature, layout: WalkedLayout) -> None:
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


class _Turn:
    """Who walks a file; ``users`` belongs to the lock of :class:`Walks`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
