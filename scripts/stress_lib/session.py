"""A run: a mount, workers, kills, and the comparison of everything at the end."""

import json
import multiprocessing
import os
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress_lib.lost import LostAndFound
from stress_lib.mounting import StressMount, stress_mount
from stress_lib.pair import Trace, replay
from stress_lib.shrink import shrink
from stress_lib.worker import Report, Signals, Worker
from stress_lib.world import World

_JOIN_SECONDS = 300
_SHRINK_SECONDS = 120
_ENDS = ("nothing", "sync", "reboot")
"""What comes after a kill."""
_CONTEXT = multiprocessing.get_context("fork")


@dataclass
class Result:
    """What a run found.

    Attributes:
        operations: done by all workers.
        kills: of the daemon.
        reboots: that came after a kill.
        lost: contents that are in lost+found because of one.
        interrupted: operations that a kill came between.
        directories: compared again at the end.
        failures: what was wrong.
        trace: a short trace with which a fresh mount fails too, if one was found.
    """

    operations: int
    kills: int
    reboots: int
    lost: int
    interrupted: int
    directories: int
    failures: list[str]
    trace: Trace | None


def links_possible(mount: StressMount) -> bool:
    """Whether regular files can have several names."""
    probe = mount.path / "probe"
    probe.touch()
    try:
        os.link(probe, mount.path / "probe2")
    except PermissionError:
        return False
    finally:
        probe.unlink()
    (mount.path / "probe2").unlink()
    return True


def run(base: Path, *, seed: int, seconds: float, workers: int, kill: bool) -> Result:
    """Run workers on a new mount below an empty directory."""
    (base / "run").mkdir()
    with stress_mount(base / "run") as mount:
        session = _Session(base / "run", mount, seed, workers)
        session.work(seconds, kill=kill)
        result = session.finish()
    traces = [report.trace for report in session.reports if report.failure and report.trace]
    if traces and not session.kills:
        result.trace = minimal(base, traces[0])
    return result


