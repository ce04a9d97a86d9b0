"""Payloads: what is encoded decodes to the same bits, by us and by an independent decoder, within limits."""

import math
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import strict_decoder
from codec_twins import canonical, fnv1a64, payload
from hypothesis import given, settings
from hypothesis import strategies as st

from qatqfs.codec import (
    EXACT_HEADER_SIZE,
    STRATEGIES,
    DType,
    Level,
    LimitExceeded,
    MixedDtypes,
    QatcError,
    decode_any_payload,
    decode_payload,
    encode_payload,
    read_payload_header,
)

BOMB = bytes.fromhex(
    "514154510104000000000000040000003f8000007ba4befdc4222325514558310500000000000000"
)  # format section 8: 40 bytes that are 2**26 zeros
LEGAL = [(dtype, strategy.id) for dtype in DType for strategy in STRATEGIES.values() if dtype in strategy.dtypes]
STRIDED = 10


def samples(size: int) -> list[bytes]:
    rng = random.Random(size)
    ramp = b"".join(struct.pack("<f", i * 0.25) for i in range(size // 4 + 1))[:size]
    return [bytes(size), b"\xff" * size, rng.randbytes(size), (b"\x00\x3f\x80\xbf" * size)[:size], ramp]


@pytest.mark.parametrize(("dtype", "strategy"), LEGAL, ids=lambda v: str(getattr(v, "label", v)))
def test_every_strategy_keeps_every_bit_at_every_small_size(dtype: DType, strategy: int) -> None:
    for count in range(2 if strategy == STRIDED else 0, 301):
        stride = random.Random(count).randrange(1, count) if strategy == STRIDED else None
        for raw in samples(count * dtype.width):
            encoded = encode_payload(raw, dtype, level=Level.FAST, strategy=strategy, stride=stride)
            assert encoded[32] == strategy
            assert decode_payload(encoded) == raw
            if count % 50 == 1:
                assert strict_decoder.decode_payload(encoded) == (dtype.label, raw)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(LEGAL), st.data())
def test_every_strategy_keeps_any_bits_of_larger_sizes(form: tuple[DType, int], data: st.DataObject) -> None:
    dtype, strategy = form
    element = st.one_of(
        st.sampled_from([0, 1, 0x7F80, 0x7FA1, 0x8000, 0x7FA12345, 0xFF800000, 0x00000001]), st.integers(0, 2**32 - 1)
    )
    values = data.draw(st.lists(element, min_size=2, max_size=60)) * data.draw(st.integers(1, 100))
    raw = np.array(values, np.uint32).astype(f"<u{dtype.width}").tobytes()
    stride = data.draw(st.integers(1, len(values) - 1)) if strategy == STRIDED else None
    encoded = encode_payload(raw, dtype, level=Level.FAST, strategy=strategy, stride=stride)
    assert encoded[32] == strategy
    assert decode_payload(encoded) == raw
    assert strict_decoder.decode_payload(encoded) == (dtype.label, raw)


@pytest.mark.parametrize("stride", [None, 0, -1, 100, 2**32])
def test_a_stride_that_does_not_fit_the_values_is_refused(stride: int | None) -> None:
    with pytest.raises(ValueError, match="strided"):
        encode_payload(bytes(200), DType.BF16, strategy=STRIDED, stride=stride)


@pytest.mark.parametrize("value", [2.0**-149, 3.4e38, -0.0, math.inf, math.nan])
def test_the_predictor_holds_values_that_it_cannot_scale(value: float) -> None:
    raw = np.full(64, value, np.float32).tobytes()
    encoded = encode_payload(raw, DType.F32, strategy=0)
    assert decode_payload(encoded) == raw
    assert strict_decoder.decode_payload(encoded) == ("f32", raw)


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("dtype", DType)
def test_every_level_keeps_every_bit(dtype: DType, level: Level) -> None:
    for count in (0, 1, 2, 7, 300, 5000):
        for raw in samples(count * dtype.width):
            for appendable in (False, True):
                encoded = encode_payload(raw, dtype, level=level, appendable=appendable)
                assert decode_payload(encoded) == raw
                assert not appendable or encoded[32] in (7, 8, 9, 10)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_values_survive(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DType))
    level = data.draw(st.sampled_from([Level.FAST, Level.BALANCED]))
    element = st.one_of(st.sampled_from([0, 1, 0x7F80, 0x8000, 0xFFFFFFFF]), st.integers(0, 2**32 - 1))
    values = data.draw(st.lists(element, max_size=200))
    values *= data.draw(st.integers(1, 30))
    raw = np.array(values, np.uint32).astype(f"<u{dtype.width}").tobytes()
    encoded = encode_payload(raw, dtype, level=level)
    assert decode_payload(encoded) == raw
    assert strict_decoder.decode_payload(encoded) == (dtype.label, raw)


