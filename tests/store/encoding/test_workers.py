"""Worker threads that fill a draft: in order, bounded, and never waited for in vain."""

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from helpers import wait_for

from qatqfs.codec import Level
from qatqfs.store.encoding import workers as filling
from qatqfs.store.encoding.workers import fill


class Draft:
    """Takes payloads and notes who was in it at once."""

    chunk_size = filling.HOP_BYTES
    level = Level.BALANCED

    def __init__(self) -> None:
        self.count = 0
        self.got: list[bytes] = []
        self.inside = 0
        self.fails_at: int | None = None

    def append(self, payloads: list[bytes]) -> None:
        self.inside += 1
        assert self.inside == 1
        time.sleep(0.001)
        if self.fails_at is not None and self.count >= self.fails_at:
            raise OSError(errno.ENOSPC, "full")
        self.got += payloads
        self.count += len(payloads)
        self.inside -= 1


def number(first: int, stop: int) -> list[bytes]:
    return [b"%d" % chunk for chunk in range(first, stop)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_payloads_come_in_order_however_long_each_takes(workers: int) -> None:
    draft = Draft()

    made, another = [], threading.Event()

    def payloads(first: int, stop: int) -> list[bytes]:
        if first == 0 and workers > 1:
            assert another.wait(20)  # the first takes longer than one that comes later
        made.append(first)
        another.set()
        return number(first, stop)

    with ThreadPoolExecutor(workers) as executor:
        fill(draft, 100, payloads, executor, workers)  # type: ignore[arg-type]
    assert (made[0] == 0) == (workers == 1)
    assert draft.got == number(0, 100)


def test_what_is_in_flight_is_bounded_while_one_chunk_keeps_all_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    draft, go, made, waits = Draft(), threading.Event(), [], threading.Semaphore(0)

    class Condition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waits.release()
            return super().wait(timeout)

    monkeypatch.setattr(filling, "threading", SimpleNamespace(Condition=Condition))

    def payloads(first: int, stop: int) -> list[bytes]:
        if first == 0:
            assert go.wait(20)
        made.append(first)
        return number(first, stop)

    with ThreadPoolExecutor(3) as executor:
        thread = threading.Thread(target=lambda: fill(draft, 1000, payloads, executor, 3))  # type: ignore[arg-type]
        thread.start()
        assert waits.acquire(timeout=20) and waits.acquire(timeout=20)  # two of three wait, and one has chunk 0
        assert made == list(range(1, 9))
        go.set()
        thread.join()
    assert draft.got == number(0, 1000)


@pytest.mark.parametrize("where", ["payloads", "append"])
def test_a_failure_ends_it_and_is_raised(where: str) -> None:
    draft = Draft()
    draft.fails_at = 10 if where == "append" else None

    def payloads(first: int, stop: int) -> list[bytes]:
        if where == "payloads" and first == 10:
            raise OSError(errno.ENOSPC, "full")
        return number(first, stop)

    with ThreadPoolExecutor(2) as executor, pytest.raises(OSError, match="full"):
        fill(draft, 1000, payloads, executor, 2)  # type: ignore[arg-type]
    assert draft.count <= 10


def test_it_gives_way_to_a_commit() -> None:
    draft, lock = Draft(), SimpleNamespace(wanted=False)

    def payloads(first: int, stop: int) -> list[bytes]:
        lock.wanted = first >= 20
        return number(first, stop)

    with ThreadPoolExecutor(2) as executor:
        fill(draft, 1000, payloads, executor, 2, gives_way_to=lock)  # type: ignore[arg-type]
    assert 20 < draft.count < 40
    assert draft.got == number(0, draft.count)


def test_an_executor_that_is_shut_down_leaves_nobody_waiting() -> None:
    executor, go, ends = ThreadPoolExecutor(1), threading.Event(), []

    def payloads(first: int, stop: int) -> list[bytes]:
        go.wait(20)
        return number(first, stop)

    def run() -> None:
        try:
            fill(Draft(), 1000, payloads, executor, 1)  # type: ignore[arg-type]
        except OSError as err:
            ends.append(err.errno)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: executor._work_queue.qsize() == 2)
    closing = threading.Thread(target=lambda: executor.shutdown(cancel_futures=True))
    closing.start()
    wait_for(lambda: len(ends) == 2)
    go.set()
    for thread in (*threads, closing):
        thread.join(20)
        assert not thread.is_alive()
    assert ends == [errno.ECANCELED] * 3


@pytest.mark.parametrize(
    ("level", "workers", "chunks", "expected"),
    [
        (Level.BALANCED, 2, 1, [1]),
        (Level.BALANCED, 2, 7, [2, 2, 2, 1]),
        (Level.BALANCED, 2, 64, [16, 16, 16, 16]),
        (Level.BALANCED, 2, 100, [16, 16, 16, 16, 16, 16, 4]),
        (Level.BALANCED, 64, 1024, [2] * 512),
        (Level.SMALL, 2, 9, [2, 2, 2, 2, 1]),
    ],
)
def test_workers_take_much_at_a_time_unless_that_is_all_or_too_much(
    level: Level, workers: int, chunks: int, expected: list[int]
) -> None:
    draft, taken = Draft(), []
    draft.chunk_size, draft.level = filling.HOP_BYTES // 16, level

    def payloads(first: int, stop: int) -> list[bytes]:
        taken.append((first, stop))
        return number(first, stop)

    with ThreadPoolExecutor(workers) as executor:
        fill(draft, chunks, payloads, executor, workers)  # type: ignore[arg-type]
    assert [stop - first for first, stop in sorted(taken)] == expected
    assert draft.got == number(0, chunks)
