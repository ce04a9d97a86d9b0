"""Exit statuses, and how an error becomes one line on standard error.

0 is success, 1 damaged or unknown data, 2 wrong usage, a refusal or a system error.
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
"""A command that a signal ends exits with this plus the signal's number, as in shells."""
INTERRUPTED = SIGNALLED + signal.SIGINT
OUTPUT_CLOSED = SIGNALLED + signal.SIGPIPE
"""The reader of the output has closed it."""


class Refusal(Exception):
    """A request is refused for a reason other than bad data. The text is one sentence for the user."""


def _print(line: str, file: TextIO | None) -> None:
    if file is None or file.closed:  # the caller closed it, or writing to it failed
        return
    bar = getattr(sys.modules.get("tqdm"), "tqdm", None)  # imported only if a bar may be on the screen
    if bar is not None:  # the line must not tear the bar
        bar.write(line, file=file)
    else:
        print(line, file=file)


def on_terminal() -> bool:
    """Whether standard error is a terminal, which can show progress."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def complain(text: str) -> None:
    """Print a line on standard error. If that fails, there is no other place to report it, so nothing is raised."""
    try:
        _print(f"qatqfs: {shown(text)}", sys.stderr)
    except OSError:
        with contextlib.suppress(OSError):
            sys.stderr.close()  # otherwise the interpreter tries again at exit, and changes the status


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the path to an OSError that names no file yet."""
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
