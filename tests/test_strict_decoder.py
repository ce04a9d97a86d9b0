"""The oracle itself, against the worked examples and check values of the format page."""

import struct

import numpy as np
import pytest
import zstandard
from strict_decoder import (
    Decoded,
    StrictError,
    canonical_layout,
    decode_container,
    decode_payload,
    fnv1a,
    quaternions,
)

EXAMPLE_A = bytes.fromhex(
    "51415443 02 04 0000 0000000000000003 00000002 00000000 542e1ad013975384"
    "0000002a 51415451 01 04 0000 0000000000000002 3f800000 33171240349ac355"
    "         51455831 06 000000 433f3f8080 03"
    "00000027 51415451 01 04 0000 0000000000000001 3f800000 49267cc0461b80b5"
    "         51455831 06 000000 40c0 02"
)
EXAMPLE_B = bytes.fromhex(
    "51415443 02 04 0000 0000000000000003 00000002 00000000 0a201c22b2de4e79"
    "00000028 51415451 01 04 0000 0000000000000002 3f800000 54d7f4aabf05eded"
    "         51455831 01 020200 3f803f80"
    "00000026 51415451 01 04 0000 0000000000000001 3f800000 0831c807b4ea29ad"
    "         51455831 01 020200 c000"
)
PAYLOAD_A1 = EXAMPLE_A[36:78]
RAW_A = np.array([1, 1, -2], "<f4").tobytes()
RAW_B = bytes.fromhex("803f 803f 00c0")


def container(total: int, *payloads: bytes) -> bytes:
    body = b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)
    return struct.pack(">4sBBHQIIQ", b"QATC", 2, 4, 0, total, len(payloads), 0, fnv1a(body)) + body


