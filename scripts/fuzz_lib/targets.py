"""The parsers, each as a function of arbitrary bytes that raises if the parser misbehaves.

A target accepts a QatcError, which is the only legal answer to bad input. Where two ways lead to the same bytes, it
compares them. Limits are small. So an input that makes a parser use more memory than its limits allow shows as a
MemoryError or a slow run.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fuzz_lib.oneshot import one_shot
from qatqfs.codec import (
    BytesSink,
    ChecksumMismatch,
    Container,
    ContainerWriter,
    DType,
    InvalidContainer,
    InvalidResidualStream,
    Limits,
    QatcError,
    _native,
    decode_any_payload,
    decode_container,
    decode_payload,
    decode_payloads,
    fnv1a64,
    verify_container,
)
from qatqfs.codec.buffers import Buffer
from qatqfs.codec.index_frame import IndexFrame
from qatqfs.codec.zstdframes import decompress_exactly, walk_frames

MAX_VALUES = 1 << 16
_LEGACY_MAGICS = [bytes([first]) + b"\xb5\x2f\xfd" for first in (0x1E, *range(0x22, 0x28))]
_SIZE_THAT_LIBZSTD_TAKES_FOR_NONE = b"\xff" * 8
_REFUSED_ALL_THE_SAME = (*_LEGACY_MAGICS, _SIZE_THAT_LIBZSTD_TAKES_FOR_NONE)
LIMITS = Limits(max_chunk_values=MAX_VALUES, max_chunks=4096, max_total_values=1 << 20)


def payload(data: bytes) -> None:
    """A bare payload of any mode; an exact one decodes the same in company."""
    try:
        raw, dtype = decode_any_payload(data, max_values=MAX_VALUES)
    except QatcError:
        raw = None
    together = decode_payloads([data, data], max_values=MAX_VALUES)
    if data[5:6] == b"\4" and raw is not None:
        out = bytearray(len(raw))
        assert decode_payload(data, out, max_values=MAX_VALUES, dtype=dtype) == raw == out
        assert together == [raw, raw]
    else:
        assert all(isinstance(found, QatcError) for found in together)


def container(data: bytes) -> None:
    """A container: the strict reading, the one by chunk and the check of everything must agree."""
    problems = list(verify_container(lambda offset, size: data[offset : offset + size], len(data), limits=LIMITS))
    try:
        whole: memoryview | None = decode_container(data, limits=LIMITS)
    except QatcError:
        whole = None
    assert (whole is None) == bool(problems)
    try:
        opened = Container.from_buffer(data, limits=LIMITS)
    except QatcError:
        assert whole is None
        return
    chunks = opened.read_chunks(0, opened.chunk_count)
    for number, chunk in enumerate(chunks):
        try:
            alone: memoryview | None = opened.read_chunk(number)
        except QatcError:
            alone = None
        assert alone == (None if isinstance(chunk, QatcError) else chunk)
    if whole is not None:
        assert b"".join(chunks) == whole == opened.read(0, opened.length)
        rewritten(opened, whole)


def rewritten(opened: Container, content: memoryview) -> None:
    """Write the chunks of a sound container again; where that is possible, the content is the same."""
    if not opened.indexed or not content or (opened.length % opened.dtype.width and opened.dtype is DType.F32):
        return  # the writer pads 16-bit elements alone
    assert opened.index is not None
    sink = BytesSink()
    writer = ContainerWriter(sink, opened.dtype, opened.index.values_per_chunk)
    for number in range(opened.chunk_count):
        writer.append(opened.raw_chunk(number))
    writer.finish(opened.length)
    assert decode_container(sink.getvalue()) == content


def index_frame(data: bytes) -> None:
    """An index frame: what is taken is written again to the same bytes."""
    try:
        found = IndexFrame.parse(data)
    except InvalidContainer:
        return
    assert found.pack() == data


def zstd_frames(data: bytes) -> None:
    """Zstd data of several frames; the first two bytes say what size is wanted."""
    size = int.from_bytes(data[:2], "little")
    frames = data[2:]
    expected = one_shot(frames, size)
    out = bytearray(b"\x55" * (size + 16))
    try:
        decompress_exactly(memoryview(frames), np.frombuffer(memoryview(out)[8 : 8 + size], np.uint8))
    except InvalidResidualStream:
        assert expected is None or any(odd in frames for odd in _REFUSED_ALL_THE_SAME)
    else:
        assert out[8 : 8 + size] == expected
        walk_frames(frames)
    assert out[:8] == out[8 + size :] == b"\x55" * 8


def runs(data: bytes) -> None:
    """Run-length streams of all three forms; the first three bytes say which, and how long a result is wanted."""
    size = int.from_bytes(data[1:3], "little")
    form = _FORMS[data[0] % len(_FORMS)] if data else _FORMS[0]
    size -= size % form.unit
    guarded = bytearray(b"\x55" * (size + 16))
    out = memoryview(guarded)[8 : 8 + size]
    good = form.decode(data[3:], out)
    assert guarded[:8] == guarded[8 + size :] == b"\x55" * 8
    if good:
        stream, again = form.encode(out), bytearray(size)
        assert stream is not None
        assert form.decode(stream, again)
        assert again == out


@dataclass(frozen=True)
class _Form:
    unit: int
    decode: Callable[[Buffer, memoryview | bytearray], bool]
    encode: Callable[[memoryview], bytes | None]


_FORMS = [
    _Form(1, lambda data, out: _native.decode_runs(data, out, 1, 2), _native.encode_runs),
    _Form(1, _native.decode_packed_runs, _native.encode_packed_runs),
    _Form(4, lambda data, out: _native.decode_runs(data, out, 4, 1), _native.encode_word_runs),
]


# -- repairs of checksums, which a random change nearly always breaks; a wrong one hides all later checks


def with_container_checksum(data: bytes) -> bytes:
    """Return a container with the checksum of its chunks."""
    return data[:24] + fnv1a64(data[32:]).to_bytes(8, "big") + data[32:] if len(data) >= 32 else data


def with_index_crc(data: bytes) -> bytes:
    """Return an index frame with the CRC of its bytes."""
    return data[:-12] + zlib.crc32(data[:-12]).to_bytes(4, "little") + data[-8:] if len(data) >= 12 else data


def with_checksum_of_content(data: bytes) -> bytes:
    """Return an exact payload with the checksum of whatever its data decodes to."""
    try:
        decode_payload(data, max_values=MAX_VALUES)
    except ChecksumMismatch as err:
        return data[:20] + err.actual.to_bytes(8, "big") + data[28:]
    except QatcError:
        pass
    return data


def as_it_is(data: bytes) -> bytes:
    """Return it unchanged."""
    return data


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        check: raises if the parser misbehaves.
        repair: makes a changed input pass the first checks again.
    """

    check: Callable[[bytes], None]
    repair: Callable[[bytes], bytes] = as_it_is


TARGETS = {
    "payload": Target(payload, with_checksum_of_content),
    "container": Target(container, with_container_checksum),
    "index_frame": Target(index_frame, with_index_crc),
    "zstd_frames": Target(zstd_frames),
    "runs": Target(runs),
}
