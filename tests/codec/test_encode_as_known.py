"""The quick way of a chunk of which everything is known gives what the search would give, on every instruction set."""

import numpy as np
import pytest
from codec_twins import fnv1a64

from qatqfs.codec import (
    DType,
    EncodingFault,
    Level,
    Memory,
    _native,
    decode_payload,
    encode_payload,
    encode_payloads,
    read_payload_header,
)
from qatqfs.codec import search as search_module
from qatqfs.codec.lessons import Lessons

VALUES = 40_000


def tensor(dtype: DType, seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).standard_normal(VALUES, dtype=np.float32)
    if dtype is DType.F32:
        return values.tobytes()
    return (
        (values.astype("<f2").tobytes()) if dtype is DType.F16 else (values.view("<u4") >> 16).astype("<u2").tobytes()
    )


def searched(monkeypatch: pytest.MonkeyPatch, raw: bytes, dtype: DType, **settings: object) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr("qatqfs.codec.payloadencoder.encode_as_known", lambda *args, **kwargs: [])
        return encode_payload(raw, dtype, **settings)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
@pytest.mark.parametrize("dtype", list(DType))
def test_it_gives_the_bytes_of_the_search(dtype: DType, level: Level, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = Memory(), Memory()
    for seed in range(6):
        raw = tensor(dtype, seed)
        expected = searched(monkeypatch, raw, dtype, level=level, memory=slow)
        found = encode_payload(raw, dtype, level=level, memory=quick)
        assert found == expected
        assert decode_payload(found) == raw


def rows_that_repeat(dtype: DType, seed: int) -> bytes:
    """Every third row is one of a few, so that matches pay on a plane that also has single bytes to code."""
    rng = np.random.default_rng(seed)
    rows = np.frombuffer(tensor(dtype, seed), np.uint8).reshape(-1, 80 * dtype.width).copy()
    rows[::3] = rows[rng.integers(0, 5, len(rows[::3]))]
    return rows.tobytes()


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
@pytest.mark.parametrize("dtype", list(DType))
def test_planes_with_matches_are_coded_as_by_the_search(
    dtype: DType, level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = Memory(), Memory()
    for seed in range(4):
        raw = rows_that_repeat(dtype, seed)
        expected = searched(monkeypatch, raw, dtype, level=level, memory=slow)
        if seed > 0:
            monkeypatch.setattr(search_module, "_smallest_frames", lambda *args: pytest.fail("it was searched"))
        found = encode_payload(raw, dtype, level=level, memory=quick)
        monkeypatch.undo()
        assert found == expected
        assert decode_payload(found) == raw
        assert encode_payload(raw, dtype, level=level, memory=quick, verified=True) == found


@pytest.mark.parametrize("dtype", list(DType))
def test_once_the_lessons_are_learnt_nothing_is_searched(dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    encode_payload(tensor(dtype), dtype, memory=memory)
    monkeypatch.setattr(search_module, "_smallest_frames", lambda *args: pytest.fail("it was searched"))
    payload = encode_payload(tensor(dtype, 1), dtype, memory=memory)
    header = read_payload_header(payload)
    raw = tensor(dtype, 1)
    assert decode_payload(payload) == raw
    canonical = np.frombuffer(raw, np.uint32).byteswap().tobytes() if dtype is DType.F32 else raw
    assert header.checksum == fnv1a64(canonical)


def test_a_chunk_unlike_those_before_is_searched() -> None:
    memory = Memory()
    for seed in range(3):
        encode_payload(tensor(DType.BF16, seed), DType.BF16, memory=memory)
    rows = np.tile(np.frombuffer(tensor(DType.BF16)[:4000], np.uint8), 20).tobytes()
    for raw in (bytes(80_000), rows, bytes(range(256)) * 200, np.random.default_rng(1).bytes(80_000)):
        again = encode_payload(raw, DType.BF16, memory=memory)
        assert decode_payload(again) == raw
        assert len(again) <= len(encode_payload(raw, DType.BF16, memory=Memory())) * 1.02 + 64


def test_constant_planes_and_odd_planes_of_every_size() -> None:
    rng = np.random.default_rng(2)
    for count in (600, 4096, 65_536, 131_073, 300_000):
        upcast = (rng.standard_normal(count, dtype=np.float32).view(np.uint32) & 0xFFFF0000).tobytes()
        noise, zeros = rng.bytes(4 * count), bytes(4 * count)
        for raw in (upcast, noise, zeros):
            memory = Memory()
            for _ in range(3):
                assert decode_payload(encode_payload(raw, DType.F32, memory=memory)) == raw
            assert decode_payload(encode_payload(raw, DType.F32, level=Level.FAST)) == raw


@pytest.mark.parametrize(
    "arguments",
    [
        (b"", bytes(36), 2, 20),
        (b"abc", bytes(36), 2, 20),
        (bytes(64), bytes(36), 3, 20),
        (bytes(64), bytes(36), 0, 20),
        (bytes(64), bytes(36), 2, -1),
        (bytes(64), bytes(36), 2, 29),
        (bytes(64), bytes(7), 2, 0),
    ],
)
def test_the_kernel_refuses_what_it_cannot_take(arguments: tuple[bytes, bytes, int, int]) -> None:
    raw, prefix, width, checksum_at = arguments
    with pytest.raises(ValueError, match="must"):
        _native.encode_planes([raw], prefix, bytearray(1 << 16), width, checksum_at, 1 << 16, False, 3, 0, 0.1, True)


def test_the_kernel_refuses_too_little_scratch_memory() -> None:
    with pytest.raises(ValueError, match="scratch"):
        _native.encode_planes([bytes(64)], bytes(36), bytearray(2000), 2, 20, 1 << 16, False, 3, 0, 0.1, True)


def test_a_plane_that_was_text_is_looked_at_again() -> None:
    rng = np.random.default_rng(3)
    words = b" ".join(rng.choice([b"alpha", b"beta", b"gamma", b"delta", b"epsilon"], 20_000))
    chunks = [np.frombuffer(words[:80_000], np.uint8).repeat(2)[:80_000].tobytes(), rng.bytes(80_000)] * 3
    slow, quick = Memory(), Memory()
    for raw in chunks:
        with pytest.MonkeyPatch.context() as patch:
            expected = searched(patch, raw, DType.BF16, memory=slow)
        assert encode_payload(raw, DType.BF16, memory=quick) == expected


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
@pytest.mark.parametrize("dtype", list(DType))
def test_many_chunks_at_once_give_the_bytes_of_each_alone(dtype: DType, level: Level, verified: bool) -> None:
    rng = np.random.default_rng(4)
    ordinary = [tensor(dtype, seed) for seed in range(6)]
    repeating = np.tile(np.frombuffer(tensor(dtype)[:4000], np.uint8), 20).tobytes()
    odd = [bytes(80_000), rng.bytes(80_000), tensor(dtype)[: 2 * VALUES], b"", repeating, tensor(dtype)[:8]]
    raws = [*ordinary, *odd, *ordinary, *reversed(odd), *ordinary]
    alone, together = Memory(), Memory()
    expected = [encode_payload(raw, dtype, level=level, memory=alone, verified=verified) for raw in raws]
    found = [
        payload
        for first in range(0, len(raws), 7)
        for payload in encode_payloads(raws[first : first + 7], dtype, level=level, memory=together, verified=verified)
    ]
    assert [decode_payload(payload).tobytes() for payload in found] == raws
    # Lessons may be looked at in another order, so trials may come at other chunks.
    assert sum(map(len, found)) <= 1.01 * sum(map(len, expected))
    if level is Level.FAST:
        assert found == expected


def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each call how many chunks it was given."""
    calls: list[int] = []
    real = _native.encode_planes

    def counting(raws: list, *args: object) -> list:
        calls.append(len(raws))
        return real(raws, *args)

    monkeypatch.setattr(_native, "encode_planes", counting)
    return calls


def test_chunks_of_which_all_is_known_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    encode_payload(tensor(DType.BF16), DType.BF16, memory=memory)
    calls = kernel_calls(monkeypatch)
    raws = [tensor(DType.BF16, seed) for seed in range(8)]
    payloads = encode_payloads(raws, DType.BF16, memory=memory, verified=True)
    assert calls == [8]
    assert [decode_payload(payload) for payload in payloads] == raws


def stands_for(lessons: Lessons, subject: object, times: int) -> None:
    while lessons._left[subject] > times:
        lessons.recall(subject)


def rounded(seed: int) -> bytes:
    """f32 values of 10 bits of mantissa: two planes have few symbols, one is noise, one is constant."""
    values = np.random.default_rng(seed).standard_normal(VALUES, dtype=np.float32).view("<u4") & 0xFFFFE000
    return values.astype("<u4").tobytes()


def rows_that_change_slowly(count: int, width: int) -> bytes:
    """16-bit values with noise in the low bytes, and one high byte in three unlike the one above."""
    rng = np.random.default_rng(0)
    changes = rng.integers(1, 32, (count, width)) * (rng.random((count, width)) < 1 / 3)
    changes[0] = rng.integers(0, 32, width)
    high = np.bitwise_xor.accumulate(changes, axis=0)
    return (high << 8 | rng.integers(0, 256, (count, width))).astype("<u2").tobytes()


@pytest.mark.parametrize("which", ["filter", "one plane", "all planes"])
def test_many_chunks_at_once_are_no_more_than_a_lesson_stands_for(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    encode_payload(rounded(0), DType.F32, memory=memory)
    planes = list(memory.ways[7]._left)
    assert len(planes) == 2
    if which == "filter":
        stands_for(memory.recipes, (DType.F32, ()), 3)
    for plane in planes[: {"filter": 0, "one plane": 1, "all planes": 2}[which]]:
        stands_for(memory.ways[7], plane, 3)
    calls = kernel_calls(monkeypatch)
    encode_payloads([rounded(seed) for seed in range(8)], DType.F32, memory=memory)
    assert calls[0] == 3


def test_a_chunk_unlike_the_others_of_its_group_is_searched() -> None:
    memory = Memory()
    encode_payload(tensor(DType.BF16), DType.BF16, memory=memory)
    raws = [tensor(DType.BF16, seed) for seed in range(8)]
    raws[3] = rows_that_change_slowly(VALUES // 200, 200)
    payloads = encode_payloads(raws, DType.BF16, memory=memory)
    assert read_payload_header(payloads[3]).strategy == 10
    assert len(payloads[3]) < 0.7 * len(raws[3])
    assert [decode_payload(payload) for payload in payloads] == raws


@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
def test_chunks_that_get_no_smaller_are_not_encoded_over_and_over(
    level: Level, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, memory = np.random.default_rng(0), Memory()
    calls = kernel_calls(monkeypatch)
    raws = [rng.bytes(8192) for _ in range(64)]
    payloads = encode_payloads(raws, DType.BF16, level=level, memory=memory)
    assert [decode_payload(payload) for payload in payloads] == raws
    assert sum(calls) <= 3 * len(raws)


def test_the_kernel_looks_at_nothing_behind_a_chunk_that_it_makes_too_long() -> None:
    rng = np.random.default_rng(0)
    raws = [tensor(DType.BF16)[:8192], rng.bytes(8192), tensor(DType.BF16)[:8192]]
    room = bytearray(1 << 20)
    for longest, expected in ((1 << 20, 3), (8192 + 35, 1), (100, 0)):
        found = _native.encode_planes(raws, bytes(36), room, 2, 20, longest, False, 3, 0, 0.015, True)
        assert len(found) == expected


def test_a_fault_in_one_of_many_chunks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, real = Memory(), _native.encode_planes
    encode_payload(tensor(DType.BF16), DType.BF16, memory=memory)

    def faulty(raws: list, *args: object) -> list:
        found = real(raws, *args)
        payload, _, hashed = found[2]
        found[2] = payload[:-1] + bytes([payload[-1] ^ 1]), False, hashed
        return found

    monkeypatch.setattr(_native, "encode_planes", faulty)
    with pytest.raises(EncodingFault):
        encode_payloads([tensor(DType.BF16, seed) for seed in range(5)], DType.BF16, memory=memory, verified=True)


def test_the_kernel_takes_chunks_of_one_length_alone() -> None:
    with pytest.raises(ValueError, match="equally long"):
        _native.encode_planes(
            [bytes(64), bytes(66)], bytes(36), bytearray(1 << 16), 2, 20, 1 << 16, False, 3, 0, 0.1, True
        )
    with pytest.raises(ValueError, match="must"):
        _native.encode_planes([], bytes(36), bytearray(1 << 16), 2, 20, 1 << 16, False, 3, 0, 0.1, True)
    with pytest.raises(TypeError):
        _native.encode_planes([bytes(64), 3], bytes(36), bytearray(1 << 16), 2, 20, 1 << 16, False, 3, 0, 0.1, True)
