"""Block files as K/V caches have them: stored under a temporary name and renamed, read, looked up, removed."""

import argparse
import contextlib
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_lib.places import drop_caches, passthrough_daemon, qatqfs, qatqfs_mount, syncfs
from bench_lib.tensors import kv_tensor
from qatqfs.codec import DType
from qatqfs.mount import control

Figures = dict[str, Any]

_SIZES = "36864,147456,1048576,4194304"
_PLACES = ("plain", "pass-through", "qatqfs")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--sizes", default=_SIZES, metavar="BYTES,...", help=f"sizes of files (default: {_SIZES})")
    parser.add_argument("--bytes", type=int, default=64, metavar="MIB", help="of each size, at most (default: 64)")
    parser.add_argument("--files", type=int, default=400, help="of each size, at most (default: 400)")
    parser.add_argument("--processes", default="1,8", metavar="N,...", help="that work at once (default: 1,8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default: 3)")
    parser.add_argument("--dir", type=Path, help="where to make a temporary directory (default: the system's)")


@dataclass(frozen=True)
class _Load:
    """Files of one size, each a piece of one tensor that no other file has.

    Attributes:
        size: bytes of a file.
        count: files.
        processes: that share the work.
    """

    size: int
    count: int
    processes: int

    @property
    def name(self) -> str:
        """The heading of its figures."""
        return f"{self.size} bytes, {self.processes} process{'es' if self.processes > 1 else ''}"

    def in_parallel(self, step: Callable[[int], None]) -> float:
        """Do a step for every file; returns the seconds from when all processes are there until they have ended."""
        if self.processes == 1:
            start = time.perf_counter()
            for number in range(self.count):
                step(number)
            return time.perf_counter() - start
        gate, opened = os.pipe()
        children = [self._child(step, first, gate, opened) for first in range(self.processes)]
        start = time.perf_counter()
        for fd in (opened, gate):
            os.close(fd)
        failed = [pid for pid in children if os.waitpid(pid, 0)[1]]
        if failed:
            raise SystemExit("a process of the benchmark failed")
        return time.perf_counter() - start

    def _child(self, step: Callable[[int], None], first: int, gate: int, opened: int) -> int:
        """Fork a process that does its share once the gate is opened, that is, closed by all others."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.close(opened)
            os.read(gate, 1)
            for number in range(first, self.count, self.processes):
                step(number)
            status = 0
        finally:
            os._exit(status)


class _Files:
    """What a runtime does with block files in a directory."""

    def __init__(self, directory: Path, data: memoryview, size: int) -> None:
        self._directory = os.fspath(directory)
        self._data = data
        self._size = size

    def _path(self, number: int) -> str:
        return f"{self._directory}/{number:08x}.bf16"

    def _content(self, number: int) -> memoryview:
        start = number * self._size % (len(self._data) - self._size + 1) // 2 * 2
        return self._data[start : start + self._size]

    def store(self, number: int) -> None:
        path = self._path(number)
        fd = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        if os.write(fd, self._content(number)) != self._size:
            raise SystemExit("a write was short")
        os.close(fd)
        os.rename(f"{path}.tmp", path)

    def read(self, number: int) -> None:
        fd = os.open(self._path(number), os.O_RDONLY)
        found = os.read(fd, self._size)
        os.close(fd)
        if found != self._content(number):
            raise SystemExit("what was read is not what was written")

    def stat(self, number: int) -> None:
        os.stat(self._path(number))

    def miss(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.stat(f"{self._path(number)}.absent")

    def unlink(self, number: int) -> None:
        os.unlink(self._path(number))


class _Contest:
    """Runs every load in every place; ``micros`` has microseconds a file by load, step and place."""

    def __init__(self, base: Path, options: argparse.Namespace) -> None:
        self.micros: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.peak_rss = 0
        self._base = base
        self._mountpoint = base / "mnt"
        self._mountpoint.mkdir()
        self._data = memoryview(kv_tensor(DType.BF16, options.bytes << 20))

    def run(self, loads: list[_Load], rounds: int) -> None:
        contests = list(itertools.product(loads, _PLACES))
        for number in range(rounds):
            random.Random(number).shuffle(contests)
            for load, place in contests:
                backing = self._base / "files"
                backing.mkdir()
                try:
                    self._run(load, place, backing)
                finally:
                    shutil.rmtree(backing)
                syncfs(self._base)

    @contextlib.contextmanager
    def _mounted(self, place: str, backing: Path) -> Iterator[tuple[Path, int | None]]:
        """Yield where the files of a place are seen, and the process that serves them."""
        if place == "plain":
            yield backing, None
        elif place == "pass-through":
            with passthrough_daemon(backing, self._mountpoint) as pid:
                yield self._mountpoint, pid
        else:
            with qatqfs_mount(backing, self._mountpoint) as mount:
                yield mount, int(control.query(mount, control.PID))

    def _run(self, load: _Load, place: str, backing: Path) -> None:
        with self._mounted(place, backing) as (directory, pid):
            files = _Files(directory, self._data, load.size)
            before = _cpu_seconds(pid)
            stored = load.in_parallel(files.store)
            if place == "qatqfs":
                start = time.perf_counter()
                qatqfs("sync", directory)
                self._note(load, "store, commit included", place, stored + time.perf_counter() - start)
            else:
                self._note(load, "store, commit included", place, stored)
            self._note(load, "store", place, stored)
            self._note(load, "daemon CPU of store", place, _cpu_seconds(pid) - before)
        drop_caches()
        with self._mounted(place, backing) as (directory, pid):
            files = _Files(directory, self._data, load.size)
            before = _cpu_seconds(pid)
            self._note(load, "cold read", place, load.in_parallel(files.read))
            self._note(load, "daemon CPU of cold read", place, _cpu_seconds(pid) - before)
            self._note(load, "warm read", place, load.in_parallel(files.read))
            time.sleep(1.1)  # attributes that a mount has told count for a second
            self._note(load, "stat", place, load.in_parallel(files.stat))
            self._note(load, "missing name", place, load.in_parallel(files.miss))
            self._note(load, "unlink", place, load.in_parallel(files.unlink))
            if place == "qatqfs" and pid is not None:
                self.peak_rss = max(self.peak_rss, _peak_rss(pid))

    def _note(self, load: _Load, step: str, place: str, seconds: float) -> None:
        of_step = self.micros.setdefault(load.name, {}).setdefault(step, {})
        of_step.setdefault(place, []).append(seconds / load.count * 1e6)

    def medians(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the median of each by load, step and place."""
        return {
            load: {step: {at: statistics.median(all_) for at, all_ in places.items()} for step, places in steps.items()}
            for load, steps in self.micros.items()
        }


