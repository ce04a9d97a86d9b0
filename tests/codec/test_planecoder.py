"""The search finds the small form where there is one, and real tensors reach the sizes measured for them."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import strict_decoder
import zstandard

from qatqfs.codec import DType, Level, decode_payload, encode_container, encode_payload

CHUNK_BYTES = 256 * 1024


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def bf16(values: np.ndarray) -> bytes:
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


def encoded_share(raw: bytes, dtype: DType, level: Level) -> float:
    encoded = encode_payload(raw, dtype, level=level)
    assert decode_payload(encoded) == raw
    return len(encoded) / len(raw)


@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
def test_noise_in_the_lower_plane_does_not_spoil_the_upper(level: Level) -> None:
    raw = bf16(normal(CHUNK_BYTES // 2))
    assert encoded_share(raw, DType.BF16, level) < 0.68
    assert len(zstandard.ZstdCompressor(level=3).compress(raw)) / len(raw) > 0.75


@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
def test_repeated_rows_are_found(level: Level) -> None:
    row = bf16(normal(2048))
    raw = b"".join(row if i % 2 else bf16(normal(2048, i)) for i in range(64))
    assert encoded_share(raw, DType.BF16, level) < 0.36


def test_smooth_f32_is_encoded_as_differences() -> None:
    raw = np.sin(np.arange(20_000, dtype=np.float32) / 3000).astype("<f4").tobytes()
    encoded = encode_payload(raw, DType.F32)
    assert encoded[32] == 8
    assert len(encoded) < 0.9 * len(encode_payload(raw, DType.F32, strategy=7))


def test_f32_that_was_bf16_takes_no_more_than_bf16() -> None:
    values = normal(CHUNK_BYTES // 4)
    upcast = (values.view(np.uint32) & 0xFFFF0000).tobytes()
    assert len(encode_payload(upcast, DType.F32)) < len(encode_payload(bf16(values), DType.BF16)) + 40


@pytest.mark.parametrize("dtype", DType)
def test_a_higher_level_is_never_larger(dtype: DType) -> None:
    rng = random.Random(1)
    raw = bytes(rng.choices(range(40), k=6000)) + bytes(2000) + bf16(normal(1000)) * 3
    fast, balanced, small = (encoded_share(raw, dtype, level) for level in Level)
    assert small <= balanced <= fast


GOALS = {
    Level.FAST: {"all": 0.735},
    Level.BALANCED: {"bf16": 0.662, "f16": 0.850, "f32": 0.786, "all": 0.720},
    Level.SMALL: {"bf16": 0.662, "f16": 0.850, "f32": 0.786, "all": 0.708},
}
"""Share of the raw bytes that containers of real tensors may take, by level and dtype."""


@pytest.mark.slow
@pytest.mark.parametrize("level", Level)
def test_real_tensors_reach_the_measured_sizes_and_none_is_larger_than_the_reference_makes_it(
    shared_data: Path, level: Level
) -> None:
    manifest = json.loads((shared_data / "corpus" / "manifest.json").read_text())
    raw_bytes, stored_bytes = Counter[str](), Counter[str]()
    for entry in manifest["files"]:
        raw = (shared_data / "corpus" / entry["file"]).read_bytes()
        dtype = DType.parse(entry["dtype"])
        data = encode_container(raw, dtype, values_per_chunk=CHUNK_BYTES // dtype.width, level=level)
        assert strict_decoder.decode_container(data).raw == raw
        assert len(data) <= 1.01 * entry["reference_qatc_bytes"] + 200, entry["file"]
        for group in (dtype.label, "all"):
            raw_bytes[group] += len(raw)
            stored_bytes[group] += len(data)
    for group, share in GOALS[level].items():
        assert stored_bytes[group] <= share * raw_bytes[group]
