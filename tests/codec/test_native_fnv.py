"""FNV-1a of the C extension against its plain twin, on every instruction set that is here."""

import random
import threading

import pytest
from codec_twins import fnv1a64
from hypothesis import given
from hypothesis import strategies as st

from qatqfs.codec import FNV_OFFSET, _native, fnv1a64_many
from qatqfs.codec import fnv1a64 as fast_fnv1a64
from qatqfs.codec.checksum import fnv1a64_chain

SIZES = [*range(140), 255, 256, 257, *(512 * blocks + more for blocks in range(1, 28) for more in (-1, 0, 1)), 40_007]


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
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set_gives_the_same_fnv(size: int) -> None:
    rng = random.Random(size)
    for data in (rng.randbytes(size), bytes(size), b"\xff" * size, bytes(rng.choices(b"\x00\x80", k=size))):
        state = rng.getrandbits(64)
        view = memoryview(b"x" + data)[1:]
        assert fast_fnv1a64(view, state) == fnv1a64(data, state)
        assert fnv1a64_many([view, data, b"", data]) == [fnv1a64(d) for d in (data, data, b"", data)]


@pytest.mark.usefixtures("instruction_set")
def test_four_buffers_at_once_hash_like_one_at_a_time_on_every_instruction_set() -> None:
    rng = random.Random(4)
    for sizes in ((1, 1, 1, 1), (600, 700, 513, 2000), (5000, 5001, 4999, 5000), (3, 4000, 4000, 4000, 7, 9, 11, 2000)):
        buffers = [rng.randbytes(size) for size in sizes]
        assert fnv1a64_many(buffers) == [fnv1a64(data) for data in buffers]


def test_the_portable_instruction_set_is_always_there() -> None:
    assert _native.instruction_sets()[0] == "portable"


def test_an_instruction_set_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="sve"):
        _native.use_instruction_set("sve")


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


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_a_chain_of_buffers_hashes_like_all_of_them_together(count: int) -> None:
    rng = random.Random(count)
    buffers = [rng.randbytes(rng.choice([0, 4, 3000])) for _ in range(count)]
    ends = [b"".join(buffers[: i + 1]) for i in range(count)]
    assert fnv1a64_chain(buffers, 7) == [fnv1a64(data, 7) for data in ends]


def test_a_chain_refuses_what_is_no_buffer() -> None:
    with pytest.raises(TypeError):
        fnv1a64_chain([b"x", 3], 0)  # type: ignore[list-item]


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
