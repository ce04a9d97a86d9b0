"""A store and a plain model of a filesystem do the same random things; they must never differ.

Commits run in the background all the while, and now and then the process is killed, at whatever step they are.
"""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
import pytest
from faults import FaultyIO, abandon
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule
from mounted import errno_of
from strict_decoder import decode_container

from qatqfs.codec import Level
from qatqfs.store import Handle, Store, StoreOptions
from qatqfs.store.system.calls import RENAME_EXCHANGE, RENAME_NOREPLACE

CHUNK = 64
MOST = 12 * CHUNK
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, level=Level.FAST, cache_size=4 * CHUNK)
NAMES = [b"a", b"b", b"c", b"d/a", b"d/b"]

names = st.sampled_from(NAMES)
offsets = st.one_of(st.integers(0, MOST), st.integers(0, MOST // CHUNK).map(lambda n: n * CHUNK))
sizes = st.one_of(st.integers(0, 3 * CHUNK), st.integers(0, 4).map(lambda n: n * CHUNK))


@dataclass(eq=False)
class File:
    """An inode of the model."""

    content: bytearray = field(default_factory=bytearray)
    links: int = 1
    mtime_ns: int | None = None  # None: whenever it was written

    def write(self, data: bytes, offset: int) -> None:
        if data:
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + len(data)] = data
            self.mtime_ns = None

    def truncate(self, size: int) -> None:
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))
        self.mtime_ns = None


class StoreMachine(RuleBasedStateMachine):
    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="qatqfs-model-"))
        self.backing = self.base / "backing"
        self.backing.mkdir()
        self.files: dict[bytes, File] = {}
        self.open_now: list[tuple[Handle, File]] = []
        self.generation = 0
        self.serial = 0
        self._open_store()

    def _open_store(self) -> None:
        self.io = FaultyIO()
        self.store = Store(self.backing, OPTIONS, io=self.io)
        self.generation += 1

    @initialize()
    def make_directory(self) -> None:
        self.store.mkdir(b"d")

    def noise(self, size: int) -> bytes:
        self.serial += 1
        return (b"%08d" % self.serial * (size // 8 + 1))[:size]

    # -- files -----------------------------------------------------------------------------------------

    @rule(target=handles, name=names, truncate=st.booleans())
    def create(self, name: bytes, truncate: bool):
        flags = os.O_RDWR | (os.O_TRUNC if truncate else 0)
        handle = self.store.create(name, 0o644, flags=flags)
        file = self.files.setdefault(name, File())
        if truncate:
            file.truncate(0)
        self.open_now.append((handle, file))
        return handle, file, self.generation

    @rule(one=handles, offset=offsets, size=sizes)
    def write(self, one, offset: int, size: int) -> None:
        handle, file, generation = one
        if generation == self.generation:
            data = self.noise(size)
            assert handle.write(data, offset) == size
            file.write(data, offset)

    @rule(one=handles, size=offsets)
    def truncate(self, one, size: int) -> None:
        handle, file, generation = one
        if generation == self.generation:
            handle.truncate(size)
            file.truncate(size)

    @rule(one=handles, offset=offsets, size=sizes)
    def read(self, one, offset: int, size: int) -> None:
        handle, file, generation = one
        if generation == self.generation:
            assert bytes(handle.read(size, offset)) == file.content[offset : offset + size]
            found = handle.attributes()
            assert found.size == len(file.content)
            assert file.links == 0 or found.nlink == file.links

    @rule(one=handles, when=st.integers(1, 10**18))
    def set_mtime(self, one, when: int) -> None:
        handle, file, generation = one
        if generation == self.generation:
            self.store.utimens(handle.node, None, when)
            file.mtime_ns = when

    @rule(one=handles)
    def fsync(self, one) -> None:
        if one[2] == self.generation:
            one[0].fsync()

    @rule(one=consumes(handles))
    def close(self, one) -> None:
        handle, file, generation = one
        if generation == self.generation:
            self.open_now.remove((handle, file))
            handle.close()

    # -- names -----------------------------------------------------------------------------------------

    def _drop(self, name: bytes) -> None:
        file = self.files.pop(name, None)
        if file is not None:
            file.links -= 1

    @rule(name=names)
    def unlink(self, name: bytes) -> None:
        error = errno_of(self.store.unlink, name)
        assert error == (None if name in self.files else "ENOENT")
        self._drop(name)

    @rule(source=names, name=names, flags=st.sampled_from([0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE]))
    def rename(self, source: bytes, name: bytes, flags: int) -> None:
        error = errno_of(self.store.rename, source, name, flags)
        if source not in self.files or (flags == RENAME_EXCHANGE and name not in self.files):
            assert error == "ENOENT"
            return
        if flags == RENAME_NOREPLACE and name in self.files:
            assert error == "EEXIST"
            return
        assert error is None
        if self.files[source] is self.files.get(name):
            return
        if flags == RENAME_EXCHANGE:
            self.files[source], self.files[name] = self.files[name], self.files[source]
            return
        moved = self.files.pop(source)
        self._drop(name)
        self.files[name] = moved

    @rule(source=names, name=names)
    def link(self, source: bytes, name: bytes) -> None:
        error = errno_of(self.store.link, source, name)
        if source not in self.files:
            assert error == "ENOENT"
        elif name in self.files:
            assert error == "EEXIST"
        else:
            assert error is None
            self.files[name] = self.files[source]
            self.files[name].links += 1

    # -- the store -------------------------------------------------------------------------------------

    @rule()
    def sync(self) -> None:
        self.store.sync()
        self.compare()
        for name, file in self.files.items():
            stored = decode_container((self.backing / f"{name.decode()}.qatc").read_bytes())
            assert stored.raw[: len(file.content)] == file.content

    @rule()
    def kill(self) -> None:
        abandon(self.store, self.io)
        self.open_now.clear()
        self._open_store()
        self.compare()

    @rule()
    def close_and_open_again(self) -> None:
        for handle, _ in self.open_now:
            handle.close()
        self.open_now.clear()
        self.store.close()
        assert list((self.backing / ".qatqfs/staging").iterdir()) == []
        self._open_store()
        self.compare()

    @rule()
    def compare(self) -> None:
        here = [name for name in self.store.list_names() if name != b"d"]
        there = [b"d/" + name for name in self.store.list_names(b"d")]
        assert {*here, *there} == self.files.keys()
        for name, file in self.files.items():
            with self.store.open(name) as handle:
                assert bytes(handle.read(2 * MOST, 0)) == file.content, name
            found = self.store.stat(name)
            assert (found.size, found.nlink) == (len(file.content), file.links), name
            assert file.mtime_ns in (None, found.mtime_ns), name
        assert list((self.backing / ".qatqfs/lost+found").iterdir()) == []

    def teardown(self) -> None:
        try:
            self.store.sync()
            self.compare()
        finally:
            with contextlib.suppress(OSError):
                self.store.close(commit=False)
            shutil.rmtree(self.base)


pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # threads are killed

StoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("QATQFS_MODEL_EXAMPLES", "40")),
    stateful_step_count=int(os.environ.get("QATQFS_MODEL_STEPS", "50")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStoreAgainstAModel = StoreMachine.TestCase