def payload(strategy: int, dtype: str, raw: bytes, data: bytes) -> bytes:
    width, tag = {"f32": (4, "000000"), "f16": (2, "010200"), "bf16": (2, "020200")}[dtype]
    hashed = np.frombuffer(raw, "<u4").astype(">u4").tobytes() if width == 4 else raw
    header = struct.pack(">4sBBHQfQ", b"QATQ", 1, 4, 0, len(raw) // width, 1.0, fnv1a(hashed))
    return header + b"QEX1" + bytes([strategy]) + bytes.fromhex(tag) + data


def flipped(data: bytes, at: int, mask: int = 0xFF) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def test_worked_example_a_decodes():
    assert decode_container(EXAMPLE_A) == Decoded("f32", RAW_A, [2, 1], [6, 6])


def test_worked_example_b_decodes():
    assert decode_container(EXAMPLE_B) == Decoded("bf16", RAW_B, [2, 1], [1, 1])


def test_a_payload_decodes_alone():
    assert decode_payload(PAYLOAD_A1) == ("f32", RAW_A[:8])


def test_quaternions_have_the_check_values():
    components = np.stack(quaternions(0x51415451C0DE0001, 2), axis=1)
    assert [f"{bits:08x}" for bits in components.view(np.uint32).ravel()] == [
        *("3d86c072", "bf0097b9", "bf1c6cf7", "bf1bb717"),
        *("befeca09", "3f30af51", "be5afb62", "3ef5b2f9"),
    ]


# Every byte of a container is checked: header fields by rule, chunks by the checksums.
@pytest.mark.parametrize("example", [EXAMPLE_A, EXAMPLE_B], ids=["a", "b"])
def test_any_flipped_container_byte_is_refused(example):
    for at in range(len(example)):
        with pytest.raises(StrictError):
            decode_container(flipped(example, at))


# Of a payload header only the scale (bytes 16..19) may vary, as long as it is a legal scale.
@pytest.mark.parametrize("at", [*range(16), *range(20, 36)])
def test_a_flipped_payload_header_byte_is_refused(at):
    with pytest.raises(StrictError):
        decode_payload(flipped(PAYLOAD_A1, at))


@pytest.mark.parametrize("scale", ["00000000", "80000000", "bf800000", "7f800000", "ff800000", "7fc00000"])
def test_an_illegal_scale_is_refused(scale):
    with pytest.raises(StrictError, match="scale"):
        decode_payload(PAYLOAD_A1[:16] + bytes.fromhex(scale) + PAYLOAD_A1[20:])


@pytest.mark.parametrize("scale", ["00000001", "7f7fffff"])
def test_an_unused_legal_scale_is_ignored(scale):
    assert decode_payload(PAYLOAD_A1[:16] + bytes.fromhex(scale) + PAYLOAD_A1[20:]) == ("f32", RAW_A[:8])


@pytest.mark.parametrize("example", [EXAMPLE_A, EXAMPLE_B], ids=["a", "b"])
def test_truncation_and_trailing_bytes_are_refused(example):
    for end in range(len(example)):
        with pytest.raises(StrictError):
            decode_container(example[:end])
    with pytest.raises(StrictError, match="after the last chunk"):
        decode_container(example + b"\0")


def test_chunks_of_different_dtypes_are_refused():
    mixed = container(2, payload(1, "bf16", b"\0\0", b"\0\0"), payload(1, "f16", b"\0\0", b"\0\0"))
    with pytest.raises(StrictError, match="mixed"):
        decode_container(mixed)


@pytest.mark.parametrize(
    ("strategy", "dtype"),
    [(0, "bf16"), (4, "f16"), (5, "bf16"), (8, "f16"), (9, "f32"), (10, "f32"), (11, "f32"), (255, "f16")],
)
def test_a_strategy_not_legal_for_the_dtype_is_refused(strategy, dtype):
    with pytest.raises(StrictError, match="not legal"):
        decode_payload(payload(strategy, dtype, b"", b""))


class TestZstd:
    RAW = bytes(range(200))
    PLANES = RAW[1::2] + RAW[0::2]
    SKIPPABLE = bytes.fromhex("5a2a4d18 03000000 616263")

    @staticmethod
    def frame(content: bytes, **options: bool) -> bytes:
        return zstandard.ZstdCompressor(**options).compress(content)

    def decode(self, data: bytes) -> bytes:
        return decode_payload(payload(7, "f16", self.RAW, data))[1]

    @pytest.mark.parametrize("checksum", [False, True])
    @pytest.mark.parametrize("content_size", [False, True])
    def test_frames_and_skippable_frames_are_joined(self, checksum, content_size):
        options = {"write_checksum": checksum, "write_content_size": content_size}
        frames = [self.frame(part, **options) for part in (self.PLANES[:50], b"", self.PLANES[50:], b"")]
        data = self.SKIPPABLE + self.SKIPPABLE.join(frames) + self.SKIPPABLE
        assert self.decode(data) == self.RAW

    def test_truncation_is_refused(self):
        data = self.frame(self.PLANES, write_checksum=True) + self.SKIPPABLE
        whole = len(data) - len(self.SKIPPABLE)
        for end in set(range(len(data))) - {whole}:
            with pytest.raises(StrictError, match="zstd"):
                self.decode(data[:end])

    @pytest.mark.parametrize("garbage", [b"\0", b"QATQ", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])
    def test_trailing_garbage_is_refused(self, garbage):
        with pytest.raises(StrictError, match="zstd"):
            self.decode(self.frame(self.PLANES) + garbage)

    def test_wrong_output_length_is_refused(self):
        with pytest.raises(StrictError, match="too little"):
            self.decode(self.frame(self.PLANES[:-1]))
        with pytest.raises(StrictError, match="too much"):
            self.decode(self.frame(self.PLANES) + self.frame(b"\0"))

    def test_a_wrong_checksum_is_refused_even_on_an_empty_frame(self):
        empty = self.frame(b"", write_checksum=True)
        assert self.decode(empty + self.frame(self.PLANES)) == self.RAW
        with pytest.raises(StrictError, match="zstd"):
            self.decode(flipped(empty, len(empty) - 1) + self.frame(self.PLANES))

    def test_a_wrong_declared_content_size_is_refused(self):
        empty = bytes.fromhex("28b52ffd 20 00 010000")  # declares 0 bytes and holds one empty last block
        assert self.decode(empty + self.frame(self.PLANES)) == self.RAW
        with pytest.raises(StrictError, match="zstd"):
            self.decode(flipped(empty, 5, 0x01) + self.frame(self.PLANES))
        with pytest.raises(StrictError, match="declared"):
            self.decode(self.frame(self.PLANES) + flipped(empty, 5, 0x40))
        data = self.frame(self.PLANES)
        assert data[4:6] == b"\x20\xc8"  # one size byte: 200
        with pytest.raises(StrictError, match="zstd"):
            self.decode(flipped(data, 5))


@pytest.mark.parametrize(
    ("sizes", "canonical"),
    [
        ([], False),
        ([0], True),
        ([5], True),
        ([4, 4, 1], True),
        ([4, 4, 4], True),
        ([4, 5], False),
        ([4, 3, 4], False),
        ([4, 0], False),
        ([0, 0], False),
    ],
)
def test_canonical_layout(sizes, canonical):
    assert canonical_layout(Decoded("f32", b"", sizes, [1] * len(sizes))) is canonical
