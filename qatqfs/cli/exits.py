"""Exit statuses, and how an error becomes one line on standard error.

0 done, 1 something is wrong with the data, 2 wrong usage, refused, or the system failed.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

from qatqfs.wording import describe as describe  # for the verbs
from qatqfs.wording import shown as shown

DONE, BAD_DATA, REFUSED = 0, 1, 2
SIGNALLED = 128
"""A command that a signal ends has this plus the signal's number, as shells have it."""
INTERRUPTED = SIGNALLED + signal.SIGINT
OUTPUT_CLOSED = SIGNALLED + signal.SIGPIPE
"""Whoever read our output has left."""


class Refusal(Exception):
    """Something is not done, for a reason other than bad data; the text is one sentence for the user."""


def _print(line: str, file: TextIO | None) -> None:
    if file is None or file.closed:  # by who started us, or because it failed
        return
    bar = getattr(sys.modules.get("tqdm"), "tqdm", None)  # there if a bar may be on the screen: no line must tear it
    if bar is not None:
        bar.write(line, file=file)
    else:
        print(line, file=file)


def on_terminal() -> bool:
    """Whether there is somebody to show progress to."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def complain(text: str) -> None:
    """Print a line of ours on standard error; if that cannot be written, nobody is left to be told."""
    try:
        _print(f"qatqfs: {shown(text)}", sys.stderr)
    except OSError:
        with contextlib.suppress(OSError):
            sys.stderr.close()  # or the interpreter tries again at its end, and gives another status


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
    """Print lines of results."""
    for line in lines:
        _print(line, sys.stdout)
