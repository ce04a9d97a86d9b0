"""No file that is gone stays open, nor takes space: not in a thread's memory, a table or an error, whatever happened.

The garbage collector is off in these tests, for in an idle daemon it does not run either.
"""

import ast
import errno
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultyIO, abandon
from helpers import noise, wait_for, wait_until_committed, write
from mounted import errno_of

from qatqfs import codec, mount
from qatqfs import store as store_package
from qatqfs.codec import DType, encode_container
from qatqfs.store import Store, StoreOptions
from qatqfs.store.counters import Counters
from qatqfs.store.encoding import plan as building
from qatqfs.store.names.tree import Tree
from qatqfs.store.reading.cache import ChunkCache
from qatqfs.store.system.fd import Fd

CHUNK = 4096
DEADLINE_S = 20


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def gone_but_open(backing: Path) -> list[str]:
    """The regular files of a filesystem that this process has open and that have no name."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            st, path = os.stat(f"/proc/self/fd/{name}"), os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if st.st_nlink == 0 and path.startswith(str(backing)):
            found.append(path)
    return found


def none_left(backing: Path) -> bool:
    """Whether all of them are closed, now or as soon as what goes on in other threads is over."""
    deadline = time.monotonic() + DEADLINE_S
    while left := gone_but_open(backing):  # one look decides: a commit of another file has some of its own for a moment
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return not left


def remove(store: Store) -> None:
    store.unlink(b"x")


def replace(store: Store) -> None:
    write(store, b"y", b"other")
    store.rename(b"y", b"x")


@pytest.fixture(params=[remove, replace])
def end(request: pytest.FixtureRequest) -> Callable[[Store], None]:
    """What makes a file's content nobody's."""
    return request.param


def test_of_a_file_that_was_committed_by_a_background_thread(
    open_store, backing: Path, end: Callable[[Store], None]
) -> None:
    store = open_store(workers=2)
    for _ in range(4):  # each thread has its turn
        write(store, b"x", noise(20 * CHUNK))
        wait_until_committed(store)
    end(store)
    assert none_left(backing)


def test_of_a_file_that_a_barrier_committed(store: Store, backing: Path, end: Callable[[Store], None]) -> None:
    write(store, b"x", noise(20 * CHUNK))
    store.sync()
    write(store, b"x", b"again", CHUNK)
    store.sync()
    end(store)
    assert none_left(backing)


def test_of_a_file_that_rests_before_its_commit(open_store, backing: Path, end: Callable[[Store], None]) -> None:
    store = open_store(chunk_size=1 << 20)
    write(store, b"x", noise(12 << 20))
    wait_until_committed(store)
    for _ in range(3):  # a commit of each would write much, so it is put off, each time anew
        write(store, b"x", b"a little", 5)
    assert store.stats()["dirty_files"]
    end(store)
    assert none_left(backing)


def test_of_a_file_with_several_names_when_the_last_one_goes(store: Store, backing: Path) -> None:
    write(store, b"x", noise(20 * CHUNK))
    store.link(b"x", b"also")
    store.sync()
    write(store, b"also", b"again", CHUNK)
    store.sync()
    store.unlink(b"x")
    write(store, b"also", b"and again", CHUNK)
    store.unlink(b"also")
    assert none_left(backing)


def test_of_a_file_that_is_removed_while_it_is_committed(
    store: Store, backing: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[Store], None]
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    real = building.StreamEncoder.encode

    def pausing(*args, **kwargs):
        reached.set()
        assert go_on.wait(DEADLINE_S)
        return real(*args, **kwargs)

    monkeypatch.setattr(building.StreamEncoder, "encode", pausing)
    write(store, b"x", noise(20 * CHUNK))
    assert reached.wait(DEADLINE_S)
    end(store)
    monkeypatch.setattr(building.StreamEncoder, "encode", real)
    go_on.set()
    assert none_left(backing)


@pytest.mark.parametrize("operation", ["pwrite", "rename", "fsync", "chmod"])
def test_of_a_file_whose_commit_has_failed(backing: Path, operation: str, end: Callable[[Store], None]) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=2), io=io) as store:
        write(store, b"x", noise(20 * CHUNK))
        store.sync()
        write(store, b"x", b"again", CHUNK)
        io.fail(errno.EIO, operation)
        assert errno_of(store.sync) == "EIO"
        failed = store.stats()["commit_failures"]
        wait_for(lambda: store.stats()["commit_failures"] > failed)  # once more, in the background
        io.heal()
        end(store)
        assert none_left(backing)


def test_of_an_entry_that_could_not_be_removed_after_its_commit(backing: Path) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0), io=io) as store:
        write(store, b"x", noise(20 * CHUNK))
        store.sync()
        write(store, b"x", b"again", CHUNK)
        io.fail(errno.EIO, "unlink")
        assert errno_of(store.sync) == "EIO"
        assert none_left(backing)
        io.heal()


def test_of_a_file_that_is_encoded_ahead(open_store, backing: Path, end: Callable[[Store], None]) -> None:
    store = open_store(chunk_size=65536, workers=2)
    for offset in range(0, 48 << 20, 1 << 20):
        write(store, b"x", noise(1 << 20), offset)
    end(store)
    assert none_left(backing)


def test_of_a_file_that_a_forgotten_handle_had_open(store: Store, backing: Path) -> None:
    handle = store.create(b"x")
    handle.write(noise(20 * CHUNK), 0)
    handle.close()
    store.unlink(b"x")
    assert none_left(backing)


def test_of_a_damaged_file_that_was_read_by_several(store: Store, backing: Path) -> None:
    stored = bytearray(encode_container(noise(40 * CHUNK), DType.BF16, values_per_chunk=CHUNK // 2))
    for place in range(200, len(stored) - 400, CHUNK):
        stored[place] ^= 1
    (backing / "x.qatc").write_bytes(stored)

    def read() -> None:
        with store.open(b"x") as handle:
            assert [errno_of(handle.read, 8 * CHUNK, at * CHUNK) for at in range(0, 32, 4)] == ["EIO"] * 8

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    store.unlink(b"x")
    assert none_left(backing)


def test_of_a_file_that_is_no_container(store: Store, backing: Path) -> None:
    (backing / "x.qatc").write_bytes(b"no container")
    assert store.stat(b"x").size == len(b"no container")
    assert errno_of(store.open, b"x") == "EIO"
    store.unlink(b"x")
    assert none_left(backing)


def test_of_a_file_that_a_sync_in_the_background_could_not_commit(backing: Path, end: Callable[[Store], None]) -> None:
    io = FaultyIO()
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0), io=io) as store:
        with store.create(b"x") as handle:
            io.fail(errno.EIO, "rename")
            handle.write(os.urandom(20 * CHUNK), 0)
        _, state = store.sync_state(store.start_sync(b""), DEADLINE_S)
        assert [path for path, _ in state.failures] == ["x"]
        io.heal()
        end(store)
        assert none_left(backing)


def test_of_a_file_that_recovery_could_not_open(backing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    io = FaultyIO()
    store = Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0), io=io)
    handle = store.create(b"x")
    handle.write(b"content", 0)
    store.rename(b"x", b"y")
    abandon(store, io)
    del store, handle
    gc.collect()
    (backing / "y.qatc").rename(backing / "x.qatc")  # the log has both names, the later one is looked at first
    (backing / "y.qatc").write_bytes(b"other")
    other, real = (backing / "y.qatc").stat().st_ino, Tree.open_regular

    def open_regular(self: Tree, fd: Fd) -> Fd:
        if os.fstat(fd.number).st_ino == other:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, fd)

    monkeypatch.setattr(Tree, "open_regular", open_regular)
    with Store(backing, StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0)) as store:
        assert store.stat(b"x").size == len(b"content")
        (backing / "y.qatc").unlink()
        assert none_left(backing)


def test_no_generator_catches_an_error_of_the_block_it_is_a_context_manager_of() -> None:
    """On Python 3.13 such an error and the call of contextlib that has it keep each other."""

    def catches(function: ast.AST) -> bool:
        attempts = [node for node in ast.walk(function) if isinstance(node, ast.Try) and node.handlers]
        return any(isinstance(part, ast.Yield) for one in attempts for body in one.body for part in ast.walk(body))

    modules = [path for package in (codec, mount, store_package) for path in Path(package.__path__[0]).rglob("*.py")]
    managers = [
        node
        for path in modules
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(one).endswith("contextmanager") for one in node.decorator_list)
    ]
    assert len(managers) > 5
    assert [function.name for function in managers if catches(function)] == []


def test_an_error_that_several_wait_for_keeps_nothing_of_them() -> None:
    class Held:
        pass

    cache = ChunkCache(1 << 20, Counters())
    decoding, go_on = threading.Event(), threading.Event()
    gone: list[int] = []

    def decode(held: Held) -> bytes:
        decoding.set()
        assert go_on.wait(DEADLINE_S)
        raise OSError(errno.EIO, f"bad, and not because of {held}")

    def read(number: int) -> None:
        held = Held()
        weakref.finalize(held, gone.append, number)
        assert errno_of(cache.get, "key", lambda: decode(held)) == "EIO"

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:  # one decodes, the others wait for it
        reader.start()
        assert decoding.wait(DEADLINE_S)
    go_on.set()
    for reader in readers:
        reader.join()
    assert sorted(gone) == [0, 1, 2, 3]
