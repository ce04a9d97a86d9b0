"""Random operations while random steps fail, and kills in between: what was acknowledged is there, and nothing else.

An operation that fails may have done its work in part, byte by byte; what it left is taken as the content from there
on. All else is known exactly, sizes, modes and times included. ``QATQFS_FAULT_RUNS`` says how many runs there are.
"""

import contextlib
import errno
import os
import random
from pathlib import Path

import pytest
from faults import FaultyIO, Killed, abandon

from qatqfs.codec import Level
from qatqfs.store import Handle, Store, StoreOptions
from qatqfs.store.tuning import Tuning

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # threads are killed

RUNS = int(os.environ.get("QATQFS_FAULT_RUNS", "40"))
CHUNK = 4096
LARGEST = 40 * CHUNK
NAMES = [b"a", b"b", b"c", b"d"]


class Run:
    """One store, and what its files have to be: names to numbers of files, those to contents."""

    def __init__(self, backing: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.backing = backing
        idle_seconds = self.rng.choice([0.01, 3600.0, 3600.0])
        self.options = StoreOptions(
            chunk_size=CHUNK,
            idle_seconds=idle_seconds,
            workers=1,
            level=Level.FAST,
            durable_after=self.rng.choice([0.0, 0.01]),
            tuning=Tuning(ahead_bytes=4 * CHUNK, claim_bytes=16 * CHUNK),
        )
        self.names: dict[bytes, int] = {}
        self.contents: dict[int, bytes] = {}
        self.handles: dict[int, Handle] = {}
        self.failing = 0.0
        self._faults = random.Random(seed + 1)
        self.open()

    def open(self) -> None:
        self.io = FaultyIO()
        self.store = Store(self.backing, self.options, io=self.io)
        self.io.before = self._perhaps_fail

    def _perhaps_fail(self, number: int, name: str, args: tuple) -> None:
        if self._faults.random() < self.failing:
            raise OSError(self._faults.choice([errno.EIO, errno.ENOSPC]), f"injected into {name}")

    def step(self) -> None:
        self.failing = 0.0
        operations = ["create", "write", "write", "write", "rewrite", "truncate", "fsync", "sync", "sync", "link"]
        operations += ["unlink", "rename", "set_times", "chmod", "kill", "check"]
        operation = getattr(self, self.rng.choice(operations))
        if self.names or operation in (self.create, self.sync):
            rate = self.rng.choice([0, 0, 0, 0.03, 0.2])
            try:
                operation(rate)
            except OSError as err:
                late = operation == self.fsync and err.errno == errno.EIO  # of what nobody waited for
                if "injected" not in str(err) and err.errno != errno.ENOSPC and not late:  # which a short write becomes
                    raise
        self.failing = 0.0
        for number in [n for n in self.handles if n in self.names.values() and self.rng.random() < 0.1]:
            self.handles.pop(number).close()

    def some(self) -> tuple[bytes, int, Handle]:
        name = self.rng.choice(sorted(self.names))
        number = self.names[name]
        if number not in self.handles:
            self.handles[number] = self.store.open(name, os.O_RDWR)
        return name, number, self.handles[number]

    # -- operations ------------------------------------------------------------------------------------

    def create(self, rate: float) -> None:
        name = self.rng.choice(NAMES)
        if name not in self.names:
            handle = self.store.create(name)
            number = self.names[name] = len(self.contents)
            self.contents[number], self.handles[number] = b"", handle

    def write(self, rate: float) -> None:
        self._write(rate, self.rng.randrange(LARGEST))

    def rewrite(self, rate: float) -> None:
        self._write(rate, 0)

    def _write(self, rate: float, offset: int) -> None:
        _, number, handle = self.some()
        old = self.contents[number]
        data = self.rng.randbytes(self.rng.choice([3, 100, CHUNK, 3 * CHUNK, 12 * CHUNK]))
        if old and self.rng.random() < 0.15:
            offset, data = 0, old  # the same again
        new = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
        self.failing = rate
        try:
            done = handle.write(data, offset)
        except OSError:
            self._take_what_is_there(number, handle, old, new)
            raise
        self.contents[number] = new[: offset + done] + old[offset + done :]

    def truncate(self, rate: float) -> None:
        _, number, handle = self.some()
        old, size = self.contents[number], self.rng.randrange(LARGEST)
        self.failing = rate
        try:
            handle.truncate(size)
        except OSError:
            self._take_what_is_there(number, handle, old, old[:size].ljust(size, b"\0"))
            raise
        self.contents[number] = old[:size].ljust(size, b"\0")

    def _take_what_is_there(self, number: int, handle: Handle, old: bytes, new: bytes) -> None:
        self.failing = 0.0
        found = content(handle)
        assert min(len(old), len(new)) <= len(found) <= max(len(old), len(new))
        olds, news = old.ljust(len(found), b"\0"), new.ljust(len(found), b"\0")
        assert all(byte in two for byte, two in zip(found, zip(olds, news, strict=False), strict=False))
        self.contents[number] = found

    def fsync(self, rate: float) -> None:
        _, _, handle = self.some()
        self.failing = rate
        handle.fsync()

    def sync(self, rate: float) -> None:
        self.failing = rate
        self.store.sync()

    def set_times(self, rate: float) -> None:
        self.store.utimens(self.some()[0], None, self.rng.randrange(-(10**18), 10**18))

    def chmod(self, rate: float) -> None:
        self.store.chmod(self.some()[0], 0o600 | self.rng.randrange(64))

    def link(self, rate: float) -> None:
        name, number, _ = self.some()
        new_name = self.rng.choice(NAMES)
        if new_name not in self.names:
            self.store.link(name, new_name)
            self.names[new_name] = number

    def unlink(self, rate: float) -> None:
        name = self.rng.choice(sorted(self.names))
        self.store.unlink(name)
        del self.names[name]

    def rename(self, rate: float) -> None:
        name, new_name = self.rng.choice(sorted(self.names)), self.rng.choice(NAMES)
        if self.names.get(new_name) != self.names[name]:
            self.store.rename(name, new_name)
            self.names[new_name] = self.names.pop(name)

    def check(self, rate: float) -> None:
        _, number, handle = self.some()
        assert content(handle) == self.contents[number]

    def kill(self, rate: float) -> None:
        """Kill the daemon, perhaps in the middle of committing everything, and look at all that is there."""
        before = {name: self._shown(name) for name in self.names}
        if self.rng.random() < 0.5:
            self.io.kill_before(len(self.io.steps) + self.rng.randrange(1, 30))
            with contextlib.suppress(Killed, OSError):
                self.store.sync()
        abandon(self.store, self.io)
        self.handles.clear()
        self.open()
        self.compare()
        assert {name: self._shown(name) for name in self.names} == before

    def _shown(self, name: bytes) -> tuple[int, int, int, int]:
        found = self.store.stat(name)
        return found.size, found.mtime_ns, found.mode, found.nlink

    def compare(self) -> None:
        assert set(self.store.list_names()) == set(self.names)
        for name, number in self.names.items():
            with self.store.open(name) as handle:
                assert content(handle) == self.contents[number], name

    def end(self) -> None:
        self.store.sync()
        self.compare()
        for handle in self.handles.values():
            handle.close()
        self.store.close()
        for directory in ("staging", "lost+found"):
            assert list((self.backing / ".qatqfs" / directory).iterdir()) == []


def content(handle: Handle) -> bytes:
    return bytes(handle.read(LARGEST * 2, 0))


@pytest.mark.parametrize("seed", range(RUNS))
def test_whatever_fails_and_whenever_it_is_killed_what_was_acknowledged_is_there(backing: Path, seed: int) -> None:
    run = Run(backing, seed)
    try:
        for _ in range(run.rng.randint(20, 120)):
            run.step()
        run.end()
    finally:
        run.io.heal()
        if not run.io.dead:
            abandon(run.store, run.io)
