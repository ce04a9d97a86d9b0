"""A process that does random operations in a directory of its own, and a few in one that all share.

Its own directory is compared after every operation. The daemon may be killed at any moment: then the operation
under way may have happened or not, or a write in part, and everything before it has to be there. After a kill the
worker goes on in a new directory; the old one is compared again at the end of the run. After a reboot content may be
in lost+found instead (:mod:`stress_lib.lost`), also that of directories it has left.
"""

import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol, TypeVar

from stress_lib.generator import Generator
from stress_lib.lost import LostAndFound, Snapshot, accounted_for, but_content
from stress_lib.pair import Difference, Pair
from stress_lib.world import Operation, Outcome, World

_LONGEST_TRACE = 1500
_WRITES = ("write", "pwrite", "map_store")
_SHARED_EVERY = 20
_RECORD_SIZE = 64
Seen = tuple[Snapshot, dict[str, bytes]]
"""A directory's snapshot and the contents of its files."""
R = TypeVar("R")


class Counter(Protocol):
    """A number that processes share."""

    value: int


@dataclass
class Signals:
    """What the session and its workers share.

    Attributes:
        stop: set when the work is over.
        kills: kills of the daemon, counted just before each.
        mounts: the value of ``kills`` that the running mount has seen.
        reboots: how many of the kills were followed by one, counted once all that is in doubt is in lost+found.
    """

    stop: Event
    kills: Counter
    mounts: Counter
    reboots: Counter


@dataclass
class Report:
    """What a worker leaves behind as JSON.

    Attributes:
        operations: how many it has done.
        interrupted: operations under which the daemon was killed.
        failure: what was wrong, ``None`` if nothing was.
        trace: what led to it, if it can be replayed without kills.
        snapshots: directories that it has left, with what has to be in them.
        appended: records it has appended to the shared log; those in ``maybe`` it does not know of.
        maybe: see ``appended``.
        created: names that it alone created in the shared directory.
    """

    operations: int
    interrupted: int
    failure: str | None
    trace: list[Any]
    snapshots: dict[str, Snapshot]
    appended: list[int]
    maybe: list[int]
    created: list[str]


class Interrupted(Exception):
    """The daemon was killed."""


