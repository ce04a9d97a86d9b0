"""Stores whose process is killed, and that are opened again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from qatqfs.store import Store, StoreOptions

CHUNK = 4096
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1)
DATA = bytes(range(256)) * 50


def die_after(backing: Path, work: Callable[[Store], object], options: StoreOptions = OPTIONS) -> None:
    """Do something with a store in a process that is killed right afterwards."""
    pid = os.fork()
    if pid == 0:
        try:
            store = Store(backing, options)
            kept = work(store)  # noqa: F841  an open handle must stay open until the end
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)


def reopen(backing: Path) -> Store:
    return Store(backing, OPTIONS)
