"""Stopping an operation at every step, by a kill or a loss of power, and what may be there afterwards.

A scenario does a few things to a store and says so to a :class:`History`, which knows all contents that each
logical file has had. The rule after a kill: everything acknowledged is there; of the one operation under way
each byte is old or new. After a loss of power: of everything since a file was last made durable, each 4 KiB block
is one that it had meanwhile.
"""

import errno
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from faults import BLOCK, FaultyIO, Killed, PowerIO, QuietIO, abandon
from helpers import noise, read, reboot, staged
from strict_decoder import decode_container

from qatqfs.codec import DType, Level, encode_container
from qatqfs.store import Handle, Store, StoreOptions

CHUNK = 4096
OPTIONS = StoreOptions(chunk_size=CHUNK, idle_seconds=3600.0, workers=1, level=Level.FAST, durable_after=0.0)
BYSTANDER = b"bystander"
DECOY = b"decoy"

Content = bytes | None


@dataclass
class History:
    """What each file has been, oldest first; ``None`` is absent."""

    versions: dict[bytes, list[Content]] = field(default_factory=dict)
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    durable: dict[bytes, int] = field(default_factory=dict)

    def start(self, path: bytes, content: Content) -> None:
        self.versions[path] = [content]
        self.acknowledged[path] = self.durable[path] = 0

    def now(self, path: bytes) -> Content:
        return self.versions.get(path, [None])[-1]

    def does(self, call: Callable[[], object], **changes: Content) -> None:
        """Do something that gives files other contents; names as keywords."""
        paths = {name.encode(): content for name, content in changes.items()}
        for path, content in paths.items():
            if path not in self.versions:
                self.start(path, None)
            self.versions[path].append(content)
        call()
        for path in paths:
            self.acknowledged[path] = len(self.versions[path]) - 1

    def makes_durable(self, call: Callable[[], object], *paths: bytes) -> None:
        reached = {path: self.acknowledged[path] for path in paths}
        call()
        self.durable.update(reached)

    def write(self, handle: Handle, name: str, data: bytes, offset: int) -> None:
        old = self.now(name.encode()) or b""
        new = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
        self.does(lambda: handle.write(data, offset), **{name: new})

    def truncate(self, handle: Handle, name: str, size: int) -> None:
        old = self.now(name.encode()) or b""
        self.does(lambda: handle.truncate(size), **{name: old[:size].ljust(size, b"\0")})


@dataclass(frozen=True)
class Scenario:
    """One enumeration.

    Attributes:
        name: for the report.
        prepare: makes the state before, told to the history by ``start``; committed and durable afterwards.
        act: what is stopped; returns handles to keep open.
        dirty: leave what ``prepare`` did uncommitted, as a killed daemon does.
        one_of: names of which a loss of power may leave each with what another was meant to have.
        kept: bytes that must be in some file whatever happens.
        options: of all stores.
    """

    name: str
    prepare: Callable[[Store, History], object]
    act: Callable[[Store, History], object]
    dirty: bool = False
    one_of: tuple[bytes, ...] = ()
    kept: bytes = b""
    options: StoreOptions = OPTIONS


