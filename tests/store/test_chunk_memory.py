"""The chunk cache and its memory: used again, and never while anybody still reads it."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qatqfs.store import Store, StoreOptions
from qatqfs.store.bufferpool import BufferPool
from qatqfs.store.chunkcache import ChunkCache
from qatqfs.store.stats import Statistics


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


def cache_of(chunks: int) -> ChunkCache:
    return ChunkCache(chunks * 4096, Statistics())


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
    assert cache.current_bytes == 2 * 4096


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
        assert cache.claim(["key", "other"]) == [False, True]
        others = [threads.submit(cache.get, "key", decode) for _ in range(3)]
        proceed.set()
        assert [f.result(10) for f in (first, *others)] == [b"chunk"] * 4
    assert len(calls) == 1
    cache.settle("other", b"x")
    assert cache.get("other", decode) == b"x"


def test_all_who_wait_get_the_error_and_the_next_tries_again() -> None:
    cache = cache_of(2)
    assert cache.claim(["key"]) == [True]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(cache.get, "key", lambda: b"unused")
        cache.settle("key", OSError("no"))
        with pytest.raises(OSError, match="no"):
            waiting.result(10)
    assert cache.get("key", lambda: b"yes") == b"yes"


def test_a_chunk_larger_than_the_cache_is_returned_and_not_kept() -> None:
    cache = ChunkCache(0, Statistics())
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