def _cpu_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _peak_rss(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def run(options: argparse.Namespace) -> Figures:
    """Measure; returns microseconds a file."""
    loads = []
    for size, processes in itertools.product(
        map(int, options.sizes.split(",")), map(int, options.processes.split(","))
    ):
        loads.append(_Load(size, max(8, min(options.files, (options.bytes << 20) // size)), processes))
    base = Path(tempfile.mkdtemp(prefix="qatqfs-bench-", dir=options.dir))
    try:
        contest = _Contest(base, options)
        contest.run(loads, options.rounds)
    finally:
        shutil.rmtree(base)
    return {
        "files": "synthetic bf16, written whole under a temporary name and renamed",
        "rounds": options.rounds,
        "daemon_peak_rss": contest.peak_rss,
        "microseconds_a_file": contest.medians(),
        "python": sys.version.split()[0],
    }


def report(figures: Figures) -> str:
    """Return the figures as text."""
    lines = [f"{figures['files']}; microseconds a file, medians of {figures['rounds']} rounds"]
    for load, steps in figures["microseconds_a_file"].items():
        lines += ["", f"{load:28} {'plain':>9} {'pass-thr.':>9} {'qatqfs':>9}  qatqfs to pass-through"]
        for step, of_place in steps.items():
            plain, least, ours = (of_place[place] for place in _PLACES)
            ratio = f"{ours / least:.2f}" if least else "-"
            lines.append(f"  {step:26} {plain:9.0f} {least:9.0f} {ours:9.0f}  {ratio:>7}")
    lines += ["", f"peak memory of the daemon: {figures['daemon_peak_rss'] / 1e6:.0f} MB"]
    return "\n".join(lines)
