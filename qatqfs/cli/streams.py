"""Standard output and standard error: a failure to write becomes one line and an exit status of this command.

Without this, the interpreter notices a full disk under standard output only at exit. It then prints three lines and
exits with 120, its own status.
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

    It is not an OSError, so that it is not mistaken for an error about an input file.

    Attributes:
        status: the exit status to use.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror}")
        self.status = OUTPUT_CLOSED if isinstance(error, BrokenPipeError) else REFUSED


class _Results(io.TextIOWrapper):
    """Standard output that raises OutputFailed if writing fails, for this package and for click."""

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
    """Prepare the standard streams of this process. Call it once, before any output."""
    if isinstance(out := sys.stdout, io.TextIOWrapper):
        encoding, at_lines, at_once = out.encoding, out.line_buffering, out.write_through
        sys.stdout = _Results(out.detach(), encoding=encoding, line_buffering=at_lines, write_through=at_once)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Write out everything that the body prints, however it ends, so that nothing is left for the interpreter's exit.

    Raises:
        OutputFailed: results cannot be written; they are lost.
    """
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a bar on a terminal that was closed
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
            os.close(os.dup(stream.fileno()))  # network filesystems report some errors only at close(2)
    except (OSError, OutputFailed):
        with contextlib.suppress(OSError, OutputFailed):
            stream.close()  # so that its buffer is not written again
        raise
