"""The inputs that fuzzing starts from: golden files, a few made ones, and those that earlier runs kept."""

import struct
from collections.abc import Iterator
from pathlib import Path

import zstandard

from qatqfs.codec import Container, DType, Level, encode_container, encode_payload

_TESTS = Path(__file__).resolve().parent.parent.parent / "tests"
VECTORS = _TESTS / "data" / "vectors"
KEPT = _TESTS / "data" / "fuzz"
"""One directory for each target; a file there is an input that reached code no other had reached."""

_RAW = b"".join(struct.pack("<f", i * 0.37) for i in range(300)) + bytes(400) + b"\xff\x7f" * 60


def seeds(target: str) -> list[bytes]:
    """Return the inputs that fuzzing a target starts from, small ones first."""
    found = {path.read_bytes() for path in sorted((KEPT / target).glob("*"))}
    found.update(_MADE[target]())
    return sorted(found, key=lambda data: (len(data), data))


def _payloads() -> Iterator[bytes]:
    for path in VECTORS.rglob("*.qatq"):
        yield path.read_bytes()
    for dtype in DType:
        yield encode_payload(_RAW, dtype, level=Level.FAST)


def _containers() -> Iterator[bytes]:
    for path in VECTORS.rglob("*.qatc"):
        yield path.read_bytes()
    for dtype in DType:
        yield encode_container(_RAW, dtype, values_per_chunk=100, level=Level.FAST)
    yield encode_container(_RAW[:-1], DType.BF16, values_per_chunk=300, level=Level.FAST)


def _index_frames() -> Iterator[bytes]:
    for data in _containers():
        if data.endswith(b"QATQFSix"):
            size = 60 + 4 * Container.from_buffer(data).chunk_count
            yield data[-size:]


def _zstd_frames() -> Iterator[bytes]:
    skippable = bytes.fromhex("502a4d1803000000") + b"abc"
    for level in (-5, 1, 3, 19):
        for options in ({}, {"write_checksum": True}, {"write_content_size": False}):
            frame = zstandard.ZstdCompressor(level=level, **options).compress(_RAW)
            for data in (frame, skippable + frame, frame + skippable):
                yield len(_RAW).to_bytes(2, "little") + data
            yield (2 * len(_RAW)).to_bytes(2, "little") + frame + skippable + frame


def _runs() -> Iterator[bytes]:
    for form, stream in ((0, "000003 010002abcd 020005ee"), (1, "02 41abcd 84ee"), (2, "000002 0100010a0b0c0d")):
        data = bytes.fromhex(stream)
        for size in (10, 12):
            yield bytes([form]) + size.to_bytes(2, "little") + data


_MADE = {
    "payload": _payloads,
    "container": _containers,
    "index_frame": _index_frames,
    "zstd_frames": _zstd_frames,
    "runs": _runs,
}
