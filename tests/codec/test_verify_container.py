"""Verification finds every kind of damage, names the chunks, and goes on behind it where it can."""

import random

import numpy as np
import pytest
from codec_twins import CountingReader, container, fnv1a64, index_frame, read_at

from qatqfs.codec import (
    ChecksumMismatch,
    Container,
    DType,
    InvalidContainer,
    LimitExceeded,
    Limits,
    Problem,
    QatcError,
    decode_container,
    encode_container,
    encode_payload,
    verify_container,
)

RAW = bytes(range(250)) * 3 + b"\x07"
SOUND = encode_container(RAW, DType.F16, values_per_chunk=100)


def problems(data: bytes, **limits: int) -> list[Problem]:
    return list(verify_container(read_at(data), len(data), limits=Limits(**limits)))


def damaged(position: int, flip: int = 1, data: bytes = SOUND) -> bytes:
    changed = bytearray(data)
    changed[position] ^= flip
    return bytes(changed)


def chunk_offset(chunk: int) -> int:
    return Container.open(read_at(SOUND), len(SOUND)).chunk_header(chunk).offset


def test_a_sound_container_has_no_problems_and_progress_covers_it() -> None:
    seen: list[int] = []
    reader = CountingReader(SOUND)
    assert list(verify_container(reader, len(SOUND), progress=seen.append)) == []
    assert sum(seen) == len(SOUND)
    assert decode_container(SOUND) == RAW


@pytest.mark.parametrize("size", [0, 2, 751, 200_000, 3_000_000])
def test_content_is_decoded_whole_however_much_smaller_its_container_is(size: int) -> None:
    for raw in (bytes(size), random.Random(size).randbytes(size)):
        found = decode_container(encode_container(raw, DType.F16, values_per_chunk=50_000))
        assert found == raw
        assert not found.readonly


def test_no_more_memory_is_taken_than_a_container_makes_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = np.empty

    def noting(size: int, *arguments: object) -> object:
        taken.append(size)
        return real(size, *arguments)

    monkeypatch.setattr("qatqfs.codec.verify.np.empty", noting)
    assert decode_container(SOUND) == RAW
    assert taken == [len(RAW) + 1]
    taken.clear()
    for total in (9 * len(SOUND) // 2, 1 << 40, (1 << 64) - 1):
        with pytest.raises(QatcError):
            decode_container(SOUND[:8] + total.to_bytes(8, "big") + SOUND[16:])
    assert taken == []


def test_every_flipped_byte_is_found() -> None:
    for position in range(len(SOUND)):
        for flip in (1, 0x80):
            found = problems(damaged(position, flip))
            assert found, position
            with pytest.raises(QatcError):
                decode_container(damaged(position, flip))


def test_every_damaged_chunk_is_named() -> None:
    data = damaged(chunk_offset(1) + 50, data=damaged(chunk_offset(3) + 45))
    found = problems(data)
    assert [p.chunk for p in found] == [1, 3]
    assert [p.offset for p in found] == [chunk_offset(1), chunk_offset(3)]


def test_the_check_goes_on_behind_a_damaged_length_with_the_help_of_the_index() -> None:
    data = damaged(chunk_offset(0), data=damaged(chunk_offset(2) + 5))
    assert [p.chunk for p in problems(data)] == [0, 2]


def test_swapped_chunks_are_found_by_the_containers_checksum() -> None:
    parts = [encode_payload(bytes([i]) * 8, DType.F32) for i in range(3)]
    sound = container(parts, 6)
    assert problems(sound) == []
    swapped = sound[:32] + container([parts[1], parts[0], parts[2]], 6)[32:]
    found = problems(swapped)
    assert [type(p.error) for p in found] == [ChecksumMismatch]
    assert found[0].chunk is None


def test_a_wrong_total_and_trailing_bytes_are_found() -> None:
    plain = container([encode_payload(bytes(8), DType.F32)], 2)
    total = bytearray(plain)
    total[15] = 3
    assert [type(p.error) for p in problems(bytes(total))] == [InvalidContainer]
    assert InvalidContainer in {type(p.error) for p in problems(plain + b"\0")}


def test_an_index_that_disagrees_with_the_walk_is_corruption() -> None:
    parts = [encode_payload(b"abcd", DType.F16, strategy=7), encode_payload(b"efgh", DType.F16, strategy=7)]
    lengths = [len(parts[0]), len(parts[1]) + 68]
    for state, true_length in ((fnv1a64(b"?"), 8), (0, 8)):
        frame = index_frame(true_length, state, 2, DType.F16.wire, lengths)
        data = container([parts[0], parts[1] + frame], 4)
        assert Container.open(read_at(data), len(data)).indexed
        found = problems(data)
        assert [(p.chunk, type(p.error)) for p in found] == [(None, InvalidContainer)]
        assert "state" in str(found[0].error)


def test_a_limit_is_a_problem_of_the_chunk_that_exceeds_it() -> None:
    found = problems(SOUND, max_chunk_values=99)
    assert [p.chunk for p in found] == [0, 1, 2]
    assert all(isinstance(p.error, LimitExceeded) for p in found)


@pytest.mark.parametrize("data", [b"", b"QATC", bytes(72), SOUND[:31]])
def test_what_is_no_container_is_one_problem(data: bytes) -> None:
    found = problems(data)
    assert [(p.chunk, p.offset) for p in found] == [(None, 0)]


def test_errors_of_reading_pass_through() -> None:
    def failing(offset: int, size: int) -> bytes:
        raise OSError(5, "no")

    with pytest.raises(OSError, match="no"):
        list(verify_container(failing, 1000))