class _Session:
    def __init__(self, base: Path, mount: StressMount, seed: int, workers: int) -> None:
        self._mount = mount
        self._lost_and_found = LostAndFound(mount.backing)
        self._random = random.Random(seed)
        self._signals = Signals(_CONTEXT.Event(), *(_CONTEXT.Value("q", 0) for _ in range(3)))
        plain = base / "plain"
        plain.mkdir()
        (mount.path / "shared").mkdir()
        links = links_possible(mount)
        self._report_paths = [base / f"report{number}" for number in range(workers)]
        self._processes = []
        for number, path in enumerate(self._report_paths):
            worker = Worker(number, seed, mount.path, plain, mount.backing, self._signals, links=links)
            self._processes.append(_CONTEXT.Process(target=worker.run, args=(path,)))
        self.reports: list[Report] = []
        self.kills = 0
        self.reboots = 0

    def work(self, seconds: float, *, kill: bool) -> None:
        for process in self._processes:
            process.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until and all(process.is_alive() for process in self._processes):
            time.sleep(self._random.uniform(0.2, 3.0))
            if self._mount.died():
                break
            if kill and self._random.random() < 0.5:
                self._kill()
            else:
                self._mount.sync()
        self._signals.stop.set()
        for process in self._processes:
            process.join(_JOIN_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self.reports = [Report(**json.loads(p.read_text())) for p in self._report_paths if p.exists()]

    def _kill(self) -> None:
        self.kills += 1
        self._signals.kills.value = self.kills
        self._mount.kill()
        end = self._random.choice(_ENDS)
        if end != "nothing":
            self._mount.write_to_disk()
        if end == "reboot":
            self._mount.reboot()
            self.reboots += 1
        self._mount.start()
        if end == "reboot":
            self._mount.sync()  # then all that is in doubt is in lost+found
            self._signals.reboots.value = self.reboots
        self._signals.mounts.value = self.kills

    def finish(self) -> Result:
        """Compare everything once more, then after all is committed, then with every checksum."""
        failures = [f"worker {n}: {report.failure}" for n, report in enumerate(self.reports) if report.failure]
        if len(self.reports) < len(self._processes):
            failures.append("a worker did not end, or left no report")
        if self._mount.died():
            failures.append(f"the daemon died; its log ends:\n{self._mount.log_end()}")
        if not failures:
            failures += self._compare("at the end")
            self._mount.remount()
            failures += self._compare("after a remount")
            failures += self._shared()
            if any((self._mount.backing / ".qatqfs" / "staging").iterdir()):
                failures.append("staging is not empty after a remount")
            failures += self._unreported()
            failures += [line for line in self._mount.log.read_text().splitlines() if _is_alarming(line)]
        return Result(
            operations=sum(report.operations for report in self.reports),
            kills=self.kills,
            reboots=self.reboots,
            lost=len(self._lost_and_found.contents()),
            interrupted=sum(report.interrupted for report in self.reports),
            directories=sum(len(report.snapshots) for report in self.reports),
            failures=failures,
            trace=None,
        )

    def _unreported(self) -> list[str]:
        """Check that something is in lost+found only because of a reboot, and that the log says so."""
        lost = self._lost_and_found.contents()
        if lost and not self.reboots:
            return ["lost+found is not empty, although nothing else used the backing directory"]
        log = self._mount.log.read_text()
        return [f"{name} is in lost+found, and the log does not say so" for name in lost if name not in log]

    def _compare(self, when: str) -> list[str]:
        wrong = []
        for report in self.reports:
            for name, expected in report.snapshots.items():
                found: dict[str, Any] = json.loads(json.dumps(World(self._mount.path / name).snapshot()))
                if found != expected:
                    differing = sorted(p for p in found.keys() | expected.keys() if found.get(p) != expected.get(p))
                    detail = {path: (found.get(path), expected.get(path)) for path in differing}
                    wrong.append(f"{when}, {name} (in the mount, expected): {detail}")
        return wrong

    def _shared(self) -> list[str]:
        """Check what the workers did in one directory: no append lost, torn or done twice, each name made once."""
        wrong = []
        log = self._mount.path / "shared" / "log"
        lines = log.read_bytes().splitlines() if log.exists() else []
        if self.reboots:  # what was appended before one may be in copies, each of which has all that came before it
            copies = [data for name, data in self._lost_and_found.contents().items() if name.startswith("log.")]
            lines = sorted({line for data in copies for line in data.splitlines()} | set(lines), key=_record_number)
        found: dict[int, list[int]] = {number: [] for number in range(len(self.reports))}
        for line in lines:
            who, number = line.split()
            found[int(who)].append(int(number))
        for who, report in enumerate(self.reports):
            known = set(report.appended)
            if [n for n in found[who] if n in known] != report.appended or set(found[who]) - known - set(report.maybe):
                wrong.append(f"the shared log has not exactly what worker {who} appended")
        made = Counter(name for report in self.reports for name in report.created)
        twice = [name for name, times in made.items() if times > 1]
        absent = made.keys() - set(os.listdir(log.parent))
        if twice or absent:
            wrong.append(f"created exclusively by several workers: {twice}; created and not there: {sorted(absent)}")
        return wrong


def _record_number(line: bytes) -> int:
    return int(line.split()[1])


def _is_alarming(line: str) -> bool:
    # A reply fails when its request is gone because of an unmount; and after a reboot something is in doubt.
    expected = ("fuse_reply_", "may be torn", "bytes again")
    return ("ERROR" in line or "is damaged: " in line) and not any(text in line for text in expected)


def minimal(base: Path, trace: Trace) -> Trace | None:
    """Replay a trace on a fresh mount and shrink it; ``None`` if it does not fail there."""
    (base / "replay").mkdir()
    with stress_mount(base / "replay") as mount:
        plain = base / "replay" / "plain"
        plain.mkdir()
        attempts = 0

        def fails(candidate: Trace) -> bool:
            nonlocal attempts
            attempts += 1
            return replay(candidate, mount.path / f"r{attempts}", plain / f"r{attempts}") is not None

        return shrink(trace, fails, seconds=_SHRINK_SECONDS) if fails(trace) else None
