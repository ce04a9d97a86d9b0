"""The zstd part of a payload: what libzstd's one-shot decoder takes is taken, all else is refused."""

import contextlib
import dataclasses
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from codec_twins import fnv1a64, payload, planes_of
from fuzz_lib.oneshot import one_shot
from hypothesis import given, settings
from hypothesis import strategies as st
from zstd_twin import Frame
from zstd_twin import walk_frames as walk_by_hand

from qatqfs.codec import DType, InvalidResidualStream, QatcError, decode_payload, encode_payload
from qatqfs.codec.zstdframes import constant_frame, decompress_exactly, walk_frames

RAW = bytes(range(250)) * 4
PLANES = planes_of(RAW, 2)
SKIPPABLE = bytes.fromhex("502a4d1805000000") + b"hello"
EMPTY_SKIPPABLE = bytes.fromhex("5f2a4d1800000000")


def frame(data: bytes, **settings: object) -> bytes:
    return zstandard.ZstdCompressor(level=3, **settings).compress(data)


def unsized(data: bytes, window_log: int = 10) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=0)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def halves(data: bytes) -> bytes:
    return payload(DType.F16.wire, 7, len(RAW) // 2, fnv1a64(RAW), data)


def nothing(data: bytes) -> bytes:
    return payload(DType.F16.wire, 7, 0, fnv1a64(b""), data)


GOOD = {
    "one frame": frame(PLANES),
    "one frame for each plane": frame(PLANES[:500]) + frame(PLANES[500:]),
    "cut anywhere": frame(PLANES[:1]) + frame(PLANES[1:333]) + frame(PLANES[333:]),
    "content checksum": frame(PLANES, write_checksum=True),
    "no content size": frame(PLANES, write_content_size=False),
    "no content size, checksum": frame(PLANES, write_content_size=False, write_checksum=True),
    "no content size, twice": unsized(PLANES[:700]) + unsized(PLANES[700:]),
    "sized and unsized": frame(PLANES[:100]) + unsized(PLANES[100:400]) + frame(PLANES[400:]),
    "skippable before": SKIPPABLE + frame(PLANES),
    "skippable between": frame(PLANES[:500]) + SKIPPABLE + EMPTY_SKIPPABLE + frame(PLANES[500:]),
    "skippable after": frame(PLANES) + SKIPPABLE,
    "empty frame after": frame(PLANES) + frame(b""),
    "empty frame with checksum before": frame(b"", write_checksum=True) + frame(PLANES),
    "empty unsized frame after": frame(PLANES) + unsized(b""),
    "large window": unsized(PLANES, window_log=27),
}


def by_hand(data: bytes) -> tuple[int, bool, bool, int] | None:
    try:
        frames: list[Frame] = walk_by_hand(data)
    except ValueError:
        return None
    return (
        frames[-1].start if frames else 0,
        bool(frames) and frames[-1].skippable,
        any(f.content_size is None for f in frames),
        min(sum(f.content_size or 0 for f in frames), 2**64 - 1),
    )


def check_walk(data: bytes) -> None:
    """The call and its twin say the same."""
    expected = by_hand(data)
    if expected is None:
        with pytest.raises(InvalidResidualStream):
            walk_frames(data)
        return
    assert dataclasses.astuple(walk_frames(data)) == expected


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_the_walk_is_that_of_its_twin_at_every_cut_and_flip(data: bytes) -> None:
    for size in range(len(data) + 1):
        check_walk(data[:size])
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            check_walk(bytes(changed))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([b"\x28\xb5\x2f\xfd", SKIPPABLE, b"\0", b"\x20", b"\x01\0\0", b"\xff"]), max_size=12))
def test_the_walk_is_that_of_its_twin_on_made_up_headers(parts: list[bytes]) -> None:
    check_walk(b"".join(parts))


