"""Progress on standard error while it is a terminal; nothing at all when it is not."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Never

from qatqfs.cli.exits import on_terminal

if TYPE_CHECKING:
    from tqdm import tqdm as Bar  # imported at run time only where one is shown

_SHOW_AFTER_S = 0.5
_REFRESH_S = 0.5


class Progress:
    """A bar that counts bytes. Safe to advance from any thread.

    Args:
        total_bytes: what there is to do.
        label: stands before the bar.
    """

    def __init__(self, total_bytes: int, label: str) -> None:
        self._lock = threading.Lock()
        self._bar: Bar[Never] | None = None
        if on_terminal():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_bytes,
                desc=label,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                dynamic_ncols=True,
                leave=False,
                delay=_SHOW_AFTER_S,
                file=sys.stderr,
            )

    def advance(self, count: int) -> None:
        """Note that so many bytes are done since the last call."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(count)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show how long one call takes that cannot say how far it is."""
    if not on_terminal():
        yield
        return
    done = threading.Event()

    def refresh() -> None:
        if done.wait(_SHOW_AFTER_S):
            return
        from tqdm import tqdm  # not before there is something to show: most calls are over at once

        with tqdm(desc=label, bar_format="{desc} {elapsed}", leave=False, file=sys.stderr) as bar:
            while not done.wait(_REFRESH_S):
                bar.refresh()

    thread = threading.Thread(target=refresh, name="qatqfs-progress")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
