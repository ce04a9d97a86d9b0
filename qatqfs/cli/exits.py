"""Exit statuses, and how an error becomes one line on standard error.

0 done, 1 something is wrong with the data, 2 wrong usage, refused, or the system failed.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

DONE, BAD_DATA, REFUSED = 0, 1, 2
SIGNALLED = 128
"""A command that a signal ends has this plus the signal's number, as shells have it."""
INTERRUPTED = SIGNALLED + signal.SIGINT
OUTPUT_CLOSED = SIGNALLED + signal.SIGPIPE
"""Whoever read our output has left."""


class Refusal(Exception):
    """Something is not done, for a reason other than bad data; the text is one sentence for the user."""


def shown(path: str) -> str:
    """Return a path as it can be printed on one line: what is not printable is escaped."""
    if path.isprintable():
        return path
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in path)


def describe(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    if isinstance(error, OSError) and error.strerror:
        names = [shown(os.fsdecode(name)) for name in (error.filename,) if isinstance(name, str | bytes)]
        return ": ".join([*names, error.strerror])
    return " ".join(str(error).split()) or type(error).__name__


def _print(line: str, file: TextIO | None) -> None:
    if file is None:  # it was closed before we started
        return
    bar = getattr(sys.modules.get("tqdm"), "tqdm", None)  # there if a bar may be on the screen: no line must tear it
    if bar is not None:
        bar.write(line, file=file)
    else:
        print(line, file=file)


def on_terminal() -> bool:
    """Whether there is somebody to show progress to."""
    return sys.stderr is not None and sys.stderr.isatty()


def complain(text: str) -> None:
    """Print a line of ours on standard error."""
    _print(f"qatqfs: {text}", sys.stderr)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Give an OSError from reading or writing the path that it is about, if it has none yet."""
    try:
        yield
    except OSError as err:
        if err.filename is None:
            err.filename = path
        raise


def say(*lines: str) -> None:
    """Print lines of results; with none, only make sure that those before have been written.

    Raises:
        OSError: they cannot be written.
    """
    with naming("standard output"):
        for line in lines:
            _print(line, sys.stdout)
        if sys.stdout is not None and not lines:
            sys.stdout.flush()
