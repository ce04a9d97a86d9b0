"""Numpy arrays come back with every bit, whatever their layout, and with ml_dtypes or without."""

import sys

import numpy as np
import pytest
import strict_decoder

from qatqfs.codec import ChecksumMismatch, DType, LimitExceeded, Limits, decode_array, encode_array, encode_container

SPECIAL = np.array([0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FA12345, 0x00000001, 0x3F800000], np.uint32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_floats_come_back_flat_and_writable(dtype: type) -> None:
    array = np.random.default_rng(0).normal(size=(3, 50, 7)).astype(dtype)
    found = decode_array(encode_array(array, chunk_bytes=400))
    assert found.dtype == dtype
    assert np.array_equal(found, array.ravel())
    found[0] = 1


def test_no_bit_pattern_is_changed() -> None:
    assert (decode_array(encode_array(SPECIAL.view(np.float32))).view(np.uint32) == SPECIAL).all()


def test_bfloat16_is_understood_where_ml_dtypes_is_installed() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.linspace(-3, 3, 1000).astype(ml_dtypes.bfloat16)
    data = encode_array(array)
    assert strict_decoder.decode_container(data).dtype == "bf16"
    assert decode_array(data).dtype == array.dtype
    assert np.array_equal(decode_array(data), array)


def test_without_ml_dtypes_bf16_comes_as_bit_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)  # importing it fails now
    patterns = np.arange(500, dtype=np.uint16)
    found = decode_array(encode_array(patterns, dtype=DType.BF16))
    assert found.dtype == np.uint16
    assert np.array_equal(found, patterns)


def test_what_is_encoded_is_the_little_endian_bytes_in_c_order() -> None:
    array = np.random.default_rng(1).normal(size=(20, 30)).astype("<f4")
    expected = encode_container(array.tobytes(), DType.F32, values_per_chunk=1 << 16)
    for same in (array, array.astype(">f4"), np.asfortranarray(array), array[::-1][::-1]):
        assert encode_array(same) == expected


def test_bit_patterns_need_a_dtype_and_one_of_their_size() -> None:
    patterns = np.arange(10, dtype=np.uint16)
    assert strict_decoder.decode_container(encode_array(patterns, dtype=DType.F16)).raw == patterns.tobytes()
    for dtype in (None, DType.F32):
        with pytest.raises(TypeError):
            encode_array(patterns, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.complex64, np.bool_, "M8[s]"])
def test_other_values_are_refused(dtype: object) -> None:
    with pytest.raises(TypeError, match="neither"):
        encode_array(np.zeros(4, dtype))


def test_a_dtype_that_contradicts_the_array_is_refused() -> None:
    with pytest.raises(TypeError, match="not bf16"):
        encode_array(np.zeros(4, np.float32), dtype=DType.BF16)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
def test_scalars_and_empty_arrays_are_flat_too(shape: tuple[int, ...]) -> None:
    array = np.full(shape, 2.5, np.float32)
    assert np.array_equal(decode_array(encode_array(array)), array.ravel())


def test_chunks_are_of_the_size_that_was_asked_for() -> None:
    array = np.zeros(1000, np.float16)
    assert strict_decoder.decode_container(encode_array(array, chunk_bytes=800)).chunk_values == [400, 400, 200]
    for wrong in (0, -4, 6):
        with pytest.raises(ValueError, match="chunk"):
            encode_array(array, chunk_bytes=wrong)


def test_damage_and_limits_are_errors_of_the_codec() -> None:
    data = bytearray(encode_array(np.zeros(1000, np.float32)))
    with pytest.raises(LimitExceeded):
        decode_array(bytes(data), limits=Limits(max_total_values=999))
    data[24] ^= 1
    with pytest.raises(ChecksumMismatch):
        decode_array(bytes(data))


def test_an_odd_length_is_no_array() -> None:
    with pytest.raises(ValueError, match="whole"):
        decode_array(encode_container(b"123", DType.BF16, values_per_chunk=10))
