"""Encode and decode speed of the codec, by dtype, level and strategy, beside zstd -3 of the raw bytes and memcpy.

Everything is measured in one process, in turn in each round; the best round counts. "per core" uses one thread on each
core and divides by the number of cores. Encoding makes whole containers with both of their checksums. The results are
not kept, neither here nor with zstd, so that the cost of fresh memory is not measured.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import zstandard

from bench_lib.tensors import kv_tensor
from qatqfs.codec import (
    DEFAULT_CHUNK_BYTES,
    STRATEGIES,
    ContainerWriter,
    DType,
    Level,
    Memory,
    decode_payload,
    decode_payloads,
    encode_container,
    encode_payload,
)
from qatqfs.codec.checksum import HASHED_TOGETHER

_MIB = 1 << 20
_CORES = os.cpu_count() or 1
_STRIDE = 1024  # the row width of the generated tensors
_LEVELS = (Level.FAST, Level.BALANCED)

Figures = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="raw tensors to measure as well")
    parser.add_argument("--dtype", type=DType.parse, default=DType.BF16, help="of the files (default: bf16)")
    parser.add_argument("--size", type=int, default=64, metavar="MIB", help="of each generated tensor (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (default: 5)")
    parser.add_argument("--levels-only", action="store_true", help="leave out the strategies one by one")


def _cut(raw: bytes) -> list[memoryview]:
    view = memoryview(raw)
    return [view[start : start + DEFAULT_CHUNK_BYTES] for start in range(0, len(view), DEFAULT_CHUNK_BYTES)]


class _Contest:
    """Things that take turns; keeps the best time of each."""

    def __init__(self, raw_bytes: int) -> None:
        self._raw_bytes = raw_bytes
        self._work: dict[str, Callable[[], object]] = {}
        self._seconds: dict[str, float] = {}

    def add(self, name: str, work: Callable[[], object]) -> None:
        """Add something to measure."""
        self._work[name] = work

    def run(self, rounds: int) -> None:
        """Let all take their turns."""
        for _ in range(rounds):
            for name, work in self._work.items():
                start = time.perf_counter()
                work()
                seconds = time.perf_counter() - start
                self._seconds[name] = min(seconds, self._seconds.get(name, seconds))

    def speed(self, name: str, cores: int = 1) -> float:
        """Return MB (10^6 raw bytes) a second, divided by the number of cores."""
        return self._raw_bytes / 1e6 / self._seconds[name] / cores


class _Nowhere:
    """A container's sink that keeps nothing."""

    def write(self, data: Any) -> None:
        """Take bytes."""

    def patch(self, offset: int, data: Any) -> None:
        """Take other bytes."""


def _payloads(parts: Sequence[memoryview], dtype: DType, **options: Any) -> Iterator[bytes]:
    memory = Memory()  # what the first chunks teach is learned again each time
    return (encode_payload(part, dtype, memory=memory, **options) for part in parts)


