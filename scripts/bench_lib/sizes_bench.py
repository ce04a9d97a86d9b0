"""Stored sizes and speeds of files by qatqfs at its levels, and by zstd, lz4, zipnn and blosc2."""

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from bench_lib.tensors import kv_tensor
from qatqfs.codec import ContainerWriter, DType, Level, Memory, decode_container, encode_payload
from qatqfs.store.tensors.dtype import choose_dtype

_MIB = 1 << 20
_TILED_BYTES = 64 * _MIB

Figures = dict[str, Any]


@dataclass(frozen=True)
class Codec:
    """Something that encodes raw values of a dtype, and decodes what it made of them."""

    name: str
    encode: Callable[[bytes, DType], Any]  # bytes, or a list of them
    decode: Callable[[Any, DType], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="FILE|DIR", help="raw tensor files, or directories of them"
    )
    parser.add_argument("--chunk-size", type=int, default=256, metavar="KIB", help="raw bytes per chunk (default: 256)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default: 3)")
    parser.add_argument("--levels", default="fast,balanced,small", help="our levels (default: all three)")
    parser.add_argument("--ours", action="store_true", help="measure no other codec")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw ratio against speed; needs matplotlib")
    parser.add_argument(
        "--tiled", type=Path, metavar="FILE", help="also compare speeds on this bf16 file tiled to 64 MiB"
    )


class _Parts(list[bytes]):
    """A sink of a container writer that keeps what it is given, without copying it into one buffer."""

    def write(self, data: bytes) -> None:
        self.append(bytes(data))

    def patch(self, offset: int, data: bytes) -> None:
        assert offset == 0 and len(data) == len(self[0])  # the header, written first
        self[0] = bytes(data)