class Trial:
    """One run of a scenario up to one step."""

    def __init__(self, scenario: Scenario, base: Path, *, power: bool) -> None:
        self.scenario = scenario
        self.history = History()
        self.backing = base / "backing"
        self.backing.mkdir()
        aside = base / "aside"
        aside.mkdir()
        first = FaultyIO()
        store = Store(self.backing, scenario.options, io=first)
        with store.create(BYSTANDER) as handle:
            handle.write(noise(3 * CHUNK, 99), 0)
        store.sync()
        self.history.start(BYSTANDER, noise(3 * CHUNK, 99))
        self._kept = scenario.prepare(store, self.history)
        if scenario.dirty:
            abandon(store, first)
        else:
            store.close()
        self.io: FaultyIO = PowerIO(self.backing, aside) if power else FaultyIO()

    def run(self, arm: Callable[[FaultyIO, int], None]) -> bool:
        """Act, with a fault armed; whether the process was killed. ``arm`` gets the number of the first step."""
        store = None
        try:
            if not self.scenario.dirty:
                store = Store(self.backing, self.scenario.options, io=self.io)
            arm(self.io, len(self.io.steps))
            if store is None:
                store = Store(self.backing, self.scenario.options, io=self.io)
            self._kept = self.scenario.act(store, self.history)
        except Killed:
            return True
        finally:
            if store is not None:
                abandon(store, self.io)
            self.io.dead = True
        return False

    def reuse_inode_numbers(self) -> None:
        """Let somebody create files in BACKING at once: ext4 gives them the numbers that were freed last."""
        stored = encode_container(noise(2 * CHUNK, 98), DType.BF16, values_per_chunk=CHUNK // 2)
        (self.backing / f"{DECOY.decode()}.qatc").write_bytes(stored)
        self.history.start(DECOY, noise(2 * CHUNK, 98))

    def check(self, allowed: Callable[[History, bytes], list[Content]], torn: int) -> None:
        """Recover with a new store and compare, before and after everything is committed."""
        power = isinstance(self.io, PowerIO)
        with Store(self.backing, self.scenario.options, io=QuietIO()) as store:
            for _ in range(2):
                contents = self._contents(store, unreadable=power)
                assert any(self.scenario.kept in (content or b"") for content in contents.values())
                for path, found in contents.items():
                    names = self.scenario.one_of if power and path in self.scenario.one_of else (path,)
                    wanted = [
                        content
                        for name in names
                        if name in self.history.versions
                        for content in allowed(self.history, name)
                    ]
                    if found is UNREADABLE:
                        assert self.history.versions[path][self.history.durable[path]] is None, f"{path!r} gives EIO"
                        continue
                    assert acceptable(found, wanted, torn), (
                        f"{path!r} has {_shown(found)}, allowed: {[_shown(w) for w in wanted]}"
                    )
                store.sync()
        self._check_stored(contents)
        lost = self._lost_and_found()
        assert power or not lost

    def check_nothing_lost(self) -> None:
        """Recover as after a reboot and look for everything acknowledged: in place, or in lost+found and reported."""
        with Store(self.backing, OPTIONS, io=QuietIO()) as store:
            store.sync()
            contents = self._contents(store, unreadable=False)
            in_doubt = store.in_doubt
        self._check_stored(contents)
        lost = self._lost_and_found()
        assert bool(lost) == bool(in_doubt) or self.scenario.dirty  # then the store that was killed may have told
        for path, found in contents.items():
            wanted = after_kill(self.history, path)
            if b"" in wanted:  # there is no byte of it that could be missing
                continue
            assert any(acceptable(content, wanted, torn=1) for content in [found, *lost]), (
                f"{path!r} has {_shown(found)}, lost+found {[_shown(content) for content in lost]},"
                f" allowed: {[_shown(w) for w in wanted]}"
            )

    def _contents(self, store: Store, *, unreadable: bool) -> dict[bytes, Content]:
        assert set(store.list_names()) <= set(self.history.versions)
        return {path: _found(store, path, unreadable=unreadable) for path in self.history.versions}

    def _check_stored(self, contents: dict[bytes, Content]) -> None:
        assert staged(self.backing) == []
        for path, content in contents.items():
            if content is not None and content is not UNREADABLE:
                raw = self.backing / path.decode()
                if raw.exists():
                    assert raw.read_bytes() == content
                    assert not (self.backing / f"{path.decode()}.qatc").exists()
                else:
                    decode_container((self.backing / f"{path.decode()}.qatc").read_bytes())

    def _lost_and_found(self) -> list[bytes]:
        """The contents in lost+found: of whole containers, and of data files that no log accounts for."""
        kept = [path for path in (self.backing / ".qatqfs/lost+found").iterdir() if path.suffix != ".log"]
        return [decode_container(p.read_bytes()).raw if p.suffix == ".qatc" else p.read_bytes() for p in kept]


UNREADABLE = b"(unreadable)"
"""What a file gives that was never made durable and is no whole container after a loss of power."""


def _found(store: Store, path: bytes, *, unreadable: bool) -> Content:
    try:
        return read(store, path)
    except FileNotFoundError:
        return None
    except OSError as err:
        if unreadable and err.errno == errno.EIO:
            return UNREADABLE
        raise


def after_kill(history: History, path: bytes) -> list[Content]:
    return history.versions[path][history.acknowledged[path] :]


def after_power_loss(history: History, path: bytes) -> list[Content]:
    return history.versions[path][history.durable[path] :]


def acceptable(found: Content, wanted: list[Content], torn: int) -> bool:
    """Whether a content is one of those allowed, or each ``torn`` bytes of it are, up to its size."""
    if found in wanted:
        return True
    present = [content for content in wanted if content is not None]
    if found is None or not present or not min(map(len, present)) <= len(found) <= max(map(len, present)):
        return False
    size = -(-max(map(len, [found, *present])) // torn) * torn
    blocks = [np.frombuffer(c[: len(found)].ljust(size, b"\0"), np.uint8).reshape(-1, torn) for c in [found, *present]]
    same = [(blocks[0] == other).all(axis=1) for other in blocks[1:]]
    return bool(np.logical_or.reduce(same).all())


def _shown(content: Content) -> str:
    if content is None:
        return "absent"
    return f"{len(content)} bytes {[content[i : i + 3].hex() for i in range(0, len(content), CHUNK)]}"


def steps_of(scenario: Scenario, base: Path, *, power: bool = False) -> list[str]:
    """The steps that a scenario takes when nothing goes wrong."""
    trial = Trial(scenario, base, power=power)
    first: list[int] = []
    assert not trial.run(lambda io, number: first.append(number))
    shutil.rmtree(base)
    base.mkdir()
    return trial.io.steps[first[0] :]


def kill_everywhere(scenario: Scenario, base: Path) -> int:
    """Stop before and in each step, and after the last; returns how many points that were."""
    steps = steps_of(scenario, base)
    points = [("before", n) for n in range(len(steps) + 1)]
    points += [("in", n) for n, name in enumerate(steps) if name == "pwrite"]
    for how, number in points:
        trial = Trial(scenario, base, power=False)

        def arm(io: FaultyIO, first: int, how: str = how, number: int = number) -> None:
            (io.kill_before if how == "before" else io.kill_in)(first + number)

        trial.run(arm)
        trial.reuse_inode_numbers()
        with _point(f"{scenario.name}: killed {how} step {number} of {len(steps)}"):
            trial.check(after_kill, torn=1)
        shutil.rmtree(base)
        base.mkdir()
    return len(points)


def reboot_everywhere(scenario: Scenario, base: Path, monkeypatch) -> int:
    """As :func:`kill_everywhere`, and then the machine is started again in good order; and before, if there is dirt."""
    boots = itertools.count()
    if scenario.dirty:
        _start_anew(monkeypatch, next(boots))
    steps = steps_of(scenario, base)
    points = [("before", n) for n in range(len(steps) + 1)]
    points += [("in", n) for n, name in enumerate(steps) if name == "pwrite"]
    for how, number in points:
        trial = Trial(scenario, base, power=False)

        def arm(io: FaultyIO, first: int, how: str = how, number: int = number) -> None:
            (io.kill_before if how == "before" else io.kill_in)(first + number)

        if scenario.dirty:
            _start_anew(monkeypatch, next(boots))
        trial.run(arm)
        _start_anew(monkeypatch, next(boots))
        with _point(f"{scenario.name}: killed {how} step {number} of {len(steps)}, then another boot"):
            trial.check_nothing_lost()
        shutil.rmtree(base)
        base.mkdir()
    return len(points)


def _start_anew(monkeypatch, boot: int) -> None:
    reboot(monkeypatch, b"boot %11d" % boot)


def lose_power_everywhere(scenario: Scenario, base: Path, seeds: int, monkeypatch) -> int:
    """Lose power before each step and after the last, with several ways that the disk may look."""
    steps = steps_of(scenario, base, power=True)
    boots = itertools.count()
    points = 0
    for number in range(len(steps) + 1):
        for seed in range(seeds):
            trial = Trial(scenario, base, power=True)
            trial.run(lambda io, first, number=number: io.kill_before(first + number))
            assert isinstance(trial.io, PowerIO)
            trial.io.lose_power(seed * 1000 + number)
            trial.io.forget_aside()
            _start_anew(monkeypatch, next(boots))
            trial.reuse_inode_numbers()
            with _point(f"{scenario.name}: power lost before step {number} of {len(steps)}, seed {seed}"):
                trial.check(after_power_loss, torn=BLOCK)
            shutil.rmtree(base)
            base.mkdir()
            points += 1
    return points


class _point:
    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> None:
        if err is not None:
            err.add_note(self._text)
