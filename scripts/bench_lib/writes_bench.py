"""Writing a bf16 tensor: through qatqfs, through the least that FUSE costs, and onto a compressing btrfs."""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
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


def run(options: argparse.Namespace) -> Figures:
    """Measure; returns MB (10^6 bytes) a second."""
    data = memoryview(kv_tensor(DType.BF16, options.size * _MIB))
    small = data[: options.small_size * _MIB]
    seconds: dict[str, list[float]] = {}

    def note(name: str, value: float) -> float:
        seconds.setdefault(name, []).append(value)
        return value

    base = Path(tempfile.mkdtemp(prefix="qatqfs-bench-", dir=options.dir))
    try:
        places = {name: base / name for name in ("backing", "plain", "mnt", "direct")}
        for directory in places.values():
            directory.mkdir()
        backing, plain, mountpoint, direct = places.values()
        for _ in range(options.rounds):
            syncfs(base)
            with qatqfs_mount(backing, mountpoint, "--level", options.level) as mount:
                written = note("qatqfs", _write(mount / "t.bf16", data, _LARGE_PIECE))
                note("qatqfs, durable", written + _timed(lambda: qatqfs("sync", mountpoint), lambda: syncfs(backing)))
                note("qatqfs, small", _write(mount / "s.bf16", small, _SMALL_PIECE))
            stored = (backing / "t.bf16.qatc").stat().st_size
            _empty(backing)
            syncfs(base)
            with passthrough_mount(plain, mountpoint) as mount:
                note("pass-through", _write(mount / "t.bf16", data, _LARGE_PIECE))
                note("pass-through, small", _write(mount / "s.bf16", small, _SMALL_PIECE))
            _empty(plain)
            note("plain", _write(direct / "t.bf16", data, _LARGE_PIECE))
            note("plain, small", _write(direct / "s.bf16", small, _SMALL_PIECE))
            _empty(direct)
            syncfs(base)
            if btrfs_possible():
                size = 2 * len(data) + 512 * _MIB
                with btrfs_mount(base / "image", mountpoint, size=size, compress="zstd:3") as mount:
                    written = note("btrfs", _write(mount / "t.bf16", data, _LARGE_PIECE))
                    note("btrfs, durable", written + _timed(lambda: syncfs(mountpoint)))
    finally:
        shutil.rmtree(base)
    speeds = {}
    for name, values in seconds.items():
        size = len(small) if name.endswith("small") else len(data)
        speeds[name] = size / 1e6 / statistics.median(values)
    return {
        "tensor": f"synthetic bf16, {options.size} MiB in pieces of 1 MiB, {options.small_size} MiB in pieces of 8 KiB",
        "level": options.level,
        "rounds": options.rounds,
        "stored_share": stored / len(data),
        "megabytes_per_second": speeds,
    }


def _empty(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()


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
