"""A directory in a mount beside a plain one: the same work in both has to have the same outcome.

The plain one is on the filesystem that BACKING is on, which makes it the oracle: what the kernel does to a plain
directory is what programs expect of the mount.
"""

import contextlib
import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mounted import Mounted

R = TypeVar("R")
Work = Callable[[Path], Any]

STRANGER = 54321
"""A user and group id that owns nothing and is in no group."""


@dataclass(frozen=True)
class Failed:
    """The outcome of work that failed."""

    errno: str


def outcome(work: Work, directory: Path) -> Any:
    """What work returns, or the errno it fails with."""
    try:
        return work(directory)
    except OSError as err:
        return Failed(errno.errorcode[err.errno or errno.EIO])


@dataclass(frozen=True)
class SideBySide:
    """An empty directory in a mount and a plain one."""

    mount: Mounted
    here: Path
    plain: Path

    def both(self, work: Work) -> Any:
        """Do work in both directories and return its outcome, which has to be the same."""
        expected = outcome(work, self.plain)
        found = outcome(work, self.here)
        assert found == expected, f"{found} in the mount, {expected} in a plain directory"
        return found

    def both_as(self, user: int, work: Work, *, group: int | None = None, groups: Sequence[int] = ()) -> Any:
        """As :meth:`both`, as another user."""
        group = user if group is None else group
        return self.both(lambda directory: as_user(user, group, groups, directory, work))


def as_user(user: int, group: int, groups: Sequence[int], directory: Path, work: Callable[[Path], R]) -> R:
    """Do work in a child process that is another user, with the directory as its current one.

    The work gets the path ``.``: what is above the directory may be closed to that user.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(directory)
            os.setgroups(groups)
            os.setgid(group)
            os.setuid(user)
            with os.fdopen(writable, "wb") as pipe:
                pickle.dump(outcome(work, Path()), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the child failed"
    result = pickle.loads(answer)
    if isinstance(result, Failed):
        raise OSError(getattr(errno, result.errno), result.errno)
    return result


@contextlib.contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    """A file descriptor for a while."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another Python process, with pipes to and from it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
