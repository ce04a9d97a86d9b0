"""Ranges and several chunks at once: the same bytes as chunk by chunk, into the buffer that was given."""

import errno
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from codec_twins import CountingReader, container
from hypothesis import given, settings
from hypothesis import strategies as st

from qatqfs.codec import (
    UNLIMITED,
    Container,
    DType,
    InvalidContainer,
    Level,
    LimitExceeded,
    Limits,
    MixedDtypes,
    QatcError,
    decode_container,
    decode_payload,
    decode_payloads,
    encode_container,
    encode_payload,
    encode_payloads,
)

RAW = random.Random(7).randbytes(5001)
INDEXED = encode_container(RAW, DType.BF16, values_per_chunk=250, level=Level.FAST)
CHUNK = 500  # bytes


def walked() -> bytes:
    found = Container.from_buffer(INDEXED)
    return container([found.raw_chunk(i) for i in range(found.chunk_count)], found.total_values)


def damaged(chunk: int) -> bytes:
    data = bytearray(INDEXED)
    data[Container.from_buffer(INDEXED).chunk_header(chunk).offset + 60] ^= 1
    return bytes(data)


@settings(deadline=None)
@given(st.integers(0, 5200), st.integers(0, 5200), st.booleans(), st.integers(0, 3))
def test_a_range_is_exactly_its_bytes(offset: int, size: int, indexed: bool, spare: int) -> None:
    found = Container.from_buffer(INDEXED if indexed else walked())
    expected = (RAW if indexed else RAW + b"\0")[offset : offset + size]
    assert found.read(offset, size) == expected
    out = bytearray(b"\x55" * (len(expected) + spare))
    assert found.read(offset, size, out) == expected
    assert out == expected + b"\x55" * spare


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1)])
def test_a_negative_range_is_refused(offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        Container.from_buffer(INDEXED).read(offset, size)


def test_a_buffer_that_is_too_small_is_refused() -> None:
    found = Container.from_buffer(INDEXED)
    for out in (bytearray(9), bytes(10)):
        with pytest.raises(ValueError, match="output buffer"):
            found.read(0, 10, out)
    with pytest.raises(ValueError, match="output buffer"):
        decode_container(INDEXED, bytearray(len(RAW) - 100))


def test_a_range_over_empty_chunks_is_read() -> None:
    raws = [b"", b"", b"abcd", b"", b"ef", b""]
    data = container([encode_payload(raw, DType.F16) for raw in raws], 3)
    assert Container.from_buffer(data).read(0, 100) == b"abcdef"
    assert Container.from_buffer(data).read(3, 2) == b"de"


def test_a_range_that_touches_damage_fails_and_any_other_does_not() -> None:
    found = Container.from_buffer(damaged(3))
    assert found.read(0, 3 * CHUNK) == RAW[: 3 * CHUNK]
    assert found.read(4 * CHUNK, 10_000) == RAW[4 * CHUNK :]
    for offset, size in ((0, 3 * CHUNK + 1), (4 * CHUNK - 1, 1), (0, 10_000)):
        with pytest.raises(QatcError):
            found.read(offset, size)


@pytest.mark.parametrize("indexed", [True, False])
def test_several_chunks_are_what_each_alone_is(indexed: bool) -> None:
    found = Container.from_buffer(INDEXED if indexed else walked())
    for first in range(found.chunk_count + 1):
        for count in range(found.chunk_count + 1 - first):
            expected = [found.read_chunk(first + i) for i in range(count)]
            assert found.read_chunks(first, count) == expected
            outs = [bytearray(CHUNK) for _ in range(count)]
            got = found.read_chunks(first, count, outs)
            assert got == expected
            assert [bytes(out[: len(chunk)]) for out, chunk in zip(outs, expected, strict=True)] == expected


def test_several_chunks_take_one_read() -> None:
    reader = CountingReader(INDEXED)
    found = Container.open(reader, len(INDEXED))
    reader.calls.clear()
    found.read_chunks(2, 7)
    assert len(reader.calls) == 1


def test_a_damaged_chunk_among_several_is_an_error_in_its_place() -> None:
    found = Container.from_buffer(damaged(3)).read_chunks(1, 5)
    assert [isinstance(chunk, QatcError) for chunk in found] == [False, False, True, False, False]
    assert found[3] == RAW[4 * CHUNK : 5 * CHUNK]


def test_behind_a_cut_each_chunk_is_an_error_and_those_before_are_not() -> None:
    found = Container.from_buffer(INDEXED[:-700])
    assert not found.indexed
    chunks = found.read_chunks(0, found.chunk_count)
    assert chunks[0] == RAW[:CHUNK]
    assert isinstance(chunks[-1], QatcError)


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (0, 12), (12, 0), (3, -1)])
def test_chunks_that_are_not_there_are_refused(first: int, count: int) -> None:
    with pytest.raises(IndexError):
        Container.from_buffer(INDEXED).read_chunks(first, count)


def test_a_buffer_for_each_chunk_is_needed() -> None:
    with pytest.raises(ValueError, match="1 buffers for 2 chunks"):
        Container.from_buffer(INDEXED).read_chunks(0, 2, [bytearray(CHUNK)])


