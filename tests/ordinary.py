"""Tests as an ordinary user: as who runs them, or if that is root as somebody else, in a child process."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sidebyside import as_user

R = TypeVar("R")

NOBODY = 65534
"""User and group of the one ordinary user that every system has; fusermount3 mounts for users with a name only."""


@contextlib.contextmanager
def own_directory() -> Iterator[Path]:
    """A directory of that user's, where he can reach it; it is removed whatever modes he leaves in it."""
    path = Path(tempfile.mkdtemp(prefix="qatqfs-user-"))
    try:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield path
    finally:
        for directory, _, _ in os.walk(path):
            os.chmod(directory, 0o700)  # or what is in it cannot be removed
        shutil.rmtree(path)


def can_run_programs() -> bool:
    """Whether that user can start the interpreter of these tests: not in a checkout below a directory such as /root."""
    if os.geteuid() != 0:
        return True
    try:
        subprocess.run([sys.executable, "-c", ""], check=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def as_ordinary_user(directory: Path, work: Callable[[Path], R]) -> R:
    """Do work as that user, in a directory of his; raises AssertionError with the traceback of whatever it raised."""
    if os.geteuid() != 0:
        return work(directory)
    found = as_user(NOBODY, NOBODY, (), directory, lambda _: _caught(work, directory))
    if isinstance(found, str):
        raise AssertionError(f"as an ordinary user: {found}")
    return found[0]


def _caught(work: Callable[[Path], R], directory: Path) -> tuple[R] | str:
    try:
        return (work(directory),)
    except BaseException:
        return traceback.format_exc()
