"""Containers are opened with few reads, read in any order, and never give wrong bytes."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from codec_twins import CountingReader, container, fnv1a64, index_frame, payload, read_at
from hypothesis import given, settings
from hypothesis import strategies as st

from qatqfs.codec import (
    Container,
    DType,
    InvalidContainer,
    Level,
    LimitExceeded,
    Limits,
    MixedDtypes,
    QatcError,
    decode_container,
    encode_container,
    encode_payload,
    verify_container,
)

RAW = bytes(range(250)) * 3 + b"\x07"  # 751 bytes: an odd length
INDEXED = encode_container(RAW, DType.BF16, values_per_chunk=100)
SKIPPABLE = bytes.fromhex("502a4d1805000000") + b"hello"


def without_index(data: bytes) -> bytes:
    """The same chunks as another encoder would write them (the content then has its pad byte)."""
    found = Container.open(read_at(data), len(data))
    return container([found.raw_chunk(i) for i in range(found.chunk_count)], found.total_values)


WALKED = without_index(INDEXED)


def open_bytes(data: bytes, **limits: int) -> Container:
    return Container.open(read_at(data), len(data), limits=Limits(**limits))


def content(found: Container) -> bytes:
    return b"".join(found.read_chunk(i) for i in range(found.chunk_count))


def test_an_index_gives_length_and_layout_without_a_walk() -> None:
    reader = CountingReader(INDEXED)
    found = Container.open(reader, len(INDEXED))
    assert (found.length, found.dtype, found.total_values, found.chunk_count) == (751, DType.BF16, 376, 4)
    assert found.indexed
    assert [found.span(i) for i in range(4)] == [(0, 200), (200, 400), (400, 600), (600, 751)]
    assert [found.locate(o) for o in (0, 199, 200, 599, 600, 750)] == [0, 0, 1, 2, 3, 3]
    assert len(reader.calls) == 1
    assert found.header_bytes == INDEXED[:32]
    assert content(found) == RAW


def test_opening_a_large_container_takes_two_reads_and_a_third_for_a_long_index() -> None:
    raw = random.Random(0).randbytes(200_000)
    for per_chunk, reads in ((10_000, 2), (5, 3)):
        data = encode_container(raw, DType.F16, values_per_chunk=per_chunk, level=Level.FAST)
        reader = CountingReader(data)
        found = Container.open(reader, len(data))
        assert found.indexed
        assert found.length == len(raw)
        assert len(reader.calls) == reads
        assert reader.calls[0] == (0, 72)
        assert found.read_chunk(found.chunk_count - 1) == raw[found.span(found.chunk_count - 1)[0] :]


def test_reading_a_chunk_takes_one_read() -> None:
    reader = CountingReader(INDEXED)
    found = Container.open(reader, len(INDEXED))
    reader.calls.clear()
    assert found.read_chunk(2) == RAW[400:600]
    assert len(reader.calls) == 1


def test_a_container_without_index_is_walked_by_its_headers_when_it_is_opened() -> None:
    raw = random.Random(0).randbytes(400_000)
    data = without_index(encode_container(raw, DType.F16, values_per_chunk=20_000, level=Level.FAST))
    reader = CountingReader(data)
    found = Container.open(reader, len(data))
    assert not found.indexed
    assert found.length == len(raw)
    assert len(reader.calls) == 2 + 9  # the first chunk's header comes with the container's
    assert all(size <= 72 for _, size in reader.calls[2:])
    reader.calls.clear()
    assert found.locate(80_500) == 2
    assert found.read_chunk(2) == raw[80_000:120_000]
    assert len(reader.calls) == 1


def test_the_headers_of_many_small_chunks_are_read_together() -> None:
    chunks = 20_000
    data = container([encode_payload(b"\x3f\x80", DType.BF16)] * chunks, chunks)
    reader = CountingReader(data)
    found = Container.open(reader, len(data), limits=Limits())
    assert found.chunk_count == chunks
    assert found.span(chunks - 1) == (2 * chunks - 2, 2 * chunks)
    assert len(reader.calls) < 10


def test_large_chunks_among_small_ones_are_found() -> None:
    sizes = [1, 40_000, 1, 1, 30_000, 200_000, 1, 1]
    raws = [random.Random(i).randbytes(2 * n) for i, n in enumerate(sizes)]
    found = open_bytes(container([encode_payload(raw, DType.F16) for raw in raws], sum(sizes)))
    assert content(found) == b"".join(raws)


def test_unusual_but_legal_headers_are_found_by_the_walk() -> None:
    parts = [
        encode_payload(b"abcd", DType.F16),
        payload(DType.F16.wire, 1, 2, fnv1a64(b"efgh"), b"fehg", b"\x40\0\0\0"),
    ]
    assert content(open_bytes(container(parts, 4))) == b"abcdefgh"


def test_what_was_walked_once_need_not_be_walked_again() -> None:
    first = open_bytes(WALKED)
    reader = CountingReader(WALKED)
    again = Container.open(reader, len(WALKED), walked=first.walked)
    assert len(reader.calls) == 1
    assert content(again) == content(first)
    assert open_bytes(INDEXED).walked is None


def test_more_chunks_than_a_reader_wants_to_walk_are_refused_unless_there_is_an_index() -> None:
    with pytest.raises(LimitExceeded, match="4 chunks in a container without an index"):
        open_bytes(WALKED, max_walked_chunks=3)
    assert open_bytes(WALKED, max_walked_chunks=4).chunk_count == 4
    assert open_bytes(INDEXED, max_walked_chunks=3).chunk_count == 4


def test_the_walk_and_the_index_agree() -> None:
    indexed, walked = open_bytes(INDEXED), open_bytes(WALKED)
    assert (indexed.indexed, walked.indexed) == (True, False)
    assert walked.length == 752
    for i in range(4):
        first, second = indexed.chunk_header(i), walked.chunk_header(i)
        assert (first.offset, first.payload) == (second.offset, second.payload)
        assert walked.span(i) == (indexed.span(i)[0], indexed.span(i)[1] + (i == 3))
        assert indexed.raw_chunk(i) == walked.raw_chunk(i)
    assert content(walked) == RAW + b"\0"


def test_chunks_of_any_size_and_empty_ones_anywhere_are_found() -> None:
    sizes = [0, 0, 3, 0, 5, 1, 0]
    raws = [bytes([i]) * (2 * n) for i, n in enumerate(sizes)]
    data = container([encode_payload(raw, DType.F16) for raw in raws], sum(sizes))
    found = open_bytes(data)
    assert content(found) == b"".join(raws)
    assert [found.locate(o) for o in range(18)] == [2] * 6 + [4] * 10 + [5] * 2
    assert [found.span(i) for i in (0, 2, 6)] == [(0, 0), (0, 6), (18, 18)]
    empty = container([encode_payload(b"", DType.F32)] * 3, 0)
    assert content(open_bytes(empty)) == b""


@pytest.mark.parametrize("number", [-1, 4])
def test_there_are_no_other_chunks(number: int) -> None:
    for data in (INDEXED, WALKED):
        with pytest.raises(IndexError):
            open_bytes(data).read_chunk(number)
        with pytest.raises(IndexError):
            open_bytes(data).span(number)


@pytest.mark.parametrize("offset", [-1, 752, 10_000])
def test_there_are_no_other_bytes(offset: int) -> None:
    for data in (INDEXED, WALKED):
        with pytest.raises(IndexError):
            open_bytes(data).locate(offset)


def test_chunks_are_decoded_into_the_buffer_that_is_given() -> None:
    found = open_bytes(INDEXED)
    out = bytearray(b"\x55" * 200)
    assert found.read_chunk(1, out) == RAW[200:400] == out
    exact = bytearray(151)  # room for the content, not for the pad byte
    assert found.read_chunk(3, exact) == RAW[600:] == exact
    with pytest.raises(ValueError, match="output buffer"):
        found.read_chunk(1, bytearray(199))


def test_many_threads_read_at_once() -> None:
    raw = random.Random(0).randbytes(100_000)
    for data in (encode_container(raw, DType.F32, values_per_chunk=500),):
        for version in (data, without_index(data)):
            found = open_bytes(version)
            barrier = threading.Barrier(8)

            def read(seed: int, found: Container = found, barrier: threading.Barrier = barrier) -> bool:
                order = list(range(found.chunk_count))
                random.Random(seed).shuffle(order)
                barrier.wait()
                return all(found.read_chunk(i) == raw[slice(*found.span(i))] for i in order)

            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(read, range(8)))


# -- damage --------------------------------------------------------------------------------------------


def read_all(data: bytes) -> bytes | None:
    """The content, None if anything is refused."""
    try:
        return content(open_bytes(data))
    except QatcError:
        return None


def test_no_flip_of_a_byte_in_the_index_frame_gives_wrong_bytes() -> None:
    frame = len(INDEXED) - 76
    assert INDEXED[frame : frame + 4] == bytes.fromhex("5b2a4d18")
    for position in range(frame, len(INDEXED)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(INDEXED)
            damaged[position] ^= flip
            assert read_all(bytes(damaged)) is None
            found = open_bytes(bytes(damaged))
            for i in range(3):
                assert found.read_chunk(i) == RAW[200 * i : 200 * (i + 1)]


def test_no_flip_of_a_byte_anywhere_gives_wrong_bytes() -> None:
    for data, raw in ((INDEXED, RAW), (WALKED, RAW + b"\0")):
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 0x10
            assert read_all(bytes(damaged)) in (None, raw)


def test_every_cut_is_noticed() -> None:
    for data in (INDEXED, WALKED):
        for size in range(len(data)):
            assert read_all(data[:size]) is None
        assert read_all(data + b"\0") is None


def test_a_chunk_with_a_damaged_header_leaves_the_others_readable_where_there_is_an_index() -> None:
    for chunk in range(4):
        damaged = bytearray(INDEXED)
        offset = open_bytes(INDEXED).chunk_header(chunk).offset
        damaged[offset + 4] ^= 1
        found = open_bytes(bytes(damaged))
        assert (found.length, found.dtype) == (751, DType.BF16)
        for i in range(4):
            if i == chunk:
                with pytest.raises(QatcError):
                    found.read_chunk(i)
            else:
                assert found.read_chunk(i) == RAW[200 * i : 200 * (i + 1)]


def test_a_walk_that_meets_damage_leaves_what_is_before_it_readable() -> None:
    offset = open_bytes(WALKED).chunk_header(2).offset
    for position in (offset, offset + 4, offset + 4 + 28, offset + 4 + 33):
        damaged = bytearray(WALKED)
        damaged[position] ^= 0x40
        found = open_bytes(bytes(damaged))
        assert (found.read_chunk(0), found.read_chunk(1)) == (RAW[:200], RAW[200:400])
        for i in (2, 3, 2):
            with pytest.raises((InvalidContainer, LimitExceeded)):
                found.read_chunk(i)
        with pytest.raises((InvalidContainer, LimitExceeded)):
            found.locate(400)
        assert found.locate(399) == 1


@pytest.mark.parametrize("delta", [-200, -1, 1, 1000])
def test_a_total_that_the_chunks_do_not_have_is_refused_at_once(delta: int) -> None:
    damaged = bytearray(WALKED)
    damaged[8:16] = (376 + delta).to_bytes(8, "big")
    with pytest.raises(InvalidContainer, match="values"):
        open_bytes(bytes(damaged))


def test_fewer_or_more_chunks_than_the_header_says_are_refused_at_once() -> None:
    damaged = bytearray(WALKED)
    damaged[19] = 3
    with pytest.raises(InvalidContainer, match="left over"):
        open_bytes(bytes(damaged))
    damaged[19] = 5
    found = open_bytes(bytes(damaged))
    assert found.read_chunk(3) == RAW[600:] + b"\0"
    with pytest.raises(InvalidContainer, match="ends"):
        found.read_chunk(4)


def test_mixed_dtypes_are_refused() -> None:
    parts = [encode_payload(bytes(8), dtype) for dtype in (DType.F16, DType.F16, DType.BF16, DType.F16)]
    found = open_bytes(container(parts, 16))
    assert found.read_chunk(1) == bytes(8)
    for i in (2, 3):
        with pytest.raises(MixedDtypes):
            found.read_chunk(i)


def with_index(parts: list[bytes], total: int, *, true_length: int, per_chunk: int, dtype: DType) -> bytes:
    size = 60 + 4 * len(parts)
    lengths = [len(p) for p in parts[:-1]] + [len(parts[-1]) + size]
    before = b"".join(len(p).to_bytes(4, "big") + p for p in parts[:-1])
    frame = index_frame(true_length, fnv1a64(before), per_chunk, dtype.wire, lengths)
    return container([*parts[:-1], parts[-1] + frame], total)


@pytest.mark.parametrize(
    ("dtype", "pad", "pad_size"),
    [
        (DType.F16, b"f\1\1", 1),
        (DType.F32, b"fg\1", 1),
        (DType.F32, b"f\1\0", 2),
        (DType.F32, b"\1\0\0", 3),
    ],
)
def test_a_pad_byte_that_is_not_zero_makes_the_last_chunk_corrupt(dtype: DType, pad: bytes, pad_size: int) -> None:
    per_chunk = 4 // dtype.width
    parts = [encode_payload(raw, dtype, strategy=7) for raw in (b"abcd", b"e" + pad)]
    data = with_index(parts, 2 * per_chunk, true_length=8 - pad_size, per_chunk=per_chunk, dtype=dtype)
    found = open_bytes(data)
    assert (found.indexed, found.length) == (True, 8 - pad_size)
    assert found.read_chunk(0) == b"abcd"
    with pytest.raises(InvalidContainer, match="pad"):
        found.read_chunk(1)
    (problem,) = verify_container(read_at(data), len(data))
    assert "pad" in str(problem.error)


@pytest.mark.parametrize(
    ("true_length", "per_chunk", "total"),
    [(6, 2, 4), (9, 2, 4), (8, 1, 4), (8, 0, 4), (8, 2**27, 4)],
)
def test_an_index_that_does_not_fit_is_ignored_and_its_chunk_refused(
    true_length: int, per_chunk: int, total: int
) -> None:
    parts = [encode_payload(b"abcd", DType.F16, strategy=7), encode_payload(b"efgh", DType.F16, strategy=7)]
    data = with_index(parts, total, true_length=true_length, per_chunk=per_chunk, dtype=DType.F16)
    found = open_bytes(data)
    assert not found.indexed
    assert found.read_chunk(0) == b"abcd"
    with pytest.raises(InvalidContainer, match="index"):
        found.read_chunk(1)


def test_an_index_with_other_value_counts_than_the_chunks_makes_them_unreadable() -> None:
    parts = [encode_payload(b"abcd", DType.F16, strategy=7), encode_payload(b"efgh", DType.F16, strategy=7)]
    found = open_bytes(with_index(parts, 4, true_length=8, per_chunk=3, dtype=DType.F16))
    for chunk in (0, 1):
        with pytest.raises(InvalidContainer, match="values"):
            found.read_chunk(chunk)


def test_an_index_whose_dtype_differs_from_the_chunks_is_refused_when_they_are_read() -> None:
    parts = [encode_payload(b"abcd", DType.F16, strategy=7)]
    data = with_index(parts, 2, true_length=4, per_chunk=2, dtype=DType.BF16)
    with pytest.raises(MixedDtypes):
        open_bytes(data).read_chunk(0)


def test_bytes_that_look_like_an_index_but_are_no_frame_do_not_shorten_the_content() -> None:
    def raw_with(end: bytes) -> bytes:
        return b"".join(bytes([end[i + 1], end[i]]) for i in range(0, len(end), 2))

    frame = index_frame(2 * 33 - 1, fnv1a64(b""), 33, DType.F16.wire, [36 + 66])
    assert len(frame) == 64
    data = container([payload(DType.F16.wire, 1, 33, fnv1a64(raw_with(b"\0\0" + frame)), b"\0\0" + frame)], 33)
    assert len(data) == 32 + 4 + 36 + 66
    with pytest.raises(InvalidContainer):
        open_bytes(data).read_chunk(0)


def test_other_skippable_frames_are_no_index_and_do_no_harm() -> None:
    parts = [encode_payload(b"abcd" * 50, DType.F16, strategy=7) + SKIPPABLE] * 2
    found = open_bytes(container(parts, 200))
    assert not found.indexed
    assert content(found) == b"abcd" * 100


# -- limits --------------------------------------------------------------------------------------------


def test_limits_hold() -> None:
    assert open_bytes(INDEXED, max_chunk_values=100).read_chunk(0) == RAW[:200]
    for data in (INDEXED, WALKED):
        with pytest.raises(LimitExceeded):
            open_bytes(data, max_chunk_values=99).read_chunk(0)
        with pytest.raises(LimitExceeded):
            open_bytes(data, max_payload_bytes=40).read_chunk(0)
        with pytest.raises(LimitExceeded):
            open_bytes(data, max_chunks=3)


def test_a_container_that_claims_many_chunks_or_values_takes_no_memory_for_them() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    bomb = payload(DType.F32.wire, 5, 1 << 26, 0, bytes(4))
    tracemalloc.start()
    try:
        data = container([bomb], 1 << 26)
        found = open_bytes(data, max_chunk_values=1 << 20)
        assert found.length == 1 << 28
        with pytest.raises(LimitExceeded):
            found.read_chunk(0)
        claims = bytearray(data)
        claims[16:20] = b"\xff\xff\xff\xff"
        with pytest.raises(InvalidContainer):
            open_bytes(bytes(claims))
        long = bytearray(data)
        long[32:36] = (1 << 28).to_bytes(4, "big")
        with pytest.raises(InvalidContainer):
            open_bytes(bytes(long)).read_chunk(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_that_shrinks_after_opening_is_an_error() -> None:
    data = bytearray(INDEXED)
    found = Container.open(lambda o, n: bytes(data[o : o + n]), len(data))
    del data[100:]
    with pytest.raises(InvalidContainer, match="ends"):
        found.read_chunk(3)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_spliced_containers_raise_nothing_but_qatc_errors(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from([INDEXED, WALKED]))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(damaged)))
        stop = data.draw(st.integers(start, min(start + 20, len(damaged))))
        damaged[start:stop] = data.draw(st.binary(max_size=20))
    got = read_all(bytes(damaged))
    assert got in (None, RAW, RAW + b"\0")
    try:
        assert decode_container(damaged) == got
    except QatcError:
        problems = list(verify_container(read_at(bytes(damaged)), len(damaged)))
        assert problems
        assert got is None or all(problem.chunk is None for problem in problems)