def _ours(level: Level, chunk_bytes: int) -> Codec:
    def encode(raw: bytes, dtype: DType) -> list[bytes]:
        parts, memory = _Parts(), Memory()
        writer = ContainerWriter(parts, dtype, chunk_bytes // dtype.width, level=level)
        for start in range(0, len(raw), chunk_bytes):
            last = start > 0 and start + chunk_bytes >= len(raw)
            chunk = memoryview(raw)[start : start + chunk_bytes]
            writer.append(encode_payload(chunk, dtype, level=level, appendable=last, memory=memory))
        writer.finish(len(raw))
        return parts

    return Codec(f"qatqfs {level.label}", encode, lambda data, _: decode_container(data))


def _zstd(level: int) -> Codec:
    compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
    return Codec(
        f"zstd -{level}", lambda raw, _: compressor.compress(raw), lambda data, _: decompressor.decompress(data)
    )


def _zstd_chunks(level: int, chunk_bytes: int) -> Codec:
    one = _zstd(level)
    return Codec(
        f"{one.name}, a chunk at a time",
        lambda raw, dtype: [one.encode(raw[i : i + chunk_bytes], dtype) for i in range(0, len(raw), chunk_bytes)],
        lambda parts, dtype: [one.decode(part, dtype) for part in parts],
    )


def _joined(data: Any) -> bytes:
    return b"".join(data) if isinstance(data, list) else bytes(data)


def _others() -> Iterator[Codec]:
    """Yield the codecs of others, as far as they are installed."""
    yield _zstd(3)
    yield _zstd(19)
    with contextlib.suppress(ImportError):
        import lz4.frame

        yield Codec("lz4", lambda raw, _: lz4.frame.compress(raw), lambda data, _: lz4.frame.decompress(data))
    with contextlib.suppress(ImportError):
        import zipnn

        names = {DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16"}
        made = {dtype: zipnn.ZipNN(bytearray_dtype=name) for dtype, name in names.items()}
        yield Codec(
            "zipnn",
            lambda raw, dtype: bytes(made[dtype].compress(bytearray(raw))),  # it works in the buffer it is given
            lambda data, dtype: made[dtype].decompress(data),
        )
    with contextlib.suppress(ImportError):
        import blosc2

        yield Codec(
            "blosc2 bitshuffle zstd 5",
            lambda raw, dtype: blosc2.compress2(
                raw,
                typesize=dtype.width,
                codec=blosc2.Codec.ZSTD,
                clevel=5,
                filters=[blosc2.Filter.BITSHUFFLE],
                nthreads=1,
            ),
            lambda data, _: blosc2.decompress2(data, nthreads=1),
        )


def _files(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        found += sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".json") if path.is_dir() else [path]
    return found


def _dtype(path: Path, raw: bytes) -> DType:
    def sampler(offset: int, size: int) -> bytes:
        return raw[offset : offset + size]

    return choose_dtype(path.name.encode(), len(raw), sampler, explicit=None)


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return the seconds of processor time that a call takes, on all threads it may use, and its result."""
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def _measure(codec: Codec, raw: bytes, dtype: DType, rounds: int) -> Figures:
    encode, decode = [], []
    for _ in range(rounds):
        seconds, encoded = _timed(codec.encode, raw, dtype)
        encode.append(seconds)
        stored = _joined(encoded) if isinstance(encoded, _Parts) else encoded
        seconds, decoded = _timed(codec.decode, stored, dtype)
        decode.append(seconds)
        if _joined(decoded) != raw:
            raise SystemExit(f"{codec.name} did not give back what it got")
    return {
        "bytes": len(_joined(encoded)),
        "encode_seconds": statistics.median(encode),
        "decode_seconds": statistics.median(decode),
    }


def run(options: argparse.Namespace) -> Figures:
    """Measure; returns sizes in bytes and processor seconds, for each file and in total."""
    codecs = [_ours(Level.parse(name), options.chunk_size * 1024) for name in options.levels.split(",")]
    codecs += [] if options.ours else list(_others())
    files = []
    totals: dict[str, dict[str, Figures]] = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))
    for path in _files(options.paths):
        raw = path.read_bytes()
        if not raw or len(raw) % 2:
            continue
        dtype = _dtype(path, raw)
        results = {}
        for codec in codecs:
            slow = codec.name in ("qatqfs small", "zstd -19")
            results[codec.name] = _measure(codec, raw, dtype, 1 if slow else options.rounds)
            for group in (dtype.label, "all"):
                sums = totals[group][codec.name]
                sums["raw_bytes"] += len(raw)
                for key, value in results[codec.name].items():
                    sums[key] += value
        files.append({"file": path.name, "dtype": dtype.label, "bytes": len(raw), "codecs": results})
    figures: Figures = {
        "chunk_kib": options.chunk_size,
        "rounds": options.rounds,
        "files": files,
        "totals": {group: {name: _rates(sums) for name, sums in by.items()} for group, by in totals.items()},
    }
    if options.tiled is not None:
        figures["tiled"] = _tiled(options.tiled.read_bytes(), options.chunk_size * 1024, options.rounds)
    if options.plot is not None:
        _plot(figures["totals"]["all"], options.plot)
    return figures


def _rates(sums: Figures) -> Figures:
    return {
        "bytes": int(sums["bytes"]),
        "share": sums["bytes"] / sums["raw_bytes"],
        "encode_megabytes_per_second": sums["raw_bytes"] / 1e6 / max(sums["encode_seconds"], 1e-9),
        "decode_megabytes_per_second": sums["raw_bytes"] / 1e6 / max(sums["decode_seconds"], 1e-9),
    }


def _tiled(content: bytes, chunk_bytes: int, rounds: int) -> Figures:
    """Compare speeds on 64 MiB: the file repeated, and a synthetic tensor that repeats nothing.

    A file shorter than zstd's window becomes one long match to zstd when it is repeated, which says nothing about
    tensors. So zstd is also given one chunk at a time, as a container is read. Every round runs all of them.
    """
    contents = {
        "the file repeated": (content * (1 + _TILED_BYTES // len(content)))[:_TILED_BYTES],
        "synthetic, nothing repeated": kv_tensor(DType.BF16, _TILED_BYTES),
    }
    codecs = [
        _zstd(3),
        _zstd_chunks(3, chunk_bytes),
        *(_ours(level, chunk_bytes) for level in (Level.FAST, Level.BALANCED)),
    ]
    figures: Figures = {}
    for title, raw in contents.items():
        measured: dict[str, list[Figures]] = {codec.name: [] for codec in codecs}
        for _ in range(rounds):
            for codec in codecs:
                measured[codec.name].append(_measure(codec, raw, DType.BF16, 1))
        figures[title] = {
            name: _rates(
                {
                    "raw_bytes": len(raw),
                    "bytes": results[0]["bytes"],
                    "encode_seconds": statistics.median(r["encode_seconds"] for r in results),
                    "decode_seconds": statistics.median(r["decode_seconds"] for r in results),
                }
            )
            for name, results in measured.items()
        }
    return figures


def _plot(totals: dict[str, Figures], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True)
    for panel, direction in zip(panels, ("encode", "decode"), strict=True):
        for i, (name, rates) in enumerate(totals.items()):
            speed, ratio = rates[f"{direction}_megabytes_per_second"], 1 / rates["share"]
            ours = name.startswith("qatqfs")
            panel.scatter([speed], [ratio], color="tab:red" if ours else "tab:gray", zorder=3)
            panel.annotate(
                name, (speed, ratio), textcoords="offset points", xytext=(6, -10 if i % 2 else 6), fontsize=8
            )
        panel.set_xscale("log")
        panel.set_xlabel(f"{direction}, MB/s of raw bytes on one core")
        panel.grid(visible=True, alpha=0.3)
        panel.margins(x=0.25, y=0.1)
    panels[0].set_ylabel("raw bytes / stored bytes")
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


def report(figures: Figures) -> str:
    """Return the figures as text."""
    lines = [f"chunks of {figures['chunk_kib']} KiB; one core; medians of {figures['rounds']} rounds; all was compared"]
    tables = {
        f"{group}, {len(figures['files'])} files": by for group, by in figures["totals"].items() if group == "all"
    }
    tables |= {group: by for group, by in figures["totals"].items() if group != "all"}
    tables |= {f"64 MiB, {title}": by for title, by in figures.get("tiled", {}).items()}
    for title, by_codec in tables.items():
        lines += ["", f"{title:40} {'share':>8} {'encode MB/s':>12} {'decode MB/s':>12}"]
        for name, rates in by_codec.items():
            encode, decode = rates["encode_megabytes_per_second"], rates["decode_megabytes_per_second"]
            lines.append(f"  {name:38} {rates['share']:8.4f} {encode:12.0f} {decode:12.0f}")
    return "\n".join(lines)
