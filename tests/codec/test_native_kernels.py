"""The C kernels do what their plain twins do, and stay inside the buffers they are given."""

import random
import threading

import pytest
from codec_twins import fnv1a64, planes_of, raw_of_planes
from hypothesis import given
from hypothesis import strategies as st

from qatqfs.codec import FNV_OFFSET, _native, fnv1a64_many
from qatqfs.codec import fnv1a64 as fast_fnv1a64

SIZES = [*range(140), 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 10_007]


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_fnv_gives_the_published_values(data: bytes, expected: int) -> None:
    assert fast_fnv1a64(data) == expected


@pytest.mark.parametrize("size", SIZES)
def test_fnv_equals_its_twin_at_every_size_state_and_alignment(size: int) -> None:
    rng = random.Random(size)
    for offset in (0, 1, 7):
        data = memoryview(rng.randbytes(size + offset))[offset:]
        state = rng.getrandbits(64)
        assert fast_fnv1a64(data) == fnv1a64(bytes(data))
        assert fast_fnv1a64(data, state) == fnv1a64(bytes(data), state)


@pytest.mark.parametrize("size", [0, 511, 512, 513, 1024, 1535, 4096, 20_000])
def test_every_fnv_kernel_of_this_processor_equals_the_twin(size: int) -> None:
    rng = random.Random(size)
    for data in (rng.randbytes(size), bytes(size), b"\xff" * size, bytes(rng.choices(b"\x00\x80", k=size))):
        state = rng.getrandbits(64)
        found = _native.fnv1a64_kernels(memoryview(b"x" + data)[1:], state)
        assert "plain" in found
        assert set(found.values()) == {fnv1a64(data, state)}


@pytest.mark.parametrize("byte", [0, 1, 0x7F, 0x80, 0xFF])
def test_fnv_equals_its_twin_on_constant_bytes(byte: int) -> None:
    data = bytes([byte]) * 3000
    assert fast_fnv1a64(data) == fnv1a64(data)


@given(st.binary(max_size=3000), st.integers(0, 2**64 - 1), st.integers(0, 3000))
def test_fnv_may_be_taken_in_pieces(data: bytes, state: int, cut: int) -> None:
    assert fast_fnv1a64(data[cut:], fast_fnv1a64(data[:cut], state)) == fnv1a64(data, state)


@given(st.lists(st.binary(max_size=600), max_size=11))
def test_many_buffers_hash_like_one_at_a_time(buffers: list[bytes]) -> None:
    assert fnv1a64_many(buffers) == [fnv1a64(data) for data in buffers]


def test_many_refuses_what_is_no_buffer() -> None:
    with pytest.raises(TypeError):
        fnv1a64_many([b"x", 3])  # type: ignore[list-item]


def test_threads_hash_at_once() -> None:
    data = random.Random(1).randbytes(1 << 20)
    expected = fast_fnv1a64(data)
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(fast_fnv1a64(data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8
    assert fast_fnv1a64(b"") == FNV_OFFSET


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("n", [*range(70), 127, 128, 129, 1000])
def test_planes_split_and_merge_like_a_loop(width: int, n: int) -> None:
    raw = random.Random(n).randbytes(n * width)
    planes, back = bytearray(len(raw)), bytearray(len(raw))
    _native.split_planes(raw, planes, width)
    assert planes == planes_of(raw, width)
    _native.merge_planes(planes, back, width)
    assert back == raw == raw_of_planes(planes, width)


@pytest.mark.parametrize(("raw", "planes", "width"), [(4, 6, 2), (6, 6, 4), (6, 6, 3), (3, 3, 2)])
def test_planes_of_odd_sizes_are_refused(raw: int, planes: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        _native.split_planes(bytes(raw), bytearray(planes), width)


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


@given(st.binary(max_size=40), st.integers(0, 64), st.booleans())
def test_runs_never_write_outside_and_accept_only_exact_streams(data: bytes, size: int, packed: bool) -> None:
    guarded = bytearray(b"\x55" * (size + 16))
    out = memoryview(guarded)[8 : 8 + size]
    if packed:
        _native.decode_packed_runs(data, out)
    else:
        _native.decode_runs(data, out, 1, 2)
    assert guarded[:8] == guarded[8 + size :] == b"\x55" * 8
