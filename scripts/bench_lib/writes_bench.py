"""Writing a bf16 tensor: through qatqfs, through the least that FUSE costs, and onto a compressing btrfs."""

import argparse
import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench_lib.places import btrfs_mount, btrfs_possible, passthrough_mount, qatqfs, qatqfs_mount, syncfs
from bench_lib.report import ratio_table
from bench_lib.tensors import kv_tensor
from qatqfs.codec import DType

_MIB = 1 << 20
_LARGE_PIECE, _SMALL_PIECE = 1 << 20, 8 << 10

Figures = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="tensor size (default: 1024)")
    parser.add_argument("--small-size", type=int, default=64, metavar="MIB", help="for pieces of 8 KiB (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default: 5)")
    parser.add_argument("--level", default="balanced", help="fast, balanced (default) or small")
    parser.add_argument("--dir", type=Path, help="where to make a temporary directory (default: the system's)")


def _write(path: Path, data: memoryview, piece: int) -> float:
    """Return the seconds that a writer spends, open and close included."""
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for offset in range(0, len(data), piece):
            file.write(data[offset : offset + piece])
    return time.perf_counter() - start


def _timed(*work: Callable[[], object]) -> float:
    start = time.perf_counter()
    for step in work:
        step()
    return time.perf_counter() - start


class _Contest:
    """Writes the same tensor in several places; ``seconds`` has what each took, by name."""

    def __init__(self, base: Path, options: argparse.Namespace) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.stored = 0
        self._data = memoryview(kv_tensor(DType.BF16, options.size * _MIB))
        self._small = self._data[: options.small_size * _MIB]
        self._level = options.level
        self._base = base
        self._mountpoint = base / "mnt"
        self._mountpoint.mkdir()

    def run(self, rounds: int) -> None:
        """Let all of them write, in a random order each round: who is before one decides what memory he finds."""
        contenders = [self._qatqfs, self._passthrough, self._plain, *([self._btrfs] if btrfs_possible() else [])]
        for number in range(rounds):
            random.Random(number).shuffle(contenders)
            for contender in contenders:
                syncfs(self._base)
                contender()

    def _note(self, name: str, value: float) -> float:
        self.seconds.setdefault(name, []).append(value)
        return value

    def _write_both(self, name: str, directory: Path) -> None:
        self._note(name, _write(directory / "t.bf16", self._data, _LARGE_PIECE))
        self._note(f"{name}, small", _write(directory / "s.bf16", self._small, _SMALL_PIECE))

    def _qatqfs(self) -> None:
        with self._directory() as backing:
            with qatqfs_mount(backing, self._mountpoint, "--level", self._level) as mount:
                written = self._note("qatqfs", _write(mount / "t.bf16", self._data, _LARGE_PIECE))
                durable = _timed(lambda: qatqfs("sync", mount), lambda: syncfs(backing))
                self._note("qatqfs, durable", written + durable)
                self._note("qatqfs, small", _write(mount / "s.bf16", self._small, _SMALL_PIECE))
            self.stored = (backing / "t.bf16.qatc").stat().st_size

    def _passthrough(self) -> None:
        with self._directory() as backing, passthrough_mount(backing, self._mountpoint) as mount:
            self._write_both("pass-through", mount)

    def _plain(self) -> None:
        with self._directory() as directory:
            self._write_both("plain", directory)

    def _btrfs(self) -> None:
        size = 2 * len(self._data) + 512 * _MIB
        with btrfs_mount(self._base / "image", self._mountpoint, size=size, compress="zstd:3") as mount:
            written = self._note("btrfs", _write(mount / "t.bf16", self._data, _LARGE_PIECE))
            self._note("btrfs, durable", written + _timed(lambda: syncfs(mount)))

    @contextlib.contextmanager
    def _directory(self) -> Iterator[Path]:
        directory = self._base / "files"
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory)

    def speeds(self) -> dict[str, float]:
        """Return the median of each in MB (10^6 bytes) a second."""
        return {
            name: len(self._small if name.endswith("small") else self._data) / 1e6 / statistics.median(values)
            for name, values in self.seconds.items()
        }

    def stored_share(self) -> float:
        """Return what the container takes of the raw bytes."""
        return self.stored / len(self._data)


def run(options: argparse.Namespace) -> Figures:
    """Measure; returns MB (10^6 bytes) a second."""
    base = Path(tempfile.mkdtemp(prefix="qatqfs-bench-", dir=options.dir))
    try:
        contest = _Contest(base, options)
        contest.run(options.rounds)
    finally:
        shutil.rmtree(base)
    return {
        "tensor": f"synthetic bf16, {options.size} MiB in pieces of 1 MiB, {options.small_size} MiB in pieces of 8 KiB",
        "level": options.level,
        "rounds": options.rounds,
        "stored_share": contest.stored_share(),
        "megabytes_per_second": contest.speeds(),
        "seconds": contest.seconds,
    }


_ROWS = [
    ("until close(2), 1 MiB pieces; pass-through", "qatqfs", "pass-through"),
    ("until close(2), 8 KiB pieces; pass-through", "qatqfs, small", "pass-through, small"),
    ("until close(2), 1 MiB pieces; plain", "qatqfs", "plain"),
    ("until close(2), 8 KiB pieces; plain", "qatqfs, small", "plain, small"),
    ("until in containers and on disk; btrfs until on disk", "qatqfs, durable", "btrfs, durable"),
]


def report(figures: Figures) -> str:
    """Return the figures as text."""
    speeds = figures["megabytes_per_second"]
    lines = [
        f"{figures['tensor']}; level {figures['level']}; medians of {figures['rounds']} rounds",
        f"stored share of the raw bytes: {figures['stored_share']:.4f}",
        *ratio_table(("qatqfs", "other"), _ROWS, speeds),
    ]
    if "btrfs, durable" not in speeds:
        lines.append("no btrfs here: that needs root, mkfs.btrfs (Debian package btrfs-progs) and loop devices")
    return "\n".join(lines)
