"""Containers of which a power cut left zeros from somewhere on: the right bytes or an error, never a wrong length."""

import random
from collections.abc import Iterator

import pytest
from codec_twins import container, payload, read_at

from qatqfs.codec import (
    Container,
    DType,
    InvalidContainer,
    Level,
    QatcError,
    decode_container,
    encode_container,
    encode_payload,
    fnv1a64,
    verify_container,
)

LENGTHS = (0, 1, 2, 4, 5, 63, 64, 200, 203, 400, 401, 801)
STORED = [(dtype, length) for dtype in DType for length in LENGTHS if dtype.width == 2 or length % dtype.width == 0]
CHUNKS = {"one chunk": 1000, "several chunks": 50}


def contents(length: int) -> Iterator[bytes]:
    rng = random.Random(length)
    yield bytes(length)
    yield rng.randbytes(length)
    yield (b"\x3f\x80" * length)[:length]
    yield rng.randbytes(length // 2) + bytes(length - length // 2)


def torn(data: bytes) -> Iterator[bytes]:
    """The container with zeros from every offset on, each once."""
    for start in range(len(data.rstrip(b"\0"))):
        yield data[:start] + bytes(len(data) - start)


def read_all(data: bytes) -> bytes | None:
    try:
        found = Container.from_buffer(data)
        return bytes(found.read(0, found.length + 1))
    except QatcError:
        return None


@pytest.mark.parametrize(("dtype", "length"), STORED)
@pytest.mark.parametrize("per_chunk", CHUNKS.values(), ids=CHUNKS)
def test_zeros_from_any_offset_on_give_the_right_bytes_or_an_error(dtype: DType, length: int, per_chunk: int) -> None:
    tried = 0
    for raw in contents(length):
        data = encode_container(raw, dtype, values_per_chunk=per_chunk, level=Level.FAST)
        for damaged in torn(data):
            assert read_all(damaged) in (None, raw), f"zeros from {len(damaged.rstrip(bytes(1)))} of {len(data)} on"
            tried += 1
    assert tried > 50


@pytest.mark.parametrize("per_chunk", CHUNKS.values(), ids=CHUNKS)
def test_verify_and_strict_decoding_take_no_torn_container(per_chunk: int) -> None:
    data = encode_container(random.Random(1).randbytes(401), DType.BF16, values_per_chunk=per_chunk, level=Level.FAST)
    for damaged in torn(data):
        assert list(verify_container(read_at(damaged), len(damaged)))
        with pytest.raises(QatcError):
            decode_container(damaged)


@pytest.mark.parametrize("kept", range(8, 16))
def test_an_index_frame_with_nothing_behind_its_header_is_no_strangers(kept: int) -> None:
    data = encode_container(b"x" * 203, DType.BF16, level=Level.FAST)
    start = len(data) - 64
    damaged = data[: start + kept] + bytes(64 - kept)
    with pytest.raises(InvalidContainer, match="index frame"):
        Container.from_buffer(damaged).read_chunk(0)


@pytest.mark.parametrize(
    "frame",
    [
        bytes.fromhex("502a4d1838000000") + bytes(56),  # another magic, all zeros, of the size that ours has
        bytes.fromhex("5b2a4d1808000000") + bytes(8),  # our magic, another size
        bytes.fromhex("5b2a4d1800000000"),
    ],
)
def test_a_strangers_skippable_frame_of_zeros_is_served(frame: bytes) -> None:
    stored = encode_payload(b"abcd" * 50, DType.BF16, strategy=7) + frame
    assert read_all(container([stored], 100)) == b"abcd" * 50


def test_a_strangers_container_that_ends_in_zeros_is_served() -> None:
    raw = b"\x11\x22" * 20 + bytes(60)
    canonical = b"\x22\x11" * 20 + bytes(60)
    data = container([payload(DType.BF16.wire, 1, 50, fnv1a64(raw), canonical)], 50)
    assert data.endswith(bytes(60))
    assert read_all(data) == raw
