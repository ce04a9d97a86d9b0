"""Modes, umasks and files of every kind, for tests of permissions."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from sidebyside import STRANGER

OTHER = STRANGER + 1
GROUP = STRANGER + 2


def mode_of(path: Path) -> str:
    return oct(path.lstat().st_mode)


def under_umask(umask: int, work: Callable[[], object]) -> None:
    old = os.umask(umask)
    try:
        work()
    finally:
        os.umask(old)


def make_one_of_each(directory: Path, mode: int) -> None:
    os.close(os.open(directory / "file", os.O_CREAT | os.O_WRONLY, mode))
    os.mkdir(directory / "directory", mode)
    os.mkfifo(directory / "fifo", mode)
    os.mknod(directory / "node", stat.S_IFREG | mode)
    os.symlink("target", directory / "symlink")
    with socket.socket(socket.AF_UNIX) as listener:
        inside = os.open(directory, os.O_PATH)
        listener.bind(f"/proc/self/fd/{inside}/socket")
        os.close(inside)
