"""What the tests of the store share: contents, whole files through a store, and what BACKING holds."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from strict_decoder import decode_container

from qatqfs.store import Handle, Store
from qatqfs.store.commit.ahead import AheadEncoder
from qatqfs.store.names.node import Node
from qatqfs.store.staging import records

ANOTHER_BOOT = b"another boot id!"
DEADLINE_S = 60


def content(size: int, seed: int = 0) -> bytes:
    """Floating-point numbers, which an encoder makes a little smaller."""
    return np.random.default_rng(seed).normal(size=size // 4 + 1).astype("<f4").tobytes()[:size]


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no encoder makes smaller. No two 4 KiB blocks are alike, whatever their seeds."""
    return np.random.default_rng(seed).bytes(size)


def write(store: Store, path: bytes, data: bytes, offset: int = 0, *, mode: int = 0o644) -> None:
    """Write into a file, which is created if it is absent and keeps its other bytes if it is not."""
    with store.create(path, mode) as handle:
        assert handle.write(data, offset) == len(data)


def write_sequentially(handle: Handle, data: bytes, piece: int = 4096) -> None:
    for offset in range(0, len(data), piece):
        assert handle.write(data[offset : offset + piece], offset) == len(data[offset : offset + piece])


def write_and_keep_open(data: bytes, offset: int = 0, *, path: bytes = b"x") -> Callable[[Store], Handle]:
    """Work for a store that is killed: it writes, and returns the handle."""

    def work(store: Store) -> Handle:
        handle = store.create(path)
        assert handle.write(data, offset) == len(data)
        return handle

    return work


def read(store: Store, path: bytes) -> bytes:
    """The whole file, which ends where its size says."""
    with store.open(path) as handle:
        size = handle.attributes().size
        data = bytes(handle.read(size + 1, 0))
        assert len(data) == size
        return data


def stored(container: Path) -> bytes:
    """The content of a container, by a decoder that is not the product's."""
    return decode_container(container.read_bytes()).raw


def stored_names(backing: Path) -> list[str]:
    """The names of the stored files, wherever they are."""
    return sorted(path.name for path in backing.rglob("*") if ".qatqfs" not in path.parts and path.is_file())


def staged(backing: Path) -> list[Path]:
    """The files in staging."""
    return sorted((backing / ".qatqfs/staging").iterdir())


def lost_and_found(backing: Path) -> dict[str, bytes]:
    """What lost+found holds, by name: the content of containers, and other files as they are."""
    found = (backing / ".qatqfs/lost+found").iterdir()
    return {path.name: stored(path) if path.suffix == ".qatc" else path.read_bytes() for path in found}


def reboot(monkeypatch: pytest.MonkeyPatch, boot: bytes = ANOTHER_BOOT) -> None:
    """Let the next store believe that the machine was started again since."""
    monkeypatch.setattr(records, "current_boot_id", lambda: boot)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something in another thread makes a condition true."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.01)


def looks_ahead(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Let the encoder ahead count each time that it has looked at a file and has done what there was to do."""
    looked, real = threading.Semaphore(0), AheadEncoder._advance

    def counting(encoder: AheadEncoder, node: Node) -> None:
        try:
            real(encoder, node)
        finally:
            looked.release()

    monkeypatch.setattr(AheadEncoder, "_advance", counting)
    return looked


def wait_until_committed(store: Store) -> None:
    wait_for(lambda: not store.stats()["dirty_files"])


def wait_for_draft(handle: Handle, chunks: int) -> None:
    """Wait until so many chunks of a file are encoded ahead."""

    def encoded() -> bool:
        draft = handle.node.staging.draft
        return draft is not None and draft.count >= chunks

    wait_for(encoded)
