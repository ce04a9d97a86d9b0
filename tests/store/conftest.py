import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qatqfs.store import Store, StoreOptions
from qatqfs.store.system import backing as backingio

if TYPE_CHECKING:
    from faults import FaultyIO

sys.path.insert(0, str(Path(__file__).parent))  # helper modules beside the tests


@pytest.fixture(autouse=True)
def ordinary_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same system calls on every machine, so that the steps of a test are."""
    monkeypatch.setattr(backingio, "HOST_TAKES_MEMORY", False)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "backing"
    path.mkdir()
    return path


@pytest.fixture
def open_store(backing: Path):
    """Open stores on ``backing``; those that a test leaves open are closed."""
    opened: list[Store] = []

    def opener(**options: object) -> Store:
        options.setdefault("chunk_size", 4096)
        options.setdefault("idle_seconds", 3600.0)  # commits happen when a test says so, or at the last close
        options.setdefault("durable_after", 0.0)  # and so does everything else
        store = Store(backing, StoreOptions(**options))  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield opener
    for store in opened:
        store.close(commit=False)


@pytest.fixture
def store(open_store) -> Store:
    return open_store()


@pytest.fixture
def io() -> "FaultyIO":
    """I/O of a store that a test can let fail."""
    from faults import FaultyIO

    return FaultyIO()
