"""The search chooses the strategy that suits the values, at a cost that its level allows, and never a wrong byte."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import strict_decoder
from public_fixtures import FIXTURES

from qatqfs.codec import (
    Container,
    DType,
    Level,
    Memory,
    decode_payload,
    encode_array,
    encode_container,
    encode_payload,
)
from qatqfs.codec.lessons import FIRST_RECHECK, LAST_RECHECK, Lessons
from qatqfs.codec.planekernels import MAX_LAG, equal_at_lags, share_equal_at_lag
from qatqfs.codec.search import Recipe, Settings, encode_smallest
from qatqfs.codec.stride import infer_stride, row_widths

REFERENCE_BYTES = [12_509, 7_554, 32_108, 199]
"""What the reference encoder's payload of each public fixture takes."""

HALVES = [DType.F16, DType.BF16]

LICENSE = Path(__file__).parent.parent.parent / "LICENSE"


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def bf16(values: np.ndarray) -> bytes:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


def as_array(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8)


def top_plane(values: np.ndarray) -> np.ndarray:
    return as_array(bf16(values))[1::2].copy()


def slow_rows(rows: int, width: int) -> bytes:
    """16-bit values in rows: one in three differs from the one above, and then in its lowest bits."""
    rng = np.random.default_rng(0)
    changes = rng.integers(0, 4, (rows, width)) * (rng.random((rows, width)) < 0.3)
    changes[0] = rng.integers(0, 65536, width)
    return np.bitwise_xor.accumulate(changes).astype("<u2").tobytes()


def stride_of(payload: bytes) -> int:
    return int.from_bytes(payload[36:40], "big")


def strategy_of(raw: bytes, dtype: DType, level: Level = Level.BALANCED) -> int:
    encoded = encode_payload(raw, dtype, level=level)
    assert strict_decoder.decode_payload(encoded) == (dtype.label, raw)
    return encoded[32]


# -- which strategy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [Level.BALANCED, Level.SMALL])
def test_smooth_f32_is_encoded_as_differences(level: Level) -> None:
    raw = np.sin(np.arange(20_000, dtype=np.float32) / 3000).astype("<f4").tobytes()
    assert strategy_of(raw, DType.F32, level) == 8


@pytest.mark.parametrize("dtype", HALVES)
def test_slowly_rising_16_bit_values_are_xored_with_the_one_before(dtype: DType) -> None:
    steps = np.random.default_rng(0).integers(0, 2, 60_000)
    assert strategy_of(np.cumsum(steps).astype("<u2").tobytes(), dtype) == 9


@pytest.mark.parametrize("dtype", HALVES)
def test_rows_that_change_slowly_are_xored_with_the_row_before(dtype: DType) -> None:
    rows = slow_rows(201, 300)
    encoded = encode_payload(rows, dtype)
    assert (encoded[32], stride_of(encoded)) == (10, 300)
    assert strict_decoder.decode_payload(encoded) == (dtype.label, rows)


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("level", Level)
def test_noise_stays_raw_bits_unless_a_frame_has_to_be_appended(dtype: DType, level: Level) -> None:
    raw = np.random.default_rng(0).bytes(40_000)
    assert strategy_of(raw, dtype, level) == 1
    assert encode_payload(raw, dtype, level=level, appendable=True)[32] in (7, 8, 9, 10)


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("level", Level)
def test_values_that_never_change_take_a_few_bytes(dtype: DType, level: Level) -> None:
    raw = b"\x3f\x80\x12\x34"[: dtype.width] * 60_000
    assert len(encode_payload(raw, dtype, level=level)) < 100


def test_the_stride_of_a_forced_strategy_is_the_one_given() -> None:
    raw = as_array(bf16(normal(1000)))
    chosen, data = encode_smallest(raw, Settings(DType.BF16, Level.FAST), strategy=10, stride=77)
    assert (chosen, data[:4]) == (10, (77).to_bytes(4, "big"))


@pytest.mark.parametrize(("dtype", "stride"), [(DType.BF16, 0), (DType.BF16, 500), (DType.F32, 3)])
def test_a_stride_that_cannot_be_is_refused(dtype: DType, stride: int) -> None:
    with pytest.raises(ValueError, match=r"strategy"):
        encode_smallest(as_array(bytes(1000)), Settings(dtype, Level.FAST), strategy=10, stride=stride)


# -- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "reference_bytes"), list(zip(FIXTURES, REFERENCE_BYTES, strict=True)))
def test_the_public_fixtures_are_smaller_than_the_reference_makes_them(name: str, reference_bytes: int) -> None:
    raw = FIXTURES[name]()
    encoded = encode_payload(raw, DType.F32, level=Level.SMALL)
    assert strict_decoder.decode_payload(encoded) == ("f32", raw)
    assert len(encoded) < 0.95 * reference_bytes