class Worker:
    """One process's work.

    Args:
        number: tells workers apart.
        seed: of the whole run.
        mountpoint: of the mount; its directory ``shared`` is for all workers.
        plain: a directory for plain twins.
        backing: of the mount.
        signals: shared with the session.
        links: whether hard links of files are possible.
    """

    def __init__(
        self, number: int, seed: int, mountpoint: Path, plain: Path, backing: Path, signals: Signals, *, links: bool
    ) -> None:
        self._number = number
        self._mountpoint = mountpoint
        self._plain = plain
        self._lost_and_found = LostAndFound(backing)
        self._signals = signals
        self._generator = Generator(f"{seed}/{number}", links=links)
        self._directories = 0
        self._kills_seen = 0
        self._reboots_seen = 0
        self._report = Report(0, 0, None, [], {}, [], [], [])

    def run(self, report_to: Path) -> None:
        """Work until told to stop or something is wrong; writes a report."""
        try:
            self._work()
        except Exception:
            self._report.failure = traceback.format_exc()
        report_to.write_text(json.dumps(self._report.__dict__))

    def _work(self) -> None:
        self._wait_for_mount()
        pair = self._new_pair()
        while not self._signals.stop.is_set():
            self._report.operations += 1
            try:
                if self._report.operations % _SHARED_EVERY == 0:
                    self._share()
                failure = self._step(pair)
                if failure is None and len(pair.trace) >= _LONGEST_TRACE:
                    failure = self._leave(pair)
                    pair = self._new_pair()
            except Interrupted:
                failure = None
                pair = self._new_pair()
            if failure is not None:
                self._report.failure = str(failure)
                self._report.trace = pair.trace
                return
        failure = self._leave(pair)
        if failure is not None:
            self._report.failure = str(failure)
            self._report.trace = pair.trace

    # -- the own directory -----------------------------------------------------------------------------

    def _new_pair(self) -> Pair:
        while True:
            self._directories += 1
            name = f"w{self._number}.{self._directories}"
            try:
                return Pair(self._mountpoint / name, self._plain / name)
            except OSError:
                if not self._killed():
                    raise
                self._wait_for_mount()

    def _step(self, pair: Pair) -> Difference | None:
        operation = self._generator.next()
        pair.trace.append(operation)
        here = pair.here.apply(operation)
        if not self._killed():
            return pair.compare(operation, here)
        self._report.interrupted += 1
        before, contents = pair.plain.snapshot(), pair.plain.contents()
        pair.plain.apply(operation)
        after, new_contents = pair.plain.snapshot(), pair.plain.contents()
        pair.close()
        reboots = self._reboots_seen
        found, found_contents = self._look(lambda: (pair.here.snapshot(), pair.here.contents()))
        if self._reboots_seen != reboots:
            old, new = (before, contents), (after, new_contents)
            if not self._is_allowed((found, found_contents), old, new, operation, here):
                expected = {"before": _differing(before, found), "after": _differing(after, found)}
                return Difference([*operation, "killed before a reboot, outcome", *here], found, expected)
        elif found != after and (_acknowledged(operation, here) or found != before):
            torn = operation[0] in _WRITES and not _acknowledged(operation, here)
            if not (
                torn and _is_mixture(found_contents, contents, new_contents) and _same_but_content(found, before, after)
            ):
                expected = {"before": _differing(before, found), "after": _differing(after, found)}
                return Difference([*operation, "killed, outcome", *here], found, expected)
        self._report.snapshots[pair.here.root.name] = found
        raise Interrupted

    def _is_allowed(self, found: Seen, before: Seen, after: Seen, operation: Operation, outcome: Outcome) -> bool:
        """Whether after a reboot everything is in place or in lost+found, the operation under way done or not."""
        lost = self._lost_and_found
        allowed = [after] if _acknowledged(operation, outcome) else [after, before]
        if any(accounted_for(found[0], snapshot, lost.digests()) for snapshot, _ in allowed):
            return True
        if (
            len(allowed) == 1
            or operation[0] not in _WRITES
            or not before[1].keys() == after[1].keys() == found[1].keys()
        ):
            return False
        return _same_but_content(found[0], before[0], after[0]) and all(
            any(
                _is_mixture({path: content}, {path: before[1][path]}, {path: after[1][path]})
                for content in (there, *lost.contents().values())
            )
            for path, there in found[1].items()
        )

    def _leave(self, pair: Pair) -> Difference | None:
        """Compare a directory for the last time before going elsewhere."""
        pair.close()
        self._report.snapshots[pair.here.root.name] = pair.plain.snapshot()
        reboots = self._reboots_seen
        difference = self._look(pair.compare_all)
        return difference if self._reboots_seen == reboots else None  # else it was compared meanwhile

    def _look(self, work: Callable[[], R]) -> R:
        """Look at the mount until no kill comes between: what is seen of a dying mount may be half of it."""
        while True:
            self._wait_for_mount()
            try:
                found = work()
            except OSError:
                if not self._killed():
                    raise
                continue
            if not self._killed():
                return found

    # -- the directory of all --------------------------------------------------------------------------

    def _share(self) -> None:
        number = self._report.operations
        record = f"{self._number} {number}".ljust(_RECORD_SIZE - 1).encode() + b"\n"
        shared = self._mountpoint / "shared"
        try:
            fd = os.open(shared / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                written = os.write(fd, record)
            finally:
                os.close(fd)
            assert written == len(record)
            self._report.appended.append(number)
        except OSError:
            if not self._killed():
                raise
            self._report.maybe.append(number)
        name = f"turn{number}"
        try:
            os.close(os.open(shared / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            self._report.created.append(name)
        except FileExistsError:
            pass
        except OSError:
            if not self._killed():
                raise

    # -- kills -----------------------------------------------------------------------------------------

    def _killed(self) -> bool:
        return self._signals.kills.value != self._kills_seen

    def _wait_for_mount(self) -> None:
        while True:
            while self._signals.mounts.value != self._signals.kills.value:
                time.sleep(0.02)
            self._kills_seen = self._signals.mounts.value
            reboots = self._signals.reboots.value
            if reboots == self._reboots_seen:
                return
            try:
                self._look_at_what_was_left()
            except OSError:
                if not self._killed():
                    raise
                continue
            if not self._killed():
                self._reboots_seen = reboots
                return

    def _look_at_what_was_left(self) -> None:
        """Take directories as a reboot has left them, if nothing of them is missing."""
        for name, expected in self._report.snapshots.items():
            found = World(self._mountpoint / name).snapshot()
            if not accounted_for(found, expected, self._lost_and_found.digests()):
                if self._killed():
                    return
                raise AssertionError(f"{name} after a reboot: {_differing(found, expected)}, not {expected}")
            self._report.snapshots[name] = found


def _acknowledged(operation: Operation, outcome: Outcome) -> bool:
    """Whether a program may rely on what it did; a store without msync(2) has no answer."""
    if operation[0] in ("write", "pwrite"):
        return outcome == ["ok", operation[3]]  # a short answer is for the part before the kill
    return outcome[0] == "ok" and (operation[0] != "map_store" or operation[-1])


def _is_mixture(found: dict[str, bytes], before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether every byte of every file is what it was before or after a write."""
    if not found.keys() == before.keys() == after.keys():
        return False
    for path, data in found.items():
        old, new = before[path], after[path]
        if not min(len(old), len(new)) <= len(data) <= max(len(old), len(new)):
            return False
        width = len(data)
        old, new = old[:width].ljust(width, b"\0"), new[:width].ljust(width, b"\0")
        if any(value not in choice for value, *choice in zip(data, old, new, strict=True)):
            return False
    return True


def _same_but_content(found: Snapshot, *others: Snapshot) -> bool:
    """Whether all is as in one of the others, leaving aside content, size and time of files."""

    def reduced(snapshot: Snapshot) -> dict[str, Any]:
        return {path: but_content(about) for path, about in snapshot.items()}

    return any(reduced(found) == reduced(other) for other in others)


def _differing(one: Snapshot, other: Snapshot) -> Snapshot:
    return {path: about for path, about in one.items() if other.get(path) != about}