def _encode(parts: Sequence[memoryview], dtype: DType, **options: Any) -> None:
    writer = ContainerWriter(_Nowhere(), dtype, DEFAULT_CHUNK_BYTES // dtype.width)
    for payload in _payloads(parts, dtype, **options):
        writer.append(payload)
    writer.finish(sum(map(len, parts)))


def _compress(compressor: zstandard.ZstdCompressor, raw: bytes) -> None:
    for _ in compressor.read_to_iter(raw, size=len(raw)):
        pass


def _decode(payloads: Sequence[bytes]) -> None:
    out = bytearray(DEFAULT_CHUNK_BYTES)
    for payload in payloads:
        decode_payload(payload, out)


def _decode_together(payloads: Sequence[bytes]) -> None:
    outs = [bytearray(DEFAULT_CHUNK_BYTES) for _ in range(HASHED_TOGETHER)]
    for first in range(0, len(payloads), HASHED_TOGETHER):
        some = payloads[first : first + HASHED_TOGETHER]
        decode_payloads(some, outs[: len(some)])


def _on_all_cores(pool: ThreadPoolExecutor, work: Callable[[Sequence[Any]], object], items: Sequence[Any]) -> None:
    list(pool.map(work, [items[core::_CORES] for core in range(_CORES)]))


def _check(payloads: Sequence[bytes], parts: Sequence[memoryview]) -> None:
    for payload, part in zip(payloads, parts, strict=True):
        if decode_payload(payload) != part:
            raise SystemExit("what was decoded is not what was encoded")


def _measure(raw: bytes, dtype: DType, options: argparse.Namespace, pool: ThreadPoolExecutor) -> Figures:
    parts = _cut(raw)
    contest = _Contest(len(raw))
    compressor, decompressor = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    frame = compressor.compress(raw)
    target = bytearray(len(raw))
    source, room = memoryview(raw), memoryview(target)
    contest.add("memcpy", lambda: room.__setitem__(slice(None), source))
    contest.add("zstd compress", lambda: _compress(compressor, raw))
    contest.add("zstd decompress", lambda: decompressor.stream_reader(frame).readinto(room))
    forms: dict[str, tuple[int, dict[str, Any]]] = {}
    wanted: list[tuple[str, dict[str, Any]]] = [(level.label, {"level": level}) for level in _LEVELS]
    if not options.levels_only:
        wanted += [
            (s.name, {"level": Level.FAST, "strategy": s.id, "stride": _STRIDE})
            for s in STRATEGIES.values()
            if dtype in s.dtypes
        ]
    for name, settings in wanted:
        payloads = list(_payloads(parts, dtype, **settings))
        _check(payloads, parts)
        forms[name] = (sum(map(len, payloads)), settings)
        contest.add(f"{name} encode", lambda s=settings: _encode(parts, dtype, **s))
        contest.add(f"{name} decode", lambda p=payloads: _decode(p))
        if "strategy" not in settings:
            contest.add(f"{name} decode, together", lambda p=payloads: _decode_together(p))
            encode_some = lambda some, s=settings: _encode(some, dtype, **s)  # noqa: E731
            contest.add(f"{name} encode, all", lambda e=encode_some: _on_all_cores(pool, e, parts))
            contest.add(f"{name} decode, all", lambda p=payloads: _on_all_cores(pool, _decode, p))
    contest.run(options.rounds)
    return {
        "dtype": dtype.label,
        "raw_bytes": len(raw),
        "memcpy": contest.speed("memcpy"),
        "zstd_3": {
            "ratio": len(frame) / len(raw),
            "encode": contest.speed("zstd compress"),
            "decode": contest.speed("zstd decompress"),
        },
        "forms": {
            name: {"ratio": size / len(raw)}
            | {verb: contest.speed(f"{name} {verb}") for verb in ("encode", "decode")}
            | (
                {}
                if "strategy" in settings
                else {"decode_together": contest.speed(f"{name} decode, together")}
                | {f"{verb}_per_core": contest.speed(f"{name} {verb}, all", _CORES) for verb in ("encode", "decode")}
            )
            for name, (size, settings) in forms.items()
        },
    }


_MEMORY_PROBE = """
import os, sys
from qatqfs.codec import Container
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
fd = os.open(sys.argv[1], os.O_RDONLY)
found = Container.from_fd(fd)
out = bytearray(max(b - a for a, b in map(found.span, range(found.chunk_count))))
found.read_chunk(0, out)
before = peak()
for chunk in range(found.chunk_count):
    found.read_chunk(chunk, out)
print(peak() - before)
"""


def _decode_memory(raw: bytes, dtype: DType) -> int:
    """Return by how many bytes the memory of a process grows while it decodes a container after its first chunk."""
    data = encode_container(raw, dtype, values_per_chunk=DEFAULT_CHUNK_BYTES // dtype.width, level=Level.FAST)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        done = subprocess.run([sys.executable, "-c", _MEMORY_PROBE, file.name], check=True, capture_output=True)
    return int(done.stdout)


def run(options: argparse.Namespace) -> Figures:
    """Measure; speeds in MB (10^6 raw bytes) a second."""
    tensors = {
        f"generated {dtype.label}": (dtype, kv_tensor(dtype, options.size * _MIB))
        for dtype in (DType.BF16, DType.F16, DType.F32)
    }
    for path in options.files:
        raw = path.read_bytes()
        tensors[path.name] = (options.dtype, raw[: len(raw) // options.dtype.width * options.dtype.width])
    with ThreadPoolExecutor(_CORES) as pool:
        measured = {name: _measure(raw, dtype, options, pool) for name, (dtype, raw) in tensors.items()}
    return {
        "chunk_bytes": DEFAULT_CHUNK_BYTES,
        "rounds": options.rounds,
        "cores": _CORES,
        "decode_memory_growth_bytes": _decode_memory(*reversed(tensors["generated bf16"])),
        "tensors": measured,
    }


def report(figures: Figures) -> str:
    """Return the figures as text."""
    chunk_kib, rounds = figures["chunk_bytes"] >> 10, figures["rounds"]
    lines = [f"MB/s of raw bytes, best of {rounds} rounds; chunks of {chunk_kib} KiB; decoding verifies every checksum"]
    for name, found in figures["tensors"].items():
        lines += [
            "",
            f"{name}, {found['raw_bytes'] / _MIB:.0f} MiB; memcpy {found['memcpy']:,.0f}",
            f"{'':32} {'ratio':>6} {'encode':>8} {'decode':>8}   4 at once; per core, all {figures['cores']} busy",
        ]
        for form, row in {"zstd -3 of the raw bytes": found["zstd_3"], **found["forms"]}.items():
            line = f"{form:32} {row['ratio']:6.3f} {row['encode']:8,.0f} {row['decode']:8,.0f}"
            if "encode_per_core" in row:
                line += (
                    f"   {row['decode_together']:9,.0f}  {row['encode_per_core']:8,.0f} {row['decode_per_core']:8,.0f}"
                )
            lines.append(line)
    growth = figures["decode_memory_growth_bytes"] / 1024
    lines += ["", f"memory that decoding a container takes beyond its first chunk: {growth:,.0f} KiB"]
    return "\n".join(lines)
