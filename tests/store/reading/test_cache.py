"""The chunk cache and its memory: used again, and never while anybody still reads it."""

import random
import threading
import tracemalloc
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qatqfs.codec import Container
from qatqfs.store import Store, StoreOptions
from qatqfs.store.counters import Counters
from qatqfs.store.reading import cache as chunkcache
from qatqfs.store.reading.buffers import BufferPool
from qatqfs.store.reading.cache import ChunkCache


def test_memory_that_nobody_holds_is_used_again() -> None:
    pool = BufferPool(1 << 20)
    view = pool.take(5000)
    view[:] = b"x" * 5000
    block = view.obj
    pool.give_back(view)
    del view
    again = pool.take(6000)  # the same number of pages
    assert again.obj is block
    assert len(again) == 6000


@pytest.mark.parametrize("part", [slice(None), slice(10, 20), slice(0, 0)])
def test_memory_is_not_used_again_while_a_slice_of_it_lives(part: slice) -> None:
    pool = BufferPool(1 << 20)
    view = pool.take(5000)
    view[:] = b"x" * 5000
    kept = view[part]
    pool.give_back(view)
    del view
    others = [pool.take(5000) for _ in range(5)]
    for other in others:
        other[:] = b"y" * 5000
    assert set(kept.tobytes()) <= {ord("x")}
    block = kept.obj
    kept.release()
    assert any(taken.obj is block for taken in [pool.take(5000) for _ in range(5)])


def test_no_more_than_the_bound_is_kept() -> None:
    pool = BufferPool(8192)
    views = [pool.take(4096) for _ in range(5)]
    blocks = [view.obj for view in views]
    for view in views:
        pool.give_back(view)
    del views, view
    taken = [pool.take(4096) for _ in range(5)]
    assert sum(any(view.obj is block for block in blocks) for view in taken) == 2


def test_what_is_no_memory_of_the_pool_is_ignored() -> None:
    pool = BufferPool(1 << 20)
    pool.give_back(memoryview(b"constant"))
    assert pool.take(8).obj != b"constant"


def test_a_length_whose_only_block_is_in_use_again_makes_no_room() -> None:
    pool = BufferPool(2 * 8192)
    pool.give_back(pool.take(4096))
    in_use = pool.take(4096)
    for _ in range(3):
        pool.give_back(memoryview(bytearray(8192)))
    assert len(in_use) == 4096
    assert [len(pool.take(8192).obj) for _ in range(2)] == [8192, 8192]  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from(["take", "drop", "keep"]), st.sampled_from([1, 64, 4096, 8192, 20000]))))
def test_any_order_of_taking_and_giving_back_keeps_the_pool_within_its_bound(steps: list[tuple[str, int]]) -> None:
    pool = BufferPool(3 * 8192)
    held: list[memoryview] = []
    for action, size in steps:
        if action == "take" or not held:
            held.append(pool.take(size))
            assert len(held[-1]) == size
        else:
            given = held.pop(size % len(held))
            pool.give_back(given)
            if action == "keep":  # a reader still has it
                held.append(given)
        assert pool.kept_bytes <= 3 * 8192


def test_the_length_that_came_back_least_recently_makes_room() -> None:
    pool = BufferPool(3 * 8192)
    old = [pool.take(4096) for _ in range(6)]
    for view in old:
        pool.give_back(view)
    del old, view
    fresh = [pool.take(8192) for _ in range(3)]
    blocks = {id(view.obj) for view in fresh}
    for view in fresh:
        pool.give_back(view)
    del fresh, view
    assert {id(view.obj) for view in [pool.take(8192) for _ in range(3)]} == blocks


@pytest.mark.parametrize(("size", "block"), [(0, 64), (2, 64), (65, 128), (4095, 4096), (4096, 4096), (4097, 8192)])
def test_a_small_chunk_takes_a_small_block(size: int, block: int) -> None:
    assert len(BufferPool(0).take(size).obj) == block  # type: ignore[arg-type]


IN_CACHE = 4096 + 1024
"""What a chunk of 4 KiB counts for."""


def cache_of(chunks: int) -> ChunkCache:
    return ChunkCache(chunks * IN_CACHE, Counters())


def test_tiny_chunks_count_for_what_they_really_take() -> None:
    cache = ChunkCache(1 << 20, Counters())
    tracemalloc.start()
    try:
        for number in range(1_000_000, 1_010_000):
            cache.get(("file", number), lambda: cache.pool.take(2))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (1 << 19) < cache.current_bytes <= 1 << 20
    assert taken < cache.current_bytes


def filled(cache: ChunkCache, byte: int) -> memoryview:
    view = cache.pool.take(4096)
    view[:] = bytes([byte]) * 4096
    return view


def test_a_chunk_that_is_dropped_gives_its_memory_to_the_next() -> None:
    cache = cache_of(2)
    blocks = set()
    for number in range(50):
        blocks.add(id(cache.get(number, lambda n=number: filled(cache, n)).obj))  # type: ignore[union-attr]
    assert len(blocks) <= 4
    assert cache.current_bytes == 2 * IN_CACHE


