"""A tensor written and read through a mount, beside the same in a plain directory of the same filesystem."""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_lib.places import drop_caches, qatqfs, qatqfs_mount
from bench_lib.report import ratio_table
from bench_lib.tensors import kv_tensor
from qatqfs.codec import DType

_PIECE = 1 << 20
_MIB = 1 << 20

Figures = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--size", type=int, default=256, metavar="MIB", help="tensor size (default: 256)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default: 5)")
    parser.add_argument("--level", default="balanced", help="fast, balanced (default) or small")
    parser.add_argument("--dir", type=Path, help="where to make a temporary directory (default: the system's)")


def _write(path: Path, data: bytes) -> float:
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for offset in range(0, len(data), _PIECE):
            file.write(data[offset : offset + _PIECE])
    return time.perf_counter() - start


def _read(path: Path) -> tuple[float, bytes]:
    buffer = bytearray(_PIECE)
    parts = []
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            parts.append(bytes(buffer[:count]))
    return time.perf_counter() - start, b"".join(parts)


def _random_reads(path: Path, size: int, count: int = 500) -> float:
    """Return seconds per 4 KiB read at scattered places."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        start = time.perf_counter()
        for i in range(count):
            os.pread(file.fileno(), 4096, i * 2_654_435_761 % (size // 4096) * 4096)
        return (time.perf_counter() - start) / count


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(options: argparse.Namespace) -> Figures:
    """Measure; returns MB (10^6 bytes) a second and the stored share of the raw bytes."""
    data = kv_tensor(DType.BF16, options.size * _MIB)
    seconds: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seconds.setdefault(name, []).append(value)

    base = Path(tempfile.mkdtemp(prefix="qatqfs-bench-", dir=options.dir))
    try:
        backing, mountpoint, plain = base / "backing", base / "mnt", base / "plain"
        for directory in (backing, mountpoint, plain):
            directory.mkdir()
        name = "tensor.bf16"
        for _ in range(options.rounds):
            note("plain write", _write(plain / name, data))
            note("plain write, sync", seconds["plain write"][-1] + _timed(os.sync))
            with qatqfs_mount(backing, mountpoint, "--level", options.level):
                note("write", _write(mountpoint / name, data))
                note("write, sync", seconds["write"][-1] + _timed(lambda: qatqfs("sync", mountpoint)))
            stored = (backing / f"{name}.qatc").stat().st_size
            drop_caches()
            note("plain read", _read(plain / name)[0])
            drop_caches()
            with qatqfs_mount(backing, mountpoint, "--level", options.level):
                taken, found = _read(mountpoint / name)
                if found != data:
                    raise SystemExit("what was read is not what was written")
                note("read", taken)
            drop_caches()
            with qatqfs_mount(backing, mountpoint, "--level", options.level):
                note("random read", _random_reads(mountpoint / name, len(data)))
    finally:
        shutil.rmtree(base)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    latency = medians.pop("random read")
    return {
        "tensor": f"synthetic bf16, {options.size} MiB, written and read in pieces of 1 MiB",
        "level": options.level,
        "rounds": options.rounds,
        "stored_share": stored / len(data),
        "megabytes_per_second": {key: len(data) / 1e6 / value for key, value in medians.items()},
        "random_4k_read_microseconds": latency * 1e6,
    }


_ROWS = [
    ("write until close(2)", "write", "plain write"),
    ("write until in containers (plain: until sync)", "write, sync", "plain write, sync"),
    ("cold sequential read, every checksum verified", "read", "plain read"),
]


def report(figures: Figures) -> str:
    """Return the figures as text."""
    lines = [
        f"{figures['tensor']}; level {figures['level']}; medians of {figures['rounds']} rounds",
        f"stored share of the raw bytes: {figures['stored_share']:.4f}",
        *ratio_table(("mount", "plain"), _ROWS, figures["megabytes_per_second"]),
    ]
    lines.append(f"random 4 KiB read: {figures['random_4k_read_microseconds']:.0f} microseconds")
    return "\n".join(lines)