@pytest.mark.parametrize(
    ("data", "size"),
    [
        # An unsized frame of 5 bytes, then a sized one of 5: more than 7, whatever is cut off.
        ("28b52ffd00002900006161616161 28b52ffd20052900006262626262", 7),
        # A compressed block without data.
        ("28b52ffd0000050000", 0),
        # A sized frame of 4 bytes whose block has none, where no room is left.
        ("28b52ffd00002900006161616161 28b52ffd2004010000", 5),
    ],
)
def test_what_libzstd_refuses_is_refused(data: str, size: int) -> None:
    content = b"a" * size
    with pytest.raises(InvalidResidualStream):
        decode_payload(
            payload(DType.F16.wire, 7, size // 2, fnv1a64(content[: size // 2 * 2]), bytes.fromhex(data))
            if size % 2 == 0
            else payload(DType.F16.wire, 7, (size + 1) // 2, fnv1a64(content), bytes.fromhex(data))
        )
    out = np.full(size, 0x55, np.uint8)
    with pytest.raises(InvalidResidualStream):
        decompress_exactly(memoryview(bytes.fromhex(data)), out)


def test_a_raw_block_larger_than_the_window_is_taken_where_the_content_size_is_known() -> None:
    content = bytes(range(200)) * 10
    sized_frame = bytes.fromhex("28b52ffd4000") + (2000 - 256).to_bytes(2, "little")
    data = sized_frame + (2000 << 3 | 1).to_bytes(3, "little") + content
    assert zstandard.ZstdDecompressor().decompress(data) == content
    out = np.empty(2000, np.uint8)
    decompress_exactly(memoryview(data), out)
    assert out.tobytes() == content


@pytest.mark.parametrize("kind", [0, 1])
def test_a_large_block_of_a_frame_without_a_content_size_is_what_libzstd_makes_of_it(kind: int) -> None:
    """A block that is stored or repeated, in a frame whose window of 1 KiB is smaller."""
    content = b"\xab" * 2000
    body = content[:1] if kind else content
    data = bytes.fromhex("28b52ffd0000") + (2000 << 3 | kind << 1 | 1).to_bytes(3, "little") + body
    out = np.empty(2000, np.uint8)
    if one_shot(data, 2000) is None:
        with pytest.raises(InvalidResidualStream):
            decompress_exactly(memoryview(data), out)
    else:
        decompress_exactly(memoryview(data), out)
        assert out.tobytes() == content


@pytest.mark.parametrize("version", range(1, 8))
def test_frames_of_versions_before_the_format_was_fixed_are_refused(version: int) -> None:
    """Debian's libzstd decodes those of 0.5 to 0.7."""
    first = 0x1E if version == 1 else 0x20 + version
    with pytest.raises(InvalidResidualStream, match="no frame"):
        decode_payload(halves(bytes([first]) + b"\xb5\x2f\xfd" + bytes(100)))
    with pytest.raises(InvalidResidualStream, match="no frame"):
        decode_payload(halves(frame(PLANES) + bytes([first]) + b"\xb5\x2f\xfd" + bytes(100)))


def test_the_content_size_that_libzstd_takes_for_none_is_a_size() -> None:
    blocks = (len(PLANES) << 3 | 1).to_bytes(3, "little") + PLANES
    with pytest.raises(InvalidResidualStream, match="18446744073709551615 bytes"):
        decode_payload(halves(bytes.fromhex("28b52ffde0") + b"\xff" * 8 + blocks))


def test_millions_of_empty_frames_take_no_memory_and_little_time() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    tracemalloc.start()
    try:
        for one in (EMPTY_SKIPPABLE, frame(b"")):
            assert decode_payload(nothing(one * 500_000)) == b""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20  # the payload itself, several times


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_frames_that_libzstd_takes_are_taken(data: bytes) -> None:
    assert decode_payload(halves(data)) == RAW


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_every_cut_and_every_byte_behind_is_refused(data: bytes) -> None:
    frames = walk_by_hand(data)
    content_end = max(f.stop for f in frames if f.content_size != 0 and f.stop - f.start > 13)
    ends = {f.stop for f in frames if f.stop >= content_end}  # frames behind it may be missing
    for size in set(range(len(data))) - ends:
        with pytest.raises(InvalidResidualStream):
            decode_payload(halves(data[:size]))
    with pytest.raises(InvalidResidualStream):
        decode_payload(halves(data + b"\0"))


@pytest.mark.parametrize("data", [b"", SKIPPABLE, EMPTY_SKIPPABLE * 3, frame(b""), unsized(b"") + SKIPPABLE])
def test_no_values_may_have_no_frames_or_frames_without_content(data: bytes) -> None:
    assert decode_payload(nothing(data)) == b""
    if data:
        with pytest.raises(InvalidResidualStream):
            decode_payload(nothing(data[:-1]))
    with pytest.raises(InvalidResidualStream):
        decode_payload(nothing(data + b"\x28"))
    with pytest.raises(InvalidResidualStream):
        decode_payload(halves(data))


def test_content_that_is_too_long_or_too_short_is_refused() -> None:
    for data in (PLANES[:-1], PLANES + b"x", PLANES * 2):
        for encode in (frame, unsized):
            with pytest.raises(InvalidResidualStream):
                decode_payload(halves(encode(data)))


@pytest.mark.parametrize("name", ["content checksum", "no content size, checksum"])
def test_a_wrong_content_checksum_is_refused(name: str) -> None:
    damaged = bytearray(GOOD[name])
    damaged[-1] ^= 1
    with pytest.raises(InvalidResidualStream):
        decode_payload(halves(damaged))


def test_a_wrong_checksum_of_an_empty_frame_is_refused() -> None:
    empty = bytearray(frame(b"", write_checksum=True))
    empty[-1] ^= 1
    with pytest.raises(InvalidResidualStream):
        decode_payload(halves(frame(PLANES) + empty))


def test_a_frame_that_needs_a_dictionary_is_refused() -> None:
    dictionary = zstandard.ZstdCompressionDict(
        random.Random(0).randbytes(4096), dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    assert dictionary.dict_id() == 0  # libzstd writes no id then; ids come from trained dictionaries
    with_id = bytearray(frame(PLANES))
    assert with_id[4] & 3 == 0
    with_id[4] |= 1
    with_id[5 if with_id[4] & 0x20 else 6 : 5 if with_id[4] & 0x20 else 6] = b"\x07"
    with pytest.raises(InvalidResidualStream, match="dictionary"):
        decode_payload(halves(with_id))


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer maps terabytes")
def test_a_sparse_frame_with_a_huge_window_takes_no_memory_for_it() -> None:
    data = bytearray(unsized(PLANES, window_log=10))
    assert data[4] & 0x20 == 0
    data[5] = (31 - 10) << 3  # a window of 2 GiB
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from qatqfs.codec import decode_payload
assert decode_payload(bytes.fromhex({halves(bytes(data)).hex()!r})) == bytes.fromhex({RAW.hex()!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises((zstandard.ZstdError, MemoryError)):  # what the limit is for
        zstandard.ZstdDecompressor().stream_reader(bytes(data)).read(10)


@pytest.mark.parametrize("claimed", [2**20, 2**31, 2**63])
def test_a_frame_that_claims_much_content_is_refused_at_once(claimed: int) -> None:
    blocks = (1 << 3 | 1).to_bytes(3, "little") + b"x"
    data = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + claimed.to_bytes(8, "little") + blocks
    with pytest.raises(InvalidResidualStream, match="where"):
        decode_payload(halves(data))


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 65535, 65791, 65792, 131072, 131073, 400_000])
def test_a_constant_plane_is_a_frame_that_zstd_reads(size: int) -> None:
    data = constant_frame(0xAB, size)
    assert zstandard.ZstdDecompressor().decompress(data) == b"\xab" * size
    assert [(f.start, f.stop, f.content_size) for f in walk_by_hand(data)] == [(0, len(data), size)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2)), max_size=6))
def test_the_walk_finds_the_frames_that_were_put_together(parts: list[tuple[bytes, int]]) -> None:
    frames = [
        (frame(data), unsized(data), b"\x53\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data)[kind]
        for data, kind in parts
    ]
    found = walk_by_hand(b"".join(frames))
    check_walk(b"".join(frames))
    assert [f.stop - f.start for f in found] == [len(f) for f in frames]
    assert [f.skippable for f in found] == [kind == 2 for _, kind in parts]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(list(GOOD.values())), st.integers(0, 10_000), st.integers(1, 255))
def test_damaged_frames_never_give_wrong_bytes(data: bytes, position: int, flip: int) -> None:
    damaged = bytearray(data)
    damaged[position % len(data)] ^= flip
    with contextlib.suppress(QatcError):
        assert decode_payload(halves(damaged)) == RAW


def test_a_skippable_frame_may_be_appended_to_an_appendable_payload() -> None:
    for dtype in DType:
        for size in (4, 400, 40_000):
            raw = random.Random(size).randbytes(size)
            encoded = encode_payload(raw, dtype, appendable=True)
            assert decode_payload(encoded + SKIPPABLE) == raw
