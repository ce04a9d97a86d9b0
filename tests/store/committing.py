"""A small file whose commit a test meddles with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qatqfs.codec import Level
from qatqfs.store import Handle, Store, StoreOptions
from qatqfs.store.commit import metadata_copy

CHUNK = 4096
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, level=Level.FAST)
DATA = np.random.default_rng(1).bytes(20 * CHUNK)
FIRST_NS, THEN_NS = 1_000_000_007, 1_700_000_000_123_456_789


def during_the_commit(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something once, after the next commit has given its container the file's metadata and before it swaps."""
    real = metadata_copy.copy_metadata

    def then_act(*args: Any) -> None:
        monkeypatch.setattr(metadata_copy, "copy_metadata", real)
        real(*args)
        action()

    monkeypatch.setattr(metadata_copy, "copy_metadata", then_act)


def changed_file(store: Store) -> Handle:
    """A committed file that was changed in one chunk."""
    handle = store.create(b"x")
    handle.write(DATA, 0)
    store.sync()
    handle.write(b"changed", 5 * CHUNK)
    return handle
