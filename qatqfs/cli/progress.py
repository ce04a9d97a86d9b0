"""Progress on standard error if that is a terminal; otherwise nothing.

A thread of its own redraws the progress at fixed intervals, so that the clock moves while one step takes long.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Never

from qatqfs.cli.exits import on_terminal, shown

if TYPE_CHECKING:
    from tqdm import tqdm as Bar  # imported at run time only when a bar is shown

_SHOW_AFTER_S = 0.5
_REFRESH_S = 0.5
_LONGEST_NAME = 30  # of a file, in characters, beside a bar


@contextlib.contextmanager
def _drawn(draw: Callable[["Bar[Never]"], None], **settings: Any) -> Iterator[None]:
    """Show a bar while the body of the ``with`` statement runs.

    Args:
        draw: sets what the bar shows; called by another thread.
        settings: of tqdm.
    """
    if not on_terminal():
        yield
        return
    done = threading.Event()

    def refresh() -> None:
        if done.wait(_SHOW_AFTER_S):
            return
        from tqdm import tqdm  # as late as possible, because most commands end at once

        with tqdm(leave=False, file=sys.stderr, **settings) as bar:
            bar.start_t -= _SHOW_AFTER_S
            while True:
                draw(bar)
                bar.refresh()
                if done.wait(_REFRESH_S):
                    return

    thread = threading.Thread(target=refresh, name="qatqfs-progress")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Progress:
    """A bar that counts bytes or something else, and shows the current file. Safe to use from any thread.

    Args:
        total: how much there is to do.
        label: text before the bar.
        files: how many files there are, 0 if they are not counted.
        unit: what is counted.
    """

    def __init__(self, total: int, label: str, *, files: int = 0, unit: str = "B") -> None:
        self._label = label
        self._total_files = files
        self._lock = threading.Lock()  # protects the next three
        self._done = 0
        self._files = 0
        self._name = ""
        self._bar = _drawn(
            self._draw,
            desc=label,
            total=total,
            unit=unit,
            unit_scale=True,
            unit_divisor=1024 if unit == "B" else 1000,
            dynamic_ncols=True,
        )

    def _draw(self, bar: "Bar[Never]") -> None:
        file = f" {self._files:,} of {self._total_files:,} ({self._name})" if self._files else ""
        bar.set_description_str(self._label + file, refresh=False)
        bar.n = self._done

    def begin(self, path: str) -> None:
        """Set the current file."""
        name = shown(os.path.basename(path))
        with self._lock:
            self._files += 1
            self._name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"

    def advance(self, count: int) -> None:
        """Note how much was done since the last call."""
        with self._lock:
            self._done += count

    def __enter__(self) -> "Progress":
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)


@contextlib.contextmanager
def waiting(label: str) -> Iterator[Callable[[str], None]]:
    """Show how long the body of the ``with`` statement takes.

    Args:
        label: what the user waits for.

    Yields:
        A function that sets the text about what is left.
    """
    said = ""

    def note(text: str) -> None:
        nonlocal said
        said = text

    def draw(bar: "Bar[Never]") -> None:
        bar.set_description_str(": ".join(filter(None, (label, said))), refresh=False)

    with _drawn(draw, desc=label, bar_format="{desc} {elapsed}"):
        yield note
