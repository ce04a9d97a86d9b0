"""Standard output and standard error as a command needs them: what fails there is one line and a status of ours.

Left alone, the interpreter meets a full disk behind standard output only when it leaves: with a status of its own,
120, and three lines.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from qatqfs.cli.exits import OUTPUT_CLOSED, REFUSED


class OutputFailed(Exception):
    """Results cannot be printed; the text says why.

    No OSError, because nobody must take it for one about the file at hand.

    Attributes:
        status: what to exit with.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror}")
        self.status = OUTPUT_CLOSED if isinstance(error, BrokenPipeError) else REFUSED


class _Results(io.TextIOWrapper):
    """Standard output; whoever prints to it, we or click, gets OutputFailed where that fails."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as err:
            raise OutputFailed(err) from err

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as err:
            raise OutputFailed(err) from err


def set_up_streams() -> None:
    """Prepare the standard streams of this process; call it once, first of all."""
    if isinstance(out := sys.stdout, io.TextIOWrapper):
        encoding, at_lines, at_once = out.encoding, out.line_buffering, out.write_through
        sys.stdout = _Results(out.detach(), encoding=encoding, line_buffering=at_lines, write_through=at_once)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names are bytes, any bytes


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Have everything written that is printed inside, however that ends; leave nothing for the interpreter to write.

    Raises:
        OutputFailed: results cannot be written; they are dropped.
    """
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a bar on a terminal that has gone
            _flush(sys.stderr)
        try:
            _flush(sys.stdout)
        except OSError as err:
            raise OutputFailed(err) from err


def _flush(stream: TextIO | None) -> None:
    """Write what is buffered, or close the stream; raises OSError, OutputFailed."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
        with contextlib.suppress(io.UnsupportedOperation):
            os.close(os.dup(stream.fileno()))  # network filesystems say only to close(2) what went wrong
    except (OSError, OutputFailed):
        with contextlib.suppress(OSError, OutputFailed):
            stream.close()  # so that nobody tries again to write what it has
        raise