@pytest.mark.parametrize("dtype", DType)
def test_the_header_says_what_the_format_says(dtype: DType) -> None:
    raw = random.Random(5).randbytes(40)
    encoded = encode_payload(raw, dtype, strategy=1)
    summed = canonical(raw, 4) if dtype is DType.F32 else raw
    assert encoded == payload(dtype.wire, 1, 40 // dtype.width, fnv1a64(summed), canonical(raw, dtype.width))
    header = read_payload_header(encoded[:EXACT_HEADER_SIZE])
    assert (header.dtype, header.strategy, header.count, header.raw_size) == (dtype, 1, 40 // dtype.width, 40)


def test_incompressible_values_stay_raw_bits() -> None:
    raw = random.Random(0).randbytes(4096)
    for dtype in DType:
        encoded = encode_payload(raw, dtype)
        assert encoded[32] == 1
        assert len(encoded) == EXACT_HEADER_SIZE + len(raw)


def test_values_of_one_bit_pattern_take_few_bytes() -> None:
    for dtype in DType:
        assert len(encode_payload(bytes(262144), dtype)) < 120


def test_decoding_writes_into_the_buffer_it_is_given() -> None:
    raw = random.Random(2).randbytes(600)
    encoded = encode_payload(raw, DType.BF16)
    for size in (600, 1000):
        out = bytearray(b"\x55" * size)
        view = decode_payload(encoded, out)
        assert view == raw == out[:600]
        assert out[600:] == b"\x55" * (size - 600)
        view[0] ^= 1
        assert out[0] == raw[0] ^ 1  # the very same memory


@pytest.mark.parametrize(("dtype", "strategy"), LEGAL, ids=lambda v: str(getattr(v, "label", v)))
def test_buffers_need_no_alignment(dtype: DType, strategy: int) -> None:
    raw = random.Random(2).randbytes(400)
    encoded = encode_payload(memoryview(b"x" + raw)[1:], dtype, strategy=strategy, stride=3)
    for offset in (1, 2, 3):
        out = bytearray(offset + 400)
        decode_payload(memoryview(b"x" + encoded)[1:], memoryview(out)[offset:])
        assert out == bytes(offset) + raw


@pytest.mark.parametrize("out", [bytearray(599), bytes(600)], ids=["short", "readonly"])
def test_an_unfit_buffer_is_refused(out: bytes) -> None:
    with pytest.raises(ValueError, match="output buffer") as caught:
        decode_payload(encode_payload(bytes(600), DType.F16), out)
    assert not isinstance(caught.value, QatcError)


def test_input_may_be_any_buffer() -> None:
    raw = np.arange(100, dtype="<f4")
    encoded = encode_payload(memoryview(raw), DType.F32)
    assert encoded == encode_payload(bytearray(raw.tobytes()), DType.F32)
    assert decode_payload(bytearray(encoded)) == decode_payload(memoryview(encoded)) == raw.tobytes()


def test_another_dtype_than_asked_for_is_refused() -> None:
    with pytest.raises(MixedDtypes):
        decode_payload(encode_payload(bytes(8), DType.F16), dtype=DType.BF16)


@pytest.mark.parametrize(
    ("raw", "dtype", "options"),
    [
        (b"123", DType.F16, {}),
        (b"12", DType.F32, {}),
        (b"1234", DType.F32, {"strategy": 9}),
        (b"1234", DType.F16, {"strategy": 8}),
        (b"1234", DType.F16, {"strategy": 11}),
        (b"1234", DType.F16, {"strategy": 1, "appendable": True}),
    ],
)
def test_what_cannot_be_encoded_is_a_value_error(raw: bytes, dtype: DType, options: dict) -> None:
    with pytest.raises(ValueError, match=r"strategy|whole"):
        encode_payload(raw, dtype, **options)


def test_a_small_payload_that_claims_much_is_refused_before_memory_is_taken() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        for decode in (decode_payload, decode_any_payload):
            with pytest.raises(LimitExceeded):
                decode(BOMB, max_values=1 << 20)
        for strategy, data in [(1, b""), (2, b"\0\xff\xff"), (6, b"\x3f"), (7, b""), (0, bytes(99))]:
            with pytest.raises(QatcError):
                decode_payload(payload(bytes(3), strategy, 1 << 26, 0, data))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_bomb_decodes_for_who_is_ready_for_it() -> None:
    small = BOMB[:8] + (1 << 16).to_bytes(8, "big") + BOMB[16:20] + fnv1a64(bytes(1 << 18)).to_bytes(8, "big")
    assert decode_payload(small + BOMB[28:], max_values=1 << 16) == bytes(1 << 18)


@pytest.mark.parametrize("dtype", DType)
def test_no_flip_of_a_single_bit_gives_wrong_bytes(dtype: DType) -> None:
    raw = bytes(range(64)) * 2 + bytes(40)
    encoded = encode_payload(raw, dtype)
    for position in range(len(encoded)):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[position] ^= 1 << bit
            try:
                decoded = decode_payload(damaged)
            except QatcError:
                continue
            assert decoded == raw  # the unused scale, or the label of a 16-bit dtype


@pytest.mark.parametrize("dtype", DType)
def test_every_cut_is_refused(dtype: DType) -> None:
    encoded = encode_payload(bytes(range(200)), dtype)
    for size in range(len(encoded)):
        with pytest.raises(QatcError):
            decode_payload(encoded[:size])
    with pytest.raises(QatcError):
        decode_payload(encoded + b"\0")


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(DType), st.integers(0, 10), st.integers(0, 70), st.binary(max_size=120))
def test_arbitrary_data_behind_a_sound_prefix_raises_nothing_but_qatc_errors(
    dtype: DType, strategy: int, count: int, data: bytes
) -> None:
    encoded = payload(dtype.wire, strategy, count, 0, data)
    try:
        decode_payload(encoded)
    except QatcError:
        return
    assert strict_decoder.decode_payload(encoded)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_spliced_payloads_raise_nothing_but_qatc_errors(data: st.DataObject) -> None:
    vectors = sorted((Path(__file__).parent.parent / "data" / "vectors").glob("*.qatq"))
    encoded = bytearray(data.draw(st.sampled_from(vectors)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(encoded) - 1))
        encoded[position] = data.draw(st.integers(0, 255))
    del encoded[data.draw(st.integers(0, len(encoded))) :]
    try:
        mine: bytes | None = bytes(decode_any_payload(encoded, max_values=1 << 20)[0])
    except QatcError:
        mine = None
    if encoded[5:6] == b"\4" and encoded[8:14] == bytes(6):  # exact, with fewer than 65,536 values
        try:
            theirs: bytes | None = strict_decoder.decode_payload(bytes(encoded))[1]
        except strict_decoder.StrictError:
            theirs = None
        assert mine == theirs
