"""Who makes a write: the event loop's thread while that is quick, worker threads while the disk cannot keep up."""

import threading
from types import SimpleNamespace

import pytest
import trio

from qatqfs.mount import file_ops
from qatqfs.mount.file_ops import FileOperations

pytest.importorskip("pyfuse3")


class Disk:
    """A node and a handle whose writes take as long as the test says, on a clock of its own."""

    writable = True

    def __init__(self) -> None:
        self.clock = 100.0
        self.takes = 0.0
        self.ready = True
        self.made: list[str] = []
        self.node = SimpleNamespace(write_quickly=self.write_quickly)

    def write_quickly(self, data: bytes, offset: int) -> int | None:
        if not self.ready:
            return None
        self.made.append("loop")
        self.clock += self.takes
        return len(data)

    def write(self, data: bytes, offset: int) -> int:
        self.made.append("worker" if threading.current_thread() is not threading.main_thread() else "?")
        return len(data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(file_ops, "time", SimpleNamespace(monotonic=lambda: found.clock))
    return found


def write(disk: Disk, times: int, pause: float = 0.0) -> list[str]:
    """Let the handler make some writes; returns who made each."""
    operations = FileOperations.__new__(FileOperations)
    operations.file = lambda number: SimpleNamespace(handle=disk)  # type: ignore[method-assign]

    async def run(function, *args):
        return await trio.to_thread.run_sync(function, *args)

    operations.run = run  # type: ignore[method-assign]
    disk.made.clear()

    async def all_of_them() -> None:
        for i in range(times):
            assert await operations.write(1, i, b"abc") == 3
            disk.clock += pause

    trio.run(all_of_them)
    return list(disk.made)


def test_a_quick_write_needs_no_other_thread(disk: Disk) -> None:
    assert write(disk, 5) == ["loop"] * 5


def test_after_a_slow_write_workers_make_them_for_a_while(disk: Disk) -> None:
    disk.takes = 0.3
    assert write(disk, 4, pause=0.01) == ["loop", "worker", "worker", "worker"]
    assert write(disk, 3, pause=1.1) == ["loop"] * 3


def test_what_takes_more_than_a_copy_is_never_done_on_the_loop(disk: Disk) -> None:
    disk.ready = False
    assert write(disk, 2) == ["worker"] * 2
