"""Drafts of files that are written from front to back, and how to let their steps fail."""

import errno
import os
from collections.abc import Callable

from faults import FaultyIO

from qatqfs.codec import Level
from qatqfs.store import StoreOptions
from qatqfs.store.system.fd import Fd
from qatqfs.store.tuning import Tuning

CHUNK = 4096
TUNING = Tuning(ahead_bytes=8 * CHUNK, claim_bytes=64 * CHUNK)
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, level=Level.FAST, tuning=TUNING)


def name_of(subject: object) -> str:
    """What the file is called that a step is about."""
    if isinstance(subject, Fd):
        return os.readlink(subject.proc_path)
    return os.fsdecode(subject) if isinstance(subject, bytes) else ""


def is_draft(args: tuple) -> bool:
    return any(".new" in name_of(one) for one in args)


def fail(io: FaultyIO, *steps: str, of: Callable[[tuple], bool] = is_draft, error: int = errno.EIO) -> None:
    io.fail(error, *steps, when=of)
