"""A second reading of the format page, used as an oracle by the tests.

This decodes QATC v2 containers and QATQ mode-4 payloads. It was written from the description of the wire
format alone and shares no code with the package, so that an error in the package's reading of the format
cannot hide in a test that runs the package's encoder against the package's decoder. Section numbers in the
comments are those of the format page. It prefers the obvious to the fast, and refuses whatever the page does
not allow: every check of sections 2 to 6 is made, and there is one kind of failure, StrictError.

The format knows only whole elements. A file whose length is not a multiple of the element width was padded
before it was encoded (by up to width - 1 zero bytes); the pad is part of the bytes
returned here, and it is the caller who knows the true length.

    python tests/strict_decoder.py FILE OUT     decode FILE (container or single payload) into OUT
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

MAX_PAYLOAD_VALUES = 2**26
MAX_TOTAL_VALUES = 2**32
MAX_CHUNKS = 2**20
PAYLOAD_HEADER_BYTES = 28
BODY_PREFIX_BYTES = 8
MIN_CHUNK_BYTES = PAYLOAD_HEADER_BYTES + BODY_PREFIX_BYTES
MAX_CHUNK_BYTES = MIN_CHUNK_BYTES + 4 * MAX_PAYLOAD_VALUES
CONTAINER_HEADER_BYTES = 32
EXACT_MODE = 4

DTYPES = {b"\x00\x00\x00": "f32", b"\x01\x02\x00": "f16", b"\x02\x02\x00": "bf16"}
WIDTH = {"f32": 4, "f16": 2, "bf16": 2}
# Section 3.1: which strategies are legal for which element width.
LEGAL_STRATEGIES = {4: {0, 1, 2, 3, 4, 5, 6, 7, 8}, 2: {1, 2, 3, 6, 7, 9, 10}}

Words = np.ndarray  # the elements as unsigned bit patterns: native uint32 or uint16, one dimension


class StrictError(ValueError):
    """The bytes are not a legal mode-4 payload or v2 container."""


@dataclass
class Decoded:
    """A decoded container: raw little-endian bytes, and what each chunk was."""

    dtype: str
    raw: bytes
    chunk_values: list[int]
    strategies: list[int]


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise StrictError(problem)


def fnv1a(data: bytes) -> int:
    """FNV-1a 64 (section 1.3)."""
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


# --- Elements and byte planes (sections 1.1, 1.2, 4.7) ---------------------------------------------------


def words_of_canonical(canonical: bytes, width: int) -> Words:
    return np.frombuffer(canonical, f">u{width}").astype(f"u{width}")


def words_of_planes(planes: bytes, n: int, width: int) -> Words:
    rows = np.frombuffer(planes, np.uint8).reshape(width, n)  # row p: byte p of every element, top byte first
    return words_of_canonical(rows.T.tobytes(), width)


def undo_xor(residual: Words, stride: int) -> Words:
    """v[i] = v[i - stride] xor r[i], the first `stride` words as they are."""
    n = len(residual)
    rows = -(-n // stride)
    table = np.zeros(rows * stride, residual.dtype)
    table[:n] = residual
    return np.bitwise_xor.accumulate(table.reshape(rows, stride), axis=0).ravel()[:n]


# --- Run streams (sections 4.2 to 4.4, and the xor stream of 4.8) ----------------------------------------


def run_stream(data: bytes, units: int, unit_bytes: int, max_token: int) -> bytes:
    """Expand `token u8 | len u16 | operand` runs to exactly `units` units, using up `data`."""
    pieces, produced, at = [], 0, 0
    while produced < units:
        require(len(data) - at >= 3, "run stream: header cut")
        token, length = struct.unpack_from(">BH", data, at)
        at += 3
        require(token <= max_token, "run stream: illegal token")
        require(length > 0, "run stream: empty run")
        require(produced + length <= units, "run stream: too much output")
        operand_bytes = (0, length * unit_bytes, 1)[token]
        operand = data[at : at + operand_bytes]
        require(len(operand) == operand_bytes, "run stream: operand cut")
        at += operand_bytes
        pieces.append((bytes(length * unit_bytes), operand, operand * length)[token])
        produced += length
    require(at == len(data), "run stream: data left over")
    return b"".join(pieces)


def plane_blocks(data: bytes, n: int) -> bytes:
    planes, at = [], 0
    for _ in range(4):
        require(at < len(data), "plane blocks: tag missing")
        tag = data[at]
        at += 1
        require(tag <= 2, "plane blocks: illegal tag")
        operand_bytes = (0, n, 1)[tag]
        operand = data[at : at + operand_bytes]
        require(len(operand) == operand_bytes, "plane blocks: plane cut")
        at += operand_bytes
        planes.append((bytes(n), operand, operand * n)[tag])
    require(at == len(data), "plane blocks: data left over")
    return b"".join(planes)


def packed_runs(data: bytes, total: int) -> bytes:
    pieces, produced, at = [], 0, 0
    while produced < total:
        require(at < len(data), "packed runs: stream ends early")
        tag, length = data[at] >> 6, (data[at] & 0x3F) + 1
        at += 1
        require(tag <= 2, "packed runs: illegal tag")
        require(produced + length <= total, "packed runs: too much output")
        operand_bytes = (0, length, 1)[tag]
        operand = data[at : at + operand_bytes]
        require(len(operand) == operand_bytes, "packed runs: operand cut")
        at += operand_bytes
        pieces.append((bytes(length), operand, operand * length)[tag])
        produced += length
    require(at == len(data), "packed runs: data left over")
    return b"".join(pieces)


# --- zstd (section 4.5) ----------------------------------------------------------------------------------


@dataclass
class ZstdFrame:
    end: int
    skippable: bool
    declared_content: int | None = None  # bytes, if the frame header says


def zstd_frame(data: bytes, at: int) -> ZstdFrame:
    """Walk the headers of the frame starting at `at` (RFC 8878, section 3.1)."""

    def little(offset: int, size: int) -> int:
        require(offset + size <= len(data), "zstd: frame cut")
        return int.from_bytes(data[offset : offset + size], "little")

    magic = little(at, 4)
    if magic & 0xFFFFFFF0 == 0x184D2A50:
        end = at + 8 + little(at + 4, 4)
        require(end <= len(data), "zstd: skippable frame cut")
        return ZstdFrame(end, skippable=True)
    require(magic == 0xFD2FB528, "zstd: bad magic")

    descriptor = little(at + 4, 1)
    single_segment = bool(descriptor & 0x20)
    has_checksum = bool(descriptor & 0x04)
    window_bytes = 0 if single_segment else 1
    dictionary_id_bytes = (0, 1, 2, 4)[descriptor & 3]
    content_size_bytes = (int(single_segment), 2, 4, 8)[descriptor >> 6]
    at += 5 + window_bytes + dictionary_id_bytes
    declared = None
    if content_size_bytes:
        declared = little(at, content_size_bytes) + (256 if content_size_bytes == 2 else 0)
    at += content_size_bytes

    last = False
    while not last:
        header = little(at, 3)
        last, kind, size = bool(header & 1), (header >> 1) & 3, header >> 3
        require(kind != 3, "zstd: reserved block type")
        require(kind != 2 or size > 0, "zstd: compressed block of no bytes")
        at += 3 + (1 if kind == 1 else size)  # kind 1 is one byte repeated `size` times
    end = at + (4 if has_checksum else 0)
    require(end <= len(data), "zstd: frame cut")
    return ZstdFrame(end, skippable=False, declared_content=declared)


def zstd_frames(data: bytes, total: int) -> bytes:
    """Decompress all frames of `data`, which must give exactly `total` bytes.

    ZstdDecompressor.decompress() stops after the first frame and does not look inside a frame that declares
    no content, so frames are cut out here and each is read as a stream, with one byte more than may come.
    The stream reader lets an empty frame declare a content size it does not have, so that is compared here.
    On two points this is stricter than libzstd's one-shot call, both outside what a compressor writes: a
    raw or RLE block larger than the frame's block limit, and, without a content size, a window over 2 GiB.
    """
    pieces, produced, at = [], 0, 0
    while at < len(data):
        frame = zstd_frame(data, at)
        if not frame.skippable:
            reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(data[at : frame.end])
            try:
                piece = reader.read(total - produced + 1)
            except zstandard.ZstdError as error:
                raise StrictError(f"zstd: {error}") from error
            pieces.append(piece)
            produced += len(piece)
            require(produced <= total, "zstd: too much output")
            require(frame.declared_content in (None, len(piece)), "zstd: wrong declared content size")
        at = frame.end
    require(produced == total, "zstd: too little output")
    return b"".join(pieces)


# --- Strategy 0, the predictor (section 4.8) -------------------------------------------------------------
# All arithmetic is on float32 arrays, one IEEE operation per numpy operation: nothing is fused. uint64
# arrays wrap silently, which is what the generator wants.


def splitmix64(x: np.ndarray) -> np.ndarray:
    z = x + np.uint64(0x9E3779B97F4A7C15)
    m = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    m = (m ^ (m >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return m ^ (m >> np.uint64(31))


def quaternions(seed: int, lanes: int) -> list[np.ndarray]:
    """The components r, i, j, k of the unit quaternion of each lane."""
    lane = np.arange(lanes, dtype=np.uint64)
    state = np.uint64(seed) ^ (lane * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(0xA0761D6478BD642F)
    components = []
    norm2 = np.zeros(lanes, np.float32)
    for _ in range(4):
        state = splitmix64(state)
        u = (state >> np.uint64(40)).astype(np.float32) / np.float32(16777215)
        component = u * np.float32(2) - np.float32(1)
        norm2 = norm2 + component * component
        components.append(component)
    degenerate = (norm2 <= np.float32(2**-23)) | ~np.isfinite(norm2)
    norm = np.sqrt(norm2)
    identity = [np.float32(x) for x in (1, 0, 0, 0)]
    return [np.where(degenerate, e, c / norm) for e, c in zip(identity, components, strict=True)]


def hamilton(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    ar, ai, aj, ak = a
    br, bi, bj, bk = b
    return [
        ((ar * br - ai * bi) - aj * bj) - ak * bk,
        ((ar * bi + ai * br) + aj * bk) - ak * bj,
        ((ar * bj - ai * bk) + aj * br) + ak * bi,
        ((ar * bk + ai * bj) - aj * bi) + ak * br,
    ]


def predictor(data: bytes, n: int, scale: np.float32) -> Words:
    lanes = -(-n // 4)
    coordinates = 4 * lanes
    signs_at = 12 + coordinates // 2
    stream_at = signs_at + -(-coordinates // 8)
    require(len(data) >= stream_at, "predictor: too short")
    seed = int.from_bytes(data[:8], "big")
    residual_scale = np.frombuffer(data[8:12], ">f4").astype(np.float32)[0]
    require(bool(np.isfinite(residual_scale) and residual_scale >= 0), "predictor: bad residual scale")
    pairs = np.frombuffer(data[12:signs_at], np.uint8)
    nibbles = np.stack([pairs >> 4, pairs & 15], axis=1).ravel()
    sign_bytes = np.frombuffer(data[signs_at:stream_at], np.uint8)
    plus = np.unpackbits(sign_bytes, bitorder="little")[:coordinates].astype(bool)
    residual = words_of_canonical(run_stream(data[stream_at:], n, 4, max_token=1), 4)

    with np.errstate(all="ignore"):
        offset = (nibbles.astype(np.float32) - np.float32(8)) * scale
        rotated = offset + np.where(plus, residual_scale, -residual_scale)
        q = quaternions(seed, lanes)
        conjugate = [q[0], -q[1], -q[2], -q[3]]
        x = list(rotated.reshape(lanes, 4).T)
        predicted = np.stack(hamilton(hamilton(conjugate, x), q), axis=1).ravel()[:n]
    assert predicted.dtype == np.float32
    return np.ascontiguousarray(predicted).view(np.uint32) ^ residual


# --- Payload (sections 2, 3, 5) --------------------------------------------------------------------------


def decode_strategy(strategy: int, data: bytes, n: int, width: int, scale: np.float32) -> Words:
    """Decode strategy data to n words; the strategy is known to be legal for the width."""
    size = n * width
    if strategy == 0:
        return predictor(data, n, scale)
    if strategy == 1:
        require(len(data) == size, "raw bits: wrong length")
        return words_of_canonical(data, width)
    if strategy == 2:
        return words_of_canonical(run_stream(data, size, 1, max_token=2), width)
    if strategy == 3:
        return words_of_planes(run_stream(data, size, 1, max_token=2), n, width)
    if strategy == 4:
        return undo_xor(words_of_planes(run_stream(data, size, 1, max_token=2), n, width), 1)
    if strategy == 5:
        return words_of_planes(plane_blocks(data, n), n, width)
    if strategy == 6:
        return words_of_planes(packed_runs(data, size), n, width)
    if strategy == 7:
        return words_of_planes(zstd_frames(data, size), n, width)
    if strategy == 8:
        return np.cumsum(words_of_planes(zstd_frames(data, size), n, width), dtype=np.uint32)
    if strategy == 9:
        return undo_xor(words_of_planes(zstd_frames(data, size), n, width), 1)
    assert strategy == 10
    require(len(data) >= 4, "strided xor: stride missing")
    stride = int.from_bytes(data[:4], "big")
    residual = words_of_planes(zstd_frames(data[4:], size), n, width)
    require(0 < stride < n, "strided xor: bad stride")
    return undo_xor(residual, stride)


def payload_value_count(data: bytes) -> int:
    """Check the 28-byte header of a payload and return its value count."""
    require(len(data) >= PAYLOAD_HEADER_BYTES, "payload: too short for a header")
    magic, version, mode, reserved, n, scale, _ = struct.unpack_from(">4sBBHQfQ", data)
    require(magic == b"QATQ", "payload: bad magic")
    require(version == 1, "payload: bad version")
    require(mode == EXACT_MODE, "payload: mode is not 4")
    require(reserved == 0, "payload: reserved bytes set")
    require(n <= MAX_PAYLOAD_VALUES, "payload: too many values")
    require(0 < scale < float("inf"), "payload: bad scale")
    return n


def payload_parts(data: bytes) -> tuple[str, int, bytes]:
    """Decode one payload to (dtype, strategy, raw little-endian bytes)."""
    n = payload_value_count(data)
    require(len(data) >= MIN_CHUNK_BYTES, "payload: too short for a body prefix")
    require(data[28:32] == b"QEX1", "payload: bad body magic")
    require(data[33:36] in DTYPES, "payload: bad dtype bytes")
    dtype = DTYPES[data[33:36]]
    width = WIDTH[dtype]
    strategy = data[32]
    require(strategy in LEGAL_STRATEGIES[width], "payload: strategy is not legal for the dtype")

    scale = np.frombuffer(data[16:20], ">f4").astype(np.float32)[0]
    words = decode_strategy(strategy, data[MIN_CHUNK_BYTES:], n, width, scale)
    assert words.shape == (n,) and words.dtype.itemsize == width
    raw = words.astype(f"<u{width}").tobytes()
    # Section 5: f32 hashes the big-endian bytes, the 16-bit types hash the little-endian ones.
    hashed = words.astype(">u4").tobytes() if dtype == "f32" else raw
    require(fnv1a(hashed) == int.from_bytes(data[20:28], "big"), "payload: checksum mismatch")
    return dtype, strategy, raw


def decode_payload(data: bytes) -> tuple[str, bytes]:
    """Decode one mode-4 payload to (dtype label, raw little-endian bytes); raises StrictError."""
    dtype, _, raw = payload_parts(bytes(data))
    return dtype, raw


# --- Container (section 6) -------------------------------------------------------------------------------


def decode_container(data: bytes) -> Decoded:
    """Decode a v2 container; raises StrictError. Chunk sizes need not be equal: see canonical_layout."""
    data = bytes(data)
    require(len(data) >= CONTAINER_HEADER_BYTES, "container: too short for a header")
    header = struct.unpack_from(">4sBBHQIIQ", data)
    magic, version, mode, reserved, total, chunk_count, reserved2, checksum = header
    require(magic == b"QATC", "container: bad magic")
    require(version == 2, "container: bad version")
    require(mode == EXACT_MODE, "container: mode is not 4")
    require(reserved == 0 and reserved2 == 0, "container: reserved bytes set")
    require(total <= MAX_TOTAL_VALUES, "container: too many values")
    require(1 <= chunk_count <= MAX_CHUNKS, "container: bad chunk count")

    payloads, chunk_values = [], []
    at = CONTAINER_HEADER_BYTES
    for _ in range(chunk_count):
        require(at + 4 <= len(data), "container: chunk length cut")
        (length,) = struct.unpack_from(">I", data, at)
        at += 4
        require(MIN_CHUNK_BYTES <= length <= MAX_CHUNK_BYTES, "container: bad chunk length")
        require(at + length <= len(data), "container: chunk cut")
        payloads.append(data[at : at + length])
        chunk_values.append(payload_value_count(payloads[-1]))
        at += length
    require(at == len(data), "container: bytes after the last chunk")
    require(sum(chunk_values) == total, "container: chunk counts do not add up to the total")
    require(fnv1a(data[CONTAINER_HEADER_BYTES:]) == checksum, "container: checksum mismatch")

    parts = [payload_parts(payload) for payload in payloads]
    dtype = parts[0][0]
    require(all(part[0] == dtype for part in parts), "container: mixed dtypes")
    return Decoded(dtype, b"".join(part[2] for part in parts), chunk_values, [part[1] for part in parts])


def canonical_layout(decoded: Decoded) -> bool:
    """Whether all chunks but the last have the same size and the last is 1 to that many values.

    No values at all are canonical as a single empty chunk (section 6.1).
    """
    sizes = decoded.chunk_values
    if len(sizes) <= 1:
        return len(sizes) == 1
    return all(size == sizes[0] for size in sizes[:-1]) and 1 <= sizes[-1] <= sizes[0]


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: strict_decoder.py FILE OUT", file=sys.stderr)
        return 2
    data = Path(sys.argv[1]).read_bytes()
    try:
        raw = decode_container(data).raw if data[:4] == b"QATC" else decode_payload(data)[1]
    except StrictError as error:
        print(f"strict_decoder: {error}", file=sys.stderr)
        return 1
    Path(sys.argv[2]).write_bytes(raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
