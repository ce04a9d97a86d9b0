"""Frames of byte planes decoded in one call, beside what libzstd makes of them."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard
from fuzz_lib.oneshot import one_shot
from hypothesis import given, settings
from hypothesis import strategies as st

from qatqfs.codec import (
    ChecksumMismatch,
    DType,
    EncodingFault,
    Level,
    Memory,
    QatcError,
    _native,
    decode_payload,
    encode_payload,
    payloadencoder,
)
from qatqfs.codec.planekernels import Encoded, code_plane
from qatqfs.codec.search import Settings, encode_as_known, encode_smallest

EVERYTHING = {"singles_below": 2.0, "matches_from": 2.0, "matches_in_noise_from": 2.0}


def decoded(frames: bytes, size: int) -> bytes | None:
    """Return the content of frames of one plane after another, None where the call refuses them.

    Values of two bytes are merged from two planes, so this takes them apart again.
    """
    out, planes = bytearray(size), bytearray(size)
    if _native.decode_planes(frames, planes, out, 2, 0, 1, False) is None:
        return None
    values = np.frombuffer(bytes(out), np.uint8)
    return np.concatenate([values[1::2], values[0::2]]).tobytes()


def plane(size: int, spread: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(128, spread, size)
    return np.clip(values, 0, 255).astype(np.uint8)


def frame_of(content: np.ndarray) -> bytes:
    coded = code_plane(np.ascontiguousarray(content, np.uint8), **EVERYTHING)
    assert coded.singles is not None
    return coded.singles


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(
    "size", [300, 1022, 1024, 1030, 4096, 16_382, 16_384, 16_386, 65_536, 131_072, 131_076, 400_000]
)
def test_frames_of_ours_are_decoded(size: int) -> None:
    for spread in (0.3, 1, 3, 10, 30):
        content = plane(size, spread)
        assert decoded(frame_of(content), size) == content.tobytes()


@pytest.mark.parametrize("level", [-5, 1, 3, 19])
def test_frames_of_libzstd_are_decoded(level: int) -> None:
    for seed, spread in enumerate((1, 2, 4, 8, 16, 32, 40)):
        content = plane(131_072, spread, seed)
        assert decoded(zstandard.ZstdCompressor(level=level).compress(content.tobytes()), 131_072) == content.tobytes()


def test_frames_with_matches_are_decoded() -> None:
    content = np.tile(plane(1000, 20), 20)
    assert decoded(zstandard.ZstdCompressor(level=3).compress(content.tobytes()), len(content)) == content.tobytes()


def test_frames_without_a_content_size_are_decoded() -> None:
    content = plane(5000, 3)
    without = zstandard.ZstdCompressor(level=3, write_content_size=False)
    frames = without.compress(content[:3000].tobytes()) + without.compress(content[3000:].tobytes())
    assert decoded(frames, 5000) == content.tobytes()
    assert decoded(frames, 5002) is None
    assert decoded(frames, 4998) is None


def test_stored_and_constant_frames_and_what_may_be_skipped() -> None:
    noise = np.random.default_rng(1).integers(0, 256, 200_000, np.uint8)
    payload_ = encode_payload(noise.tobytes() + bytes(200_000), DType.F16, strategy=7)
    assert decode_payload(payload_) == noise.tobytes() + bytes(200_000)
    content = plane(5000, 3)
    skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc"
    assert decoded(frame_of(content) + skippable, 5000) == content.tobytes()
    assert decoded(frame_of(content) + skippable[:-1], 5000) is None
    assert decoded(frame_of(content) + b"x", 5000) is None
    assert decoded(frame_of(content)[:-1], 5000) is None
    assert decoded(frame_of(content), 5002) is None
    assert decoded(frame_of(content), 4998) is None


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("seed", range(6))
def test_a_changed_frame_is_refused_or_is_what_libzstd_makes_of_it(seed: int) -> None:
    rng = random.Random(seed)
    content = plane(rng.choice([300, 1500, 5000]), rng.choice([0.5, 2, 8, 30]), seed)
    if seed == 0:  # long enough for libzstd's fastest loops
        content = plane(20_000, 1)
    frame = frame_of(content)
    accepted = 0
    for _ in range(3000):
        changed = bytearray(frame)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            at = rng.randrange(min(len(changed), 150) if rng.random() < 0.7 else len(changed))
            changed[at] = rng.choice([rng.randrange(256), changed[at] ^ 1 << rng.randrange(8)])
        if rng.random() < 0.1:
            del changed[rng.randrange(len(changed)) :]
        result = decoded(bytes(changed), len(content))
        assert result == one_shot(bytes(changed), len(content))
        accepted += result is not None
    assert accepted  # a changed bit of a stream often decodes to something, which the checksum is there for


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 300).map(lambda half: 2 * half))
def test_any_bytes_behind_a_frame_header_do_no_harm(tail: bytes, size: int) -> None:
    header = b"\x28\xb5\x2f\xfd" + (bytes([0x20, size]) if size < 256 else b"\x60" + (size - 256).to_bytes(2, "little"))
    assert decoded(header + tail, size) == one_shot(header + tail, size)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_tree_and_streams_do_no_harm(data: st.DataObject) -> None:
    """Blocks whose lengths are right, so that what is inside them is reached."""
    size = data.draw(st.sampled_from([6, 300, 1000]))
    body = data.draw(st.binary(min_size=1, max_size=120))
    tree = data.draw(st.binary(max_size=40))
    tree = bytes([len(tree)]) + tree if data.draw(st.booleans()) else tree
    inner = tree + (bytes([len(body) // 5, 0] * 3) + body if size > 6 else body)
    literals = (2 | (1 if size > 6 else 0) << 2 | size << 4 | len(inner) << 14).to_bytes(3, "little") + inner + b"\0"
    block = (len(literals) << 3 | 2 << 1 | 1).to_bytes(3, "little") + literals
    frame = b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + block
    assert decoded(frame, size) == one_shot(frame, size)


def test_a_block_larger_than_the_content_of_its_frame_is_refused() -> None:
    """RFC 8878 section 3.1.1.2.4: the window bounds blocks, and of a single segment it is the content."""
    content = plane(300, 2)
    frame = frame_of(content)
    short = frame[:4] + b"\x20" + bytes([40])  # a size of 40 bytes, and the block of a frame of 300
    body = bytearray(frame[7:])
    assert one_shot(bytes(short) + bytes(body), 40) is None
    assert decoded(bytes(short) + bytes(body), 40) is None


def test_many_threads_decode_at_once() -> None:
    """More of them than decoders are kept: each has one of its own while it decodes."""
    contents = [plane(200_000, 1 + spread, spread).tobytes() for spread in range(24)]
    frames = [frame_of(np.frombuffer(content, np.uint8)) for content in contents]
    together = threading.Barrier(len(contents))

    def decode(number: int) -> list[bytes | None]:
        together.wait()
        return [decoded(frames[number], 200_000) for _ in range(5)]

    with ThreadPoolExecutor(len(contents)) as pool:
        found = list(pool.map(decode, range(len(contents))))
    assert found == [[content] * 5 for content in contents]


# -- a payload that is verified -----------------------------------------------------------------------------


def test_frames_that_hold_other_values_are_noticed() -> None:
    raw = (np.random.default_rng(0).standard_normal(40_000, np.float32).view("<u4") >> 16).astype("<u2").tobytes()
    frames = encode_payload(raw, DType.BF16)[36:]
    scratch = bytearray(len(raw))
    assert _native.frames_hold(frames, raw, scratch, 2)
    for at in (0, 1, 40_001, len(raw) - 1):
        other = bytearray(raw)
        other[at] ^= 1
        assert not _native.frames_hold(frames, bytes(other), scratch, 2)
    for at in (40, len(frames) // 3, len(frames) - 1):
        other = bytearray(frames)
        other[at] ^= 1
        assert not _native.frames_hold(bytes(other), raw, scratch, 2)
    with pytest.raises(ValueError, match="scratch"):
        _native.frames_hold(frames, raw, bytearray(3), 2)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("level", list(Level))
def test_a_verified_payload_is_the_same(dtype: DType, level: Level) -> None:
    plain, verified = Memory(), Memory()
    for raw in (
        np.random.default_rng(0).standard_normal(20_000, np.float32).tobytes(),
        bytes(4000),
        b"a text that repeats itself, " * 400,
        np.random.default_rng(0).bytes(8000),
        b"1234",
        b"",
    ):
        for _ in range(3):
            expected = encode_payload(raw, dtype, level=level, memory=plain)
            assert encode_payload(raw, dtype, level=level, memory=verified, verified=True) == expected


@pytest.mark.parametrize("where", ["data", "checksum"])
def test_a_wrong_payload_is_not_returned(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"some text, " * 3000
    if where == "data":
        strategy, data = encode_smallest(np.frombuffer(raw, np.uint8), Settings(DType.F16, Level.BALANCED))
        wrong = strategy, data[:-1] + b"\xff"
        monkeypatch.setattr(payloadencoder, "encode_smallest", lambda *args, **settings: wrong)
    else:
        monkeypatch.setattr(payloadencoder, "values_checksum", lambda *args: 1)
    with pytest.raises(EncodingFault, match="report"):
        encode_payload(raw, DType.F16, verified=True)
    assert issubclass(EncodingFault, QatcError)


def test_a_checksum_that_does_not_fit_is_found_on_the_quick_way_of_decoding() -> None:
    raw = np.random.default_rng(0).standard_normal(20_000, np.float32).tobytes()
    changed = bytearray(encode_payload(raw, DType.F32))
    changed[20] ^= 1
    with pytest.raises(ChecksumMismatch):
        decode_payload(bytes(changed))


def known_rows() -> tuple[bytes, Encoded]:
    """Rows that repeat, and what the one call for all planes makes of them, which has matches."""
    raw = np.random.default_rng(0).bytes(800) * 100
    prefix = encode_payload(raw, DType.F16, level=Level.FAST)[:36]
    (found,) = encode_as_known(
        [np.frombuffer(raw, np.uint8)], Settings(DType.F16, Level.FAST, verified=True), prefix, 20
    )
    return raw, found


def test_frames_with_matches_are_verified_in_the_same_call() -> None:
    raw, found = known_rows()
    assert (found.verified, found.hashed) == (True, True)
    assert encode_payload(raw, DType.F16, level=Level.FAST, verified=True) == found.data


@pytest.mark.parametrize("hashed", [False, True])
def test_wrong_frames_are_not_returned(hashed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, found = known_rows()
    damaged = Encoded(found.data[:-1] + bytes([found.data[-1] ^ 1]), verified=False, hashed=hashed)
    monkeypatch.setattr(payloadencoder, "encode_as_known", lambda *args, **kwargs: [damaged])
    with pytest.raises(EncodingFault):
        encode_payload(raw, DType.F16, level=Level.FAST, verified=True)


def test_a_wrong_checksum_that_was_not_proved_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, found = known_rows()
    wrong = Encoded(found.data[:20] + bytes(8) + found.data[28:], verified=False, hashed=False)
    monkeypatch.setattr(payloadencoder, "encode_as_known", lambda *args, **kwargs: [wrong])
    with pytest.raises(EncodingFault, match="checksum"):
        encode_payload(raw, DType.F16, level=Level.FAST, verified=True)
