"""encode_into, decode_into, encoded_size_bound: containers in memory that the caller has."""

import tracemalloc

import numpy as np
import pytest
from strict_decoder import decode_container as decode_strictly

from qatqfs.codec import (
    DType,
    Level,
    Memory,
    MixedDtypes,
    QatcError,
    container_size,
    decode_into,
    encode_container,
    encode_into,
    encoded_size_bound,
)

VALUES = 512
"""Values in a chunk."""
GUARD = b"\xa5" * 64


def tensor(size: int, dtype: DType, seed: int = 0) -> bytes:
    """Plausible values, of any length."""
    values = np.random.default_rng(seed).normal(size=size // dtype.width + 1).astype("<f4")
    if dtype is DType.F32:
        return values.tobytes()[:size]
    if dtype is DType.F16:
        return values.astype("<f2").tobytes()[:size]
    return (values.view("<u4") >> 16).astype("<u2").tobytes()[:size]


def sizes(dtype: DType) -> list[int]:
    chunk = VALUES * dtype.width
    whole = [0, dtype.width, chunk - dtype.width, chunk, chunk + dtype.width, 7 * chunk + dtype.width]
    return whole if dtype is DType.F32 else [*whole, 1, chunk - 1, chunk + 1, 6 * chunk + 3]


CASES = [(dtype, size) for dtype in DType for size in sizes(dtype)]


@pytest.mark.parametrize(("dtype", "size"), CASES, ids=str)
def test_the_container_is_the_one_that_encode_container_gives(dtype, size):
    raw = tensor(size, dtype)
    for level in Level:
        buffer = bytearray(encoded_size_bound(size, dtype, values_per_chunk=VALUES)) + GUARD
        length = encode_into(raw, buffer, dtype, values_per_chunk=VALUES, level=level, verified=True)
        assert bytes(buffer[:length]) == encode_container(raw, dtype, values_per_chunk=VALUES, level=level)
        assert buffer.endswith(GUARD)
    assert decode_strictly(bytes(buffer[:length])).raw[:size] == raw


@pytest.mark.parametrize(("dtype", "size"), CASES, ids=str)
def test_what_is_behind_the_container_and_the_content_plays_no_part(dtype, size):
    raw = tensor(size, dtype)
    buffer = bytearray(b"\xff" * (encoded_size_bound(size, dtype, values_per_chunk=VALUES) + 1000))
    length = encode_into(raw, buffer, dtype, values_per_chunk=VALUES)
    assert container_size(buffer) == length
    content = bytearray(size) + GUARD
    assert decode_into(buffer, content) == size
    assert content == raw + GUARD


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("values_per_chunk", [1, 7, 4096, None])
@pytest.mark.parametrize("dtype", DType)
def test_the_bound_holds_for_noise_of_any_length(dtype, values_per_chunk, level):
    rng = np.random.default_rng(7)
    for count in (0, 1, 2, 3, 63, 64, 65, 1000, 4095, 4096, 4097, 70_001):
        if values_per_chunk in (1, 7) and count > 1000:
            continue
        raw = rng.bytes(count * dtype.width)
        bound = encoded_size_bound(len(raw), dtype, values_per_chunk=values_per_chunk)
        buffer = bytearray(bound)
        assert encode_into(raw, buffer, dtype, values_per_chunk=values_per_chunk, level=level) <= bound


def test_the_bound_holds_when_memory_expects_something_else():
    memory = Memory()
    smooth, noise = tensor(1 << 18, DType.BF16), np.random.default_rng(8).bytes(1 << 18)
    buffer = bytearray(encoded_size_bound(1 << 18, DType.BF16))
    for raw in (smooth, smooth, noise, noise, smooth):
        length = encode_into(raw, buffer, DType.BF16, memory=memory)
        content = bytearray(len(raw))
        decode_into(buffer[:length], content)
        assert content == raw


def test_the_bound_of_a_block_is_close_to_its_size():
    assert encoded_size_bound(1 << 20, DType.BF16) < 1.01 * (1 << 20)


@pytest.mark.parametrize("missing", [1, 40, 300])
def test_a_buffer_that_is_too_small_is_refused_and_nothing_is_written_behind_it(missing):
    raw = tensor(5000, DType.BF16)
    length = len(encode_container(raw, DType.BF16, values_per_chunk=VALUES))
    memory = bytearray(length - missing) + GUARD
    with pytest.raises(ValueError, match="too small"):
        encode_into(raw, memoryview(memory)[: length - missing], DType.BF16, values_per_chunk=VALUES)
    assert memory.endswith(GUARD)


def test_a_buffer_that_the_content_does_not_fit_is_refused():
    data = encode_container(tensor(5000, DType.BF16), DType.BF16)
    with pytest.raises(ValueError, match="5000 bytes"):
        decode_into(data, bytearray(4999))


def test_read_only_buffers_are_refused():
    raw = tensor(100, DType.F32)
    with pytest.raises(ValueError, match="writable"):
        encode_into(raw, bytes(1000), DType.F32)
    with pytest.raises(ValueError, match="writable"):
        decode_into(encode_container(raw, DType.F32), bytes(1000))


def test_another_dtype_than_was_asked_for_is_refused():
    data = encode_container(tensor(100, DType.F16), DType.F16)
    with pytest.raises(MixedDtypes):
        decode_into(data, bytearray(100), dtype=DType.BF16)
    assert decode_into(data, bytearray(100), dtype=DType.F16) == 100


@pytest.mark.parametrize("size", [600, 1401])
def test_damage_anywhere_never_gives_other_bytes(size):
    raw = tensor(size, DType.BF16)
    buffer = bytearray(encode_container(raw, DType.BF16, values_per_chunk=VALUES)) + bytes(100)
    unnoticed = 0
    for offset in range(len(buffer) - 100):
        buffer[offset] ^= 0x10
        content = bytearray(size)
        try:
            length = decode_into(buffer, content)
        except (QatcError, ValueError):
            pass
        else:
            assert content[:length] == raw
            unnoticed += 1
        buffer[offset] ^= 0x10
    assert unnoticed <= 8 + 100  # the checksum over the whole, and an index that gives way to a walk


@pytest.mark.parametrize("cut", [0, 31, 32, 33, 36, 71, 72])
def test_a_container_that_is_cut_off_is_refused(cut):
    data = encode_container(tensor(3000, DType.BF16), DType.BF16, values_per_chunk=VALUES)
    for end in (cut, len(data) - 1):
        with pytest.raises(QatcError):
            decode_into(data[:end], bytearray(3000))


def test_a_claim_of_many_chunks_costs_no_more_than_the_buffer_is_long():
    data = bytearray(encode_container(tensor(3000, DType.BF16), DType.BF16))
    data[16:20] = b"\xff" * 4
    with pytest.raises(QatcError):
        container_size(data)


def test_neither_way_takes_memory_as_large_as_the_values():
    raw = tensor(16 << 20, DType.BF16)
    buffer, content = bytearray(encoded_size_bound(len(raw), DType.BF16)), bytearray(len(raw))
    encode_into(raw, buffer, DType.BF16)  # so that scratch memory is there
    tracemalloc.start()
    encode_into(raw, buffer, DType.BF16)
    decode_into(buffer, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert content == raw
    assert peak < len(raw) / 4


@pytest.mark.parametrize("values", [0, -1, 1 << 27])
def test_chunks_of_a_length_that_is_not_legal_are_refused(values):
    with pytest.raises(ValueError, match="chunk"):
        encode_into(b"abcd", bytearray(1000), DType.F32, values_per_chunk=values)


def test_a_negative_size_has_no_bound():
    with pytest.raises(ValueError, match="negative"):
        encoded_size_bound(-1, DType.F32)
