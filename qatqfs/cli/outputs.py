"""Output files, which appear complete under their name or not at all."""

import contextlib
import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import click

from qatqfs.cli.exits import SIGNALLED, Refusal, naming, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.store.system.fd import fsync_directory

_F = TypeVar("_F", bound=Callable[..., Any])

Job = tuple[str, str]
"""Paths of an input and of the output made from it."""

_LONGEST_PREFIX = 200  # bytes of NAME_MAX (255); the rest makes the name unique


def output_options(one: str, several: str) -> Callable[[_F], _F]:
    """Return -o and --output-dir, with a help text for each."""

    def add(command: _F) -> _F:
        command = click.option("--output-dir", metavar="DIR", type=click.Path(), help=several)(command)
        return click.option("-o", "--output", metavar="OUT", type=click.Path(), help=one)(command)

    return add


def plan(
    inputs: tuple[str, ...],
    output: str | None,
    output_dir: str | None,
    name_of: Callable[[str], str],
    outcome: Outcome,
) -> list[Job]:
    """Decide the output path of each input.

    Args:
        inputs: paths.
        output: what ``-o`` names.
        output_dir: what ``--output-dir`` names.
        name_of: the output's name for an input's path; may raise Refusal.
        outcome: told of those refusals; the inputs are left out.

    Raises:
        click.UsageError: the options and inputs do not go together, or two outputs would be the same file.
        Refusal: the output directory does not exist.
    """
    if (output is None) == (output_dir is None):
        raise click.UsageError("give either -o OUT or --output-dir DIR")
    if output is not None:
        if len(inputs) > 1:
            raise click.UsageError("-o takes one input; use --output-dir DIR for several")
        return [(inputs[0], output)]
    assert output_dir is not None
    if not os.path.isdir(output_dir):
        raise Refusal(f"{shown(output_dir)}: is not an existing directory")
    sources: dict[str, str] = {}
    for path in inputs:
        with outcome.of(path):
            target = os.path.join(output_dir, name_of(path))
            if target in sources:
                raise click.UsageError(f"{shown(sources[target])} and {shown(path)} would both become {shown(target)}")
            sources[target] = path
    return [(path, target) for target, path in sources.items()]


@contextlib.contextmanager
def replacing(target: str, source: os.stat_result) -> Iterator[int]:
    """Write a file under a temporary name beside its own; rename it at the end, or remove it after an error.

    The file gets the mode and the mtime of the source, and its owner if the process may change owners. If the target
    is a symlink, it is followed.

    Args:
        target: path of the file.
        source: attributes of the file that it is made from.

    Yields:
        A descriptor to write to.

    Raises:
        Refusal: the target is the source itself, or exists and is not a regular file.
        OSError: it cannot be written; the error names the target.
    """
    with naming(target):
        _check_target(target, source)
    destination = os.path.realpath(target)
    directory, name = os.path.split(destination)
    prefix = os.fsdecode(b"." + os.fsencode(name)[:_LONGEST_PREFIX] + b".")
    with _about(target):
        fd, temporary = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=directory)
    try:
        try:
            with naming(target):
                yield fd
                _copy_metadata(source, fd)
                os.fsync(fd)
        finally:
            os.close(fd)
        with _about(target):
            os.rename(temporary, destination)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with _about(target):
        _fsync(directory)


@contextlib.contextmanager
def _about(target: str) -> Iterator[None]:
    """Let an OSError name the target instead of the temporary file."""
    try:
        yield
    except OSError as err:
        raise OSError(err.errno, err.strerror, target) from err


def _check_target(target: str, source: os.stat_result) -> None:
    try:
        there = os.stat(target)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(there.st_mode):
        raise Refusal(f"{shown(target)}: is a directory; give one with --output-dir")
    if not stat.S_ISREG(there.st_mode):
        raise Refusal(f"{shown(target)}: is not a regular file")
    if os.path.samestat(there, source):
        raise Refusal(f"{shown(target)}: input and output are the same file")


def _copy_metadata(source: os.stat_result, fd: int) -> None:
    mode = stat.S_IMODE(source.st_mode)
    try:
        os.fchown(fd, source.st_uid, source.st_gid)
    except OSError:
        mode &= 0o777  # set-id bits are meant for the old owner only
    os.fchmod(fd, mode)
    os.utime(fd, ns=(source.st_atime_ns, source.st_mtime_ns))


def _fsync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync_directory(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def clean_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command with an exception, so that it removes half-written files."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(SIGNALLED + number)

    wanted = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]  # nohup(1)
    before = {number: signal.signal(number, leave) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
