"""Run-length streams of the C extension: against plain twins, and never outside the buffers they are given."""

import random
from collections.abc import Callable

import pytest
from codec_twins import byte_runs, packed_runs, word_runs
from hypothesis import given
from hypothesis import strategies as st

from qatqfs.codec import _native

ENCODERS: list[tuple[Callable[..., bytes | None], Callable[[bytes], bytes], int]] = [
    (_native.encode_runs, byte_runs, 1),
    (_native.encode_packed_runs, packed_runs, 1),
    (_native.encode_word_runs, word_runs, 4),
]
IDS = ["runs", "packed", "words"]
pieces = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.tuples(st.integers(0, 255), st.integers(0, 140)).map(lambda p: bytes([p[0]]) * p[1]),
    ),
    max_size=12,
).map(b"".join)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        ("", 0),
        ("000003", 3),
        ("010002abcd", 2),
        ("020005ee", 5),
        ("000001 010001aa 02000207", 4),
    ],
)
def test_runs_decode(data: str, size: int) -> None:
    stream = bytes.fromhex(data)
    out = bytearray(b"\x55" * size)
    assert _native.decode_runs(stream, out, 1, 2)
    expected, at = b"", 0
    while at < len(stream):
        length = int.from_bytes(stream[at + 1 : at + 3], "big")
        operand = (0, length, 1)[stream[at]]
        part = stream[at + 3 : at + 3 + operand]
        expected += (bytes(length), part, part * length)[stream[at]]
        at += 3 + operand
    assert out == expected


@pytest.mark.parametrize(("encode", "twin", "unit"), ENCODERS, ids=IDS)
@given(data=pieces)
def test_runs_are_cut_like_the_twins(encode, twin, unit: int, data: bytes) -> None:
    whole = data[: len(data) // unit * unit]
    assert encode(whole) == twin(whole)


@pytest.mark.parametrize(("encode", "twin", "unit"), ENCODERS, ids=IDS)
@pytest.mark.parametrize("byte", [0, 7])
def test_long_runs_are_cut_at_the_longest(encode, twin, unit: int, byte: int) -> None:
    for size in (64, 65, 128, 65535, 65536, 131_071):
        data = bytes([byte]) * (size * unit)
        assert encode(data) == twin(data)
    noise = random.Random(1).choices(range(1, 256), k=70_000 * unit)
    assert encode(bytes(noise)) == twin(bytes(noise))


@pytest.mark.parametrize(("encode", "twin", "unit"), ENCODERS, ids=IDS)
@given(data=pieces)
def test_what_was_encoded_decodes(encode, twin, unit: int, data: bytes) -> None:
    whole = data[: len(data) // unit * unit]
    out = bytearray(len(whole))
    stream = encode(whole)
    if encode is _native.encode_packed_runs:
        assert _native.decode_packed_runs(stream, out)
    else:
        assert _native.decode_runs(stream, out, unit, 2 if unit == 1 else 1)
    assert out == whole


@pytest.mark.parametrize(("encode", "twin", "unit"), ENCODERS, ids=IDS)
def test_a_stream_above_the_limit_is_given_up(encode, twin, unit: int) -> None:
    data = random.Random(3).randbytes(400)
    size = len(twin(data))
    assert encode(data, size) == twin(data)
    for limit in (0, 1, size - 1):
        assert encode(data, limit) is None
    with pytest.raises(ValueError, match="limit"):
        encode(data, -1)


def test_words_that_are_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="whole"):
        _native.encode_word_runs(bytes(5))


@given(st.binary(max_size=40), st.integers(0, 64), st.booleans())
def test_runs_never_write_outside_and_accept_only_exact_streams(data: bytes, size: int, packed: bool) -> None:
    guarded = bytearray(b"\x55" * (size + 16))
    out = memoryview(guarded)[8 : 8 + size]
    if packed:
        _native.decode_packed_runs(data, out)
    else:
        _native.decode_runs(data, out, 1, 2)
    assert guarded[:8] == guarded[8 + size :] == b"\x55" * 8


@given(st.binary(max_size=60), st.integers(0, 40))
def test_a_word_stream_is_refused_unless_it_is_exact(data: bytes, words: int) -> None:
    guarded = bytearray(b"\x55" * (4 * words + 16))
    out = memoryview(guarded)[8 : 8 + 4 * words]
    if _native.decode_runs(data, out, 4, 1):
        assert _native.decode_runs(word_runs(bytes(out)), bytearray(4 * words), 4, 1)
    assert guarded[:8] == guarded[8 + 4 * words :] == b"\x55" * 8