def english(size: int) -> bytes:
    """Lines of four words each, from random places of the license."""
    words, rng = LICENSE.read_text().split(), random.Random(0)
    starts = (rng.randrange(len(words) - 4) for _ in range(size // 16))
    return "\n".join(" ".join(words[start : start + 4]) for start in starts).encode()[:size]


def opaque_contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        "text": english(600_001),
        "noise": rng.bytes(900_001),
        "noise of six bits": (np.frombuffer(rng.bytes(700_000), np.uint8) & 63).tobytes(),
        "zeros and noise": bytes(300_000) + rng.bytes(300_000) + bytes(5),
        "counters": np.arange(150_000, dtype="<u4").tobytes(),
        "a short line": b"one line of text\n",
    }


@pytest.mark.parametrize("name", opaque_contents())
@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
def test_what_is_no_tensor_is_never_stored_much_larger_than_it_is(name: str, dtype: DType, level: Level) -> None:
    raw = opaque_contents()[name]
    raw = raw[: len(raw) // dtype.width * dtype.width]
    encoded = encode_container(raw, dtype, values_per_chunk=256 * 1024 // dtype.width, level=level)
    assert strict_decoder.decode_container(encoded).raw == raw
    assert len(encoded) <= 1.001 * len(raw) + 200


def test_text_is_compressed_like_text() -> None:
    raw = opaque_contents()["text"]
    raw = raw[: len(raw) // 2 * 2]
    assert len(encode_payload(raw, DType.BF16)) < 0.3 * len(raw)


# -- what chunks teach ---------------------------------------------------------------------------------------


def chunks_of_many_kinds() -> list[bytes]:
    row = bf16(normal(2048))
    kinds = [
        bf16(normal(60_000)),
        b"".join(row if i % 2 else bf16(normal(2048, i)) for i in range(30)),
        bytes(120_000),
        np.random.default_rng(0).bytes(120_000),
        np.cumsum(np.random.default_rng(1).integers(0, 2, 60_000)).astype("<u2").tobytes(),
        bf16(normal(10)),
        b"\x80\x3f",
    ]
    return [kinds[i % len(kinds)] for i in range(3 * FIRST_RECHECK)]


@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
def test_a_memory_changes_no_content_however_wrong_its_lessons_are(level: Level) -> None:
    memory = Memory()
    for raw in chunks_of_many_kinds():
        assert decode_payload(encode_payload(raw, DType.BF16, level=level, memory=memory)) == raw


def test_a_memory_may_be_shared_by_threads() -> None:
    memory, chunks = Memory(), chunks_of_many_kinds()

    def encode_all(_: int) -> list[bytes]:
        return [encode_payload(raw, DType.BF16, memory=memory) for raw in chunks]

    with ThreadPoolExecutor(4) as threads:
        for payloads in threads.map(encode_all, range(4)):
            assert [decode_payload(payload) for payload in payloads] == chunks


def test_a_uniform_stream_is_as_small_with_a_memory_as_without() -> None:
    memory = Memory()
    for seed in range(3 * FIRST_RECHECK):
        raw = np.cumsum(np.random.default_rng(seed).integers(0, 2, 20_000)).astype("<u2").tobytes()
        known, fresh = (len(encode_payload(raw, DType.BF16, memory=m)) for m in (memory, None))
        assert known <= 1.05 * fresh


def test_a_lesson_stands_for_some_time_and_twice_as_long_when_it_is_confirmed() -> None:
    lessons: Lessons[str] = Lessons()
    assert lessons.recall("plane") is None
    for stands in (FIRST_RECHECK, 2 * FIRST_RECHECK):
        lessons.learn("plane", "way")
        assert [lessons.recall("plane") for _ in range(stands + 1)] == ["way"] * stands + [None]
    lessons.learn("plane", "another way")
    assert [lessons.recall("plane") for _ in range(FIRST_RECHECK + 1)].count("another way") == FIRST_RECHECK


def test_a_forgotten_lesson_is_not_recalled() -> None:
    lessons: Lessons[str] = Lessons()
    lessons.learn("plane", "way")
    lessons.forget("plane")
    assert lessons.recall("plane") is None


def test_no_lesson_stands_for_ever() -> None:
    lessons: Lessons[str] = Lessons()
    for _ in range(20):
        lessons.learn("plane", "way")
    assert [lessons.recall("plane") for _ in range(LAST_RECHECK + 1)][-1] is None


def test_a_chunk_of_another_kind_is_not_encoded_by_what_the_ones_before_taught() -> None:
    memory = Memory()
    rising = np.cumsum(np.random.default_rng(0).integers(0, 2, 60_000)).astype("<u2").tobytes()
    text = opaque_contents()["text"][:120_000]
    tensor = bf16(normal(60_000))
    for before in (rising, text, bytes(120_000)):
        encode_payload(before, DType.BF16, memory=memory)
        known, fresh = (len(encode_payload(tensor, DType.BF16, memory=m)) for m in (memory, None))
        assert known <= 1.01 * fresh


# -- row widths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 31, 64, 384, 1000, 2048])
def test_the_row_width_of_channels_with_scales_of_their_own_is_found(width: int) -> None:
    rng = np.random.default_rng(width)
    values = rng.normal(size=(1 + 70_000 // width, width)) * np.exp2(rng.normal(scale=3, size=width))
    assert infer_stride(equal_at_lags(top_plane(values.ravel()))) == width


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 1000, 100_000])
def test_values_without_rows_have_no_row_width(size: int) -> None:
    assert infer_stride(equal_at_lags(top_plane(normal(size)))) is None


@pytest.mark.parametrize("width", [MAX_LAG + 1, 20_000, 60_001])
@pytest.mark.parametrize("level", [Level.BALANCED, Level.SMALL])
def test_rows_wider_than_the_data_is_searched_for_are_found_by_a_hint_only(width: int, level: Level) -> None:
    raw = slow_rows(1 + 66_000 // width if level is Level.SMALL else 1 + 131_072 // width, width)
    blind = encode_payload(raw, DType.F16, level=level)
    hinted = encode_payload(raw, DType.F16, level=level, row_widths=[64, width])
    assert blind[32] != 10
    assert (hinted[32], stride_of(hinted)) == (10, width)
    assert len(hinted) < len(blind)
    assert strict_decoder.decode_payload(hinted) == ("f16", raw)


def test_rows_of_an_array_are_as_wide_as_its_shape_says() -> None:
    rows = np.frombuffer(slow_rows(40, 6000), np.uint16).view(np.float16).reshape(40, 60, 100)
    encoded = encode_array(rows)
    decoded = strict_decoder.decode_container(encoded)
    assert decoded.raw == rows.tobytes()
    assert stride_of(Container.from_buffer(encoded).raw_chunk(0)) == 6000
    assert len(encoded) < 0.7 * len(encode_array(rows.ravel()))


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize(
    "widths", [(0,), (-1, -(1 << 70)), (1,), (2, 3, 5, 7), (1 << 32, 1 << 70), (30_000,), (29_999,)]
)
def test_hints_that_are_wrong_make_nothing_larger(level: Level, dtype: DType, widths: tuple[int, ...]) -> None:
    raw = bf16(normal(60_000 // dtype.width))
    raw = raw[: len(raw) // dtype.width * dtype.width]
    misled = encode_payload(raw, dtype, level=level, row_widths=widths)
    assert strict_decoder.decode_payload(misled) == (dtype.label, raw)
    assert len(misled) <= len(encode_payload(raw, dtype, level=level))


def test_what_rows_of_one_width_taught_is_not_taken_for_another() -> None:
    memory = Memory()
    for width in (5000, 6000, 5000, 6000, 7000):
        encoded = encode_payload(slow_rows(20, width), DType.F16, row_widths=[width], memory=memory)
        assert (encoded[32], stride_of(encoded)) == (10, width)


def test_the_row_width_of_the_chunk_before_is_proposed_again_when_it_is_time_to_look_anew() -> None:
    memory = Memory()
    raw = slow_rows(20, 6000)
    memory.recipes.learn((DType.F16, ()), Recipe(10, 6000))
    memory.recipes.forget((DType.F16, ()))
    encoded = encode_payload(raw, DType.F16, memory=memory)
    assert (encoded[32], stride_of(encoded)) == (10, 6000)


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((), ()),
        ((1000,), ()),
        ((10, 64), (64,)),
        ((10, 1, 64, 1), (64,)),
        ((2, 2, 2, 2, 2, 2, 2), (2, 4, 8, 16)),
        ((10, 0), ()),
        ((10, -5), ()),
        ((10, -5, -5, 3), (3,)),
        ((10, 1 << 70), ()),
        ((10, 1 << 26), (1 << 26,)),
        ((10, 1 << 20, 1 << 20), (1 << 20,)),
    ],
)
def test_the_row_widths_of_a_shape_are_the_products_of_its_last_dimensions(shape, widths) -> None:
    assert row_widths(shape) == widths


@pytest.mark.parametrize("lag", [1, 2, 384, 5000, 99_000, 99_999])
def test_the_share_of_bytes_that_equal_those_a_lag_before_is_about_that_of_all(lag: int) -> None:
    plane = np.repeat(np.random.default_rng(lag).integers(0, 4, 100_000), 2)[:100_000].astype(np.uint8)
    assert share_equal_at_lag(plane, lag) == pytest.approx(np.mean(plane[lag:] == plane[:-lag]), abs=0.05)
    interleaved = np.repeat(plane, 2)[::2]
    assert share_equal_at_lag(interleaved, lag) == share_equal_at_lag(plane, lag)