def test_readers_keep_what_they_read_whatever_the_cache_drops() -> None:
    cache = cache_of(3)
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng = random.Random(seed)
        held: list[tuple[int, memoryview | bytes]] = []
        for _ in range(2000):
            number = rng.randrange(40)
            chunk = cache.get(number, lambda n=number: filled(cache, n))
            held.append((number, chunk[rng.randrange(4096) :]))
            if len(held) > 5:
                expected, part = held.pop(rng.randrange(len(held)))
                if set(bytes(part)) != {expected}:
                    wrong.append(expected)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read, range(4)))
    assert wrong == []


def test_a_chunk_is_decoded_once_however_many_wait() -> None:
    cache = cache_of(2)
    started, proceed = threading.Event(), threading.Event()
    calls = []

    def decode() -> bytes:
        calls.append(1)
        started.set()
        proceed.wait(10)
        return b"chunk"

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(cache.get, "key", decode)
        started.wait(10)
        with cache.claimed(["key", "other"]) as mine:
            assert mine == ["other"]
            others = [threads.submit(cache.get, "key", decode) for _ in range(3)]
            proceed.set()
            assert [f.result(10) for f in (first, *others)] == [b"chunk"] * 4
            assert len(calls) == 1
            cache.settle("other", b"x")
    assert cache.get("other", decode) == b"x"


def test_all_who_wait_get_the_error_and_the_next_tries_again() -> None:
    cache = cache_of(2)
    with ThreadPoolExecutor(1) as threads, cache.claimed(["key"]) as mine:
        assert mine == ["key"]
        waiting = threads.submit(cache.get, "key", lambda: b"unused")
        cache.settle("key", OSError("no"))
        with pytest.raises(OSError, match="no"):
            waiting.result(10)
    assert cache.get("key", lambda: b"yes") == b"yes"


@pytest.mark.parametrize("fault", [MemoryError, KeyboardInterrupt, SystemExit, OSError])
def test_however_a_claim_ends_who_waits_for_it_decodes_it_himself(fault: type[BaseException]) -> None:
    cache = cache_of(2)
    waiting: list[Future] = []

    def fail(threads: ThreadPoolExecutor) -> None:
        with cache.claimed(["one", "two"]) as mine:
            waiting.extend(threads.submit(cache.get, key, lambda key=key: key.encode()) for key in mine)
            raise fault

    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(fault):
            fail(threads)
        assert [each.result(10) for each in waiting] == [b"one", b"two"]


@pytest.mark.parametrize("fault", [MemoryError, KeyboardInterrupt, SystemExit])
def test_only_who_was_out_of_memory_is_told_so(fault: type[BaseException]) -> None:
    cache = cache_of(2)
    started, proceed = threading.Event(), threading.Event()

    def fail() -> bytes:
        started.set()
        proceed.wait(10)
        raise fault

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.get, "key", fail)
        assert started.wait(10)
        second = threads.submit(cache.get, "key", lambda: b"chunk")
        proceed.set()
        assert second.result(10) == b"chunk"
        assert first.exception(10).__class__ is fault


def test_running_out_of_memory_amid_claiming_leaves_nothing_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, made = cache_of(2), []

    def scarce() -> Future:
        if made:
            raise MemoryError
        made.append(1)
        return Future()

    monkeypatch.setattr(chunkcache, "Future", scarce)
    with pytest.raises(MemoryError), cache.claimed(["one", "two"]):
        pytest.fail("not claimed")
    monkeypatch.undo()
    assert [cache.get(key, lambda: b"x") for key in ("one", "two")] == [b"x", b"x"]


def test_running_out_of_memory_while_keeping_a_chunk_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(2)

    def scarce(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(chunkcache._Chunks, "__setitem__", scarce)
    with pytest.raises(MemoryError):
        cache.get("key", lambda: b"x")
    monkeypatch.undo()
    assert cache.get("key", lambda: b"y") == b"y"


@pytest.mark.parametrize("fault", [MemoryError, SystemExit, RuntimeError])
def test_read_ahead_that_fails_in_any_way_leaves_readers_their_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[BaseException]
) -> None:
    content = random.Random(0).randbytes(16 * 4096)
    with Store(tmp_path, StoreOptions(chunk_size=4096, workers=2)) as store:
        with store.create(b"x") as handle:
            handle.write(content, 0)
        store.sync()
        failed: list[int] = []

        def fail(self: Container, first: int, *_: object) -> None:
            failed.append(first)
            raise fault

        monkeypatch.setattr(Container, "read_chunks", fail)
        with store.open(b"x") as handle, ThreadPoolExecutor(4) as readers:
            found = [readers.submit(handle.read, len(content), 0) for _ in range(4)]
            assert [bytes(each.result(20)) for each in found] == [content] * 4
        assert failed


def test_a_chunk_larger_than_the_cache_is_returned_and_not_kept() -> None:
    cache = ChunkCache(0, Counters())
    assert cache.get(1, lambda: b"abc") == b"abc"
    assert cache.peek(1) is None


def test_a_file_larger_than_the_cache_is_read_through_a_few_blocks_of_memory(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(64 * 4096)
    with Store(tmp_path, StoreOptions(chunk_size=4096, cache_size=4 * 4096, workers=1)) as store:
        with store.create(b"x") as handle:
            handle.write(content, 0)
        store.sync()
        with store.open(b"x") as handle:
            blocks = set()
            for offset in range(0, len(content), 4096):
                chunk = handle.node.container().chunk(offset // 4096)
                assert chunk == content[offset : offset + 4096]
                blocks.add(id(chunk.obj))  # type: ignore[union-attr]
    assert len(blocks) < 32
