"""The frames that the kernel writes for byte planes hold those planes, whatever they are made of.

The oracle is libzstd's decoder, which shares nothing with the kernel but the format.
"""

import itertools

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from qatqfs.codec import _native
from qatqfs.codec.planekernels import code_plane, equal_at_lags

SEGMENT = 128 * 1024
UNIT = 4096
BOTH = {"singles_below": 2.0, "matches_from": 0.0, "matches_in_noise_from": 0.0}


def decoded(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame)


def check(plane: np.ndarray) -> None:
    """Both frames decode to the plane and are hardly ever longer than it; blocks end with it."""
    plane = np.ascontiguousarray(plane, np.uint8)
    coded = code_plane(plane, **BOTH)
    longest = len(plane) + 9 + 3 * (len(plane) // UNIT + 1)
    assert coded.matches is not None
    assert decoded(coded.matches) == plane.tobytes()
    assert len(coded.matches) <= longest
    if coded.noise:
        assert coded.singles is None
    else:
        assert coded.singles is not None
        assert decoded(coded.singles) == plane.tobytes()
        assert len(coded.singles) <= longest
        assert coded.ends[-1] == len(plane)
        assert all(0 < stop - start <= SEGMENT for start, stop in itertools.pairwise([0, *coded.ends]))


def normal(size: int, spread: float | np.ndarray, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(128, spread, size)
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("symbols", [1, 2, 3, 16, 128, 129, 130, 200, 256])
def test_every_short_length_and_alphabet(symbols: int) -> None:
    rng = np.random.default_rng(symbols)
    for size in [*range(1, 70), *range(250, 262), 600, 1023, 1024, 1025, 1030, 4095, 4096, 4097]:
        check(rng.integers(0, symbols, size))
        check(255 - np.minimum(rng.geometric(0.3, size), symbols) % 256)


@pytest.mark.parametrize("size", [16_383, 16_384, 65_536, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 5])
def test_long_planes(size: int) -> None:
    for spread in (0.2, 2, 40):
        check(normal(size, spread))


@pytest.mark.parametrize("size", [5000, SEGMENT])
def test_counts_whose_best_code_would_be_too_long(size: int) -> None:
    fibonacci = [1, 1]
    while sum(fibonacci) < size:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    plane = np.repeat(np.arange(len(fibonacci)), fibonacci)[:size]
    check(np.random.default_rng(0).permutation(plane))
    check(np.random.default_rng(0).permutation(255 - 7 * plane % 256))


def test_runs_rows_and_copies_at_any_distance() -> None:
    rng = np.random.default_rng(0)
    row = rng.integers(0, 256, 1000)
    check(np.tile(row, 300))
    check(np.tile(row[:3], 70_000))
    check(np.concatenate([rng.integers(0, 256, 100_000), np.zeros(200_000), row]))  # literals and a match of > 64 KiB
    sparse = np.zeros(SEGMENT)
    sparse[:: SEGMENT // 200] = 7
    check(sparse)
    far = rng.integers(0, 256, 400_000)
    far[-5000:] = far[:5000]
    check(far)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_plane(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    parts = []
    for _ in range(data.draw(st.integers(1, 5))):
        weights = rng.dirichlet(np.full(256, data.draw(st.sampled_from([0.003, 0.03, 0.3, 30.0]))))
        parts.append(rng.choice(256, data.draw(st.integers(1, 60_000)), p=weights))
    plane = np.concatenate(parts).astype(np.uint8)
    for _ in range(data.draw(st.integers(0, 60))):
        length = int(rng.integers(1, len(plane) // 2 + 2))
        source, target = (int(rng.integers(0, len(plane) - length + 1)) for _ in range(2))
        plane[target : target + length] = plane[source : source + length].copy()
    check(plane)


def test_single_bytes_take_no_more_than_libzstd_needs() -> None:
    without_matches = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, chain_log=6, target_length=0, window_log=17
    )
    libzstd = zstandard.ZstdCompressor(compression_params=without_matches)
    for spread in (1, 3, 10, 30):
        plane = normal(SEGMENT, spread)
        coded = code_plane(plane, **BOTH, exact=True)
        assert coded.singles is not None
        assert len(coded.singles) <= len(libzstd.compress(plane.data)) + 20


def test_counting_a_sample_costs_less_than_a_thousandth() -> None:
    rows = np.tile(np.repeat([1, 2, 4, 8], 64), SEGMENT // 256)  # heads that differ, in a period the sample could meet
    for spread in (1, 3, 10, 30, rows):
        plane = normal(SEGMENT, spread)
        sampled, exact = code_plane(plane, **BOTH), code_plane(plane, **BOTH, exact=True)
        assert sampled.singles is not None and exact.singles is not None
        assert len(sampled.singles) <= 1.001 * len(exact.singles)


@pytest.mark.usefixtures("instruction_set")
def test_every_byte_that_the_sample_missed_gets_a_code() -> None:
    rng = np.random.default_rng(5)
    for rare in (1, 3, 40, 156):
        plane = rng.integers(0, 100, 2 * SEGMENT + 77).astype(np.uint8) // 4
        where = rng.choice(len(plane), rare, replace=False)
        plane[where] = rng.permutation(np.arange(100, 256))[:rare]
        check(plane)


@pytest.mark.usefixtures("instruction_set")
def test_a_single_other_byte_is_found_wherever_it_is() -> None:
    for at in (0, 1, 31, 32, 2047, 2048, 70_000, SEGMENT - 33, SEGMENT - 1):
        plane = np.full(SEGMENT, 7, np.uint8)
        plane[at] = 0x87
        check(plane)


def written_by_each_set(planes: list[np.ndarray]) -> list[tuple[bytes | None, ...]]:
    """What each instruction set makes of some planes, the plain one first."""
    written = []
    for name in _native.instruction_sets():
        _native.use_instruction_set(name)
        try:
            written.append(tuple(frame for plane in planes for frame in code_plane(plane, **BOTH)[:2]))
        finally:
            _native.use_instruction_set(_native.instruction_sets()[-1])
    return written


def test_every_instruction_set_writes_the_same_frames() -> None:
    planes = [normal(SEGMENT, 3), normal(SEGMENT, 30), normal(50_000, 1), np.tile(normal(1000, 4), 100)]
    assert len(set(written_by_each_set(planes))) == 1


def test_every_instruction_set_writes_the_same_frames_at_every_number_of_symbols_left_over() -> None:
    planes = [normal(size, spread) for size in [*range(2030, 2330), *range(9000, 9070)] for spread in (1, 6)]
    assert len(set(written_by_each_set(planes))) == 1


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(2, 256), st.floats(-1, 6), st.integers(256, 40_000), st.integers(0, 300))
def test_every_instruction_set_writes_the_same_codes_of_all_lengths(
    seed: int, symbols: int, steepness: float, size: int, rare: int
) -> None:
    """From nearly flat codes, of which eight fill more than a word, to such that take a bit each."""
    rng = np.random.default_rng(seed)
    alphabet = rng.permutation(256)[:symbols]
    weights = np.exp(-steepness * np.arange(symbols) / 8)
    plane = alphabet[rng.choice(symbols, size, p=weights / weights.sum())].astype(np.uint8)
    at = int(rng.integers(0, size))
    plane[at : at + rare] = np.sort(rng.integers(0, 256, len(plane[at : at + rare])))  # the longest codes, together
    check(plane)
    assert len(set(written_by_each_set([plane]))) == 1


def test_blocks_end_where_the_plane_changes() -> None:
    plane = np.concatenate([normal(40_960, 2), 90 + normal(40_960, 2, 1) // 2, normal(49_152, 12, 2)])
    coded = code_plane(plane, **BOTH)
    assert coded.ends == [40_960, 81_920, len(plane)]


def test_a_plane_without_change_is_one_block() -> None:
    assert code_plane(normal(SEGMENT, 3), **BOTH).ends == [SEGMENT]


def test_noise_is_known_by_a_sample_and_found_out_if_only_part_of_the_plane_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, SEGMENT).astype(np.uint8)
    assert code_plane(noise, **BOTH).noise
    for part in (slice(0, 4096), slice(50_000, 60_000), slice(SEGMENT - 4096, SEGMENT)):
        mixed = noise.copy()
        mixed[part] &= 3
        assert not code_plane(mixed, **BOTH).noise


def test_repeats_are_a_share_of_the_plane() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, SEGMENT).astype(np.uint8)
    assert code_plane(noise, **BOTH).repeats < 0.01
    half = np.concatenate([noise[: SEGMENT // 2], noise[: SEGMENT // 2]])
    assert 0.4 < code_plane(half, **BOTH).repeats < 0.6
    rows = np.tile(normal(1000, 3), 100)
    assert code_plane(rows, **BOTH).repeats > 0.9


def test_the_share_of_repeats_decides_what_is_written() -> None:
    plane = normal(SEGMENT, 3)
    share = code_plane(plane, **BOTH).repeats
    above = code_plane(plane, singles_below=share + 0.1, matches_from=share + 0.1, matches_in_noise_from=0)
    assert above.singles is not None and above.matches is None
    below = code_plane(plane, singles_below=share, matches_from=share, matches_in_noise_from=2)
    assert below.singles is None and below.matches is not None


def test_equal_bytes_at_each_lag_are_counted() -> None:
    plane = np.random.default_rng(0).integers(0, 5, 7000).astype(np.uint8)
    counts = equal_at_lags(plane)
    lags = len(counts) - 1
    start = (len(plane) - lags - int(counts[0])) // 2
    window = plane[start : start + lags + int(counts[0])]
    for lag in (0, 1, 2, 63, 64, 1000, lags):
        assert counts[lag] == np.count_nonzero(window[lags:] == window[lags - lag : len(window) - lag])


@pytest.mark.parametrize(
    "call",
    [
        lambda: _native.code_plane(b"", bytearray(16_384), 1, 1, 1),
        lambda: _native.code_plane(b"abc", bytearray(100), 1, 1, 1),
        lambda: _native.equal_at_lags(b"abc", 4),
    ],
)
def test_what_makes_no_sense_is_refused(call) -> None:
    with pytest.raises(ValueError, match="bytes"):
        call()