def test_a_chunk_that_cannot_be_read_is_an_error_in_its_place() -> None:
    bad = Container.from_buffer(INDEXED).chunk_header(3).offset + 50

    def read_at(offset: int, size: int) -> bytes:
        if offset <= bad < offset + size and offset + size < len(INDEXED):
            raise OSError(errno.EIO, "no")
        return INDEXED[offset : offset + size]

    found = Container.open(read_at, len(INDEXED))
    chunks = found.read_chunks(1, 5)
    assert [isinstance(chunk, OSError) for chunk in chunks] == [False, False, True, False, False]
    with pytest.raises(OSError, match="no"):
        found.read(0, 5001)


@pytest.mark.parametrize("total", [2**26 + 3, 2**27])
def test_a_length_that_nothing_backs_takes_no_memory(total: int) -> None:
    data = bytearray(container([encode_payload(b"abcd", DType.F16)] * 2, 4))
    data[8:16] = total.to_bytes(8, "big")
    data[data.index(b"QATQ", 60)] = 0  # the walk ends at the second chunk
    found = Container.from_buffer(bytes(data))
    assert found.length == 2 * total
    tracemalloc.start()
    try:
        with pytest.raises(QatcError):
            found.read(0, found.length)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_total_that_the_chunks_cannot_hold_is_refused() -> None:
    data = bytearray(container([encode_payload(b"abcd", DType.F16)], 2))
    data[8:16] = (2**26 + 1).to_bytes(8, "big")
    for limits in (Limits(), UNLIMITED):
        with pytest.raises(InvalidContainer, match="cannot hold"):
            Container.from_buffer(bytes(data), limits=limits)


def test_the_default_limits_are_those_of_the_format() -> None:
    assert (Limits().max_chunks, Limits().max_total_values) == (2**20, 2**32)
    assert (UNLIMITED.max_chunks, UNLIMITED.max_total_values) == (None, None)


def test_a_container_says_what_it_is() -> None:
    assert repr(Container.from_buffer(INDEXED)) == "<Container of 5001 bytes of bf16 in 11 chunks>"


def test_a_file_is_read_by_its_descriptor_wherever_its_position_is(tmp_path: Path) -> None:
    (tmp_path / "x.qatc").write_bytes(INDEXED)
    fd = os.open(tmp_path / "x.qatc", os.O_RDONLY)
    try:
        os.lseek(fd, 0, os.SEEK_END)
        found = Container.from_fd(fd)
        assert found.read(0, found.length) == RAW
        os.truncate(tmp_path / "x.qatc", 600)
        with pytest.raises(InvalidContainer):
            found.read(3000, 10)
    finally:
        os.close(fd)


def test_limits_are_checked_before_anything_is_read() -> None:
    with pytest.raises(LimitExceeded, match="values in a container"):
        Container.from_buffer(INDEXED, limits=Limits(max_total_values=2500))
    assert Container.from_buffer(INDEXED, limits=Limits(max_total_values=2501)).length == 5001
    found = Container.from_buffer(INDEXED, limits=Limits(max_chunk_values=249))
    assert all(isinstance(chunk, LimitExceeded) for chunk in found.read_chunks(0, 3))


def test_a_container_decodes_into_a_buffer() -> None:
    out = bytearray(b"\x55" * 5010)
    view = decode_container(INDEXED, out)
    assert view == RAW == out[:5001]
    view[0] ^= 1
    assert out[0] == RAW[0] ^ 1


# -- several payloads


@settings(deadline=None)
@given(st.lists(st.binary(max_size=700).map(lambda b: b[: len(b) // 4 * 4]), max_size=9), st.sampled_from(DType))
def test_several_payloads_are_what_each_alone_is(raws: list[bytes], dtype: DType) -> None:
    encoded = encode_payloads(raws, dtype, level=Level.FAST)
    assert encoded == [encode_payload(raw, dtype, level=Level.FAST) for raw in raws]
    assert decode_payloads(encoded) == raws
    outs = [bytearray(len(raw) + 1) for raw in raws]
    assert decode_payloads(encoded, outs) == raws
    assert [out[:-1] for out in outs] == raws


def test_payloads_of_several_dtypes_decode_together_unless_one_is_asked_for() -> None:
    raws = [bytes(range(8)), bytes(range(4)), b"", bytes(4000)]
    dtypes = [DType.F32, DType.BF16, DType.F16, DType.F32]
    encoded = [encode_payload(raw, dtype) for raw, dtype in zip(raws, dtypes, strict=True)]
    assert decode_payloads(encoded) == raws
    found = decode_payloads(encoded, dtype=DType.F32)
    assert [isinstance(one, MixedDtypes) for one in found] == [False, True, True, False]


def test_a_bad_payload_among_several_is_the_error_that_it_is_alone() -> None:
    encoded = encode_payloads([bytes(range(200))] * 5, DType.F16)
    for position in (0, 27, 32, 100):
        bad = bytearray(encoded[2])
        bad[position] ^= 1
        with pytest.raises(QatcError) as alone:
            decode_payload(bad)
        found = decode_payloads([*encoded[:2], bad, *encoded[3:]])
        assert type(found[2]) is type(alone.value)
        assert str(found[2]) == str(alone.value)
        assert [found[i] for i in (0, 1, 3, 4)] == [bytes(range(200))] * 4
