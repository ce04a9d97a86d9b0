"""Containers: what the writer writes is a standard container, and says how long its content is."""

import io
import os
import random
from pathlib import Path

import pytest
import strict_decoder
from codec_twins import fnv1a64, index_frame, read_at

from qatqfs.codec import (
    STRATEGIES,
    BytesSink,
    Container,
    ContainerHeader,
    ContainerWriter,
    DType,
    FileSink,
    IndexFrame,
    Level,
    LimitExceeded,
    MixedDtypes,
    PayloadTooShort,
    decode_container,
    empty_container,
    encode_container,
    encode_payload,
)

FOOTER = b"QATQFSix"


@pytest.mark.parametrize("level", [Level.FAST, Level.BALANCED])
@pytest.mark.parametrize("per_chunk", [1, 3, 8, 100])
@pytest.mark.parametrize("dtype", DType)
def test_content_of_every_length_survives_here_and_in_another_decoder(
    dtype: DType, per_chunk: int, level: Level
) -> None:
    for length in range(80):
        raw = random.Random(length).randbytes(length)
        data = encode_container(raw, dtype, values_per_chunk=per_chunk, level=level)
        assert decode_container(data) == raw
        decoded = strict_decoder.decode_container(data)
        assert decoded.raw == raw + bytes(-length % dtype.width)
        assert decoded.dtype == dtype.label
        assert strict_decoder.canonical_layout(decoded)


@pytest.mark.parametrize("dtype", DType)
def test_an_empty_container_is_72_bytes(dtype: DType) -> None:
    data = empty_container(dtype)
    assert len(data) == 72
    assert strict_decoder.decode_container(data).dtype == dtype.label
    assert Container.open(read_at(data), 72).length == 0


def test_a_single_chunk_of_whole_elements_has_no_index() -> None:
    assert FOOTER not in encode_container(bytes(range(200)), DType.F16, values_per_chunk=100)
    assert encode_container(bytes(range(201)), DType.F16, values_per_chunk=101).endswith(FOOTER)
    assert encode_container(bytes(range(200)), DType.F16, values_per_chunk=99).endswith(FOOTER)


def test_the_index_says_what_its_table_says() -> None:
    raw = random.Random(1).randbytes(501)
    data = encode_container(raw, DType.BF16, values_per_chunk=100)
    lengths, offset = [], 32
    while offset < len(data):
        lengths.append(int.from_bytes(data[offset : offset + 4], "big"))
        offset += 4 + lengths[-1]
    state = fnv1a64(data[32 : len(data) - 4 - lengths[-1]])
    expected = index_frame(501, state, 100, DType.BF16.wire, lengths)
    assert data.endswith(expected)
    assert len(expected) == IndexFrame.size(3)
    assert IndexFrame.parse(expected).pack() == expected


def test_the_last_payload_is_encoded_again_when_an_index_cannot_be_appended_to_it() -> None:
    raw = random.Random(1).randbytes(512)
    sink = BytesSink()
    writer = ContainerWriter(sink, DType.F16, 128)
    for start in (0, 256):
        writer.append(encode_payload(raw[start : start + 256], DType.F16, strategy=1))
    info = writer.finish(512)
    data = sink.getvalue()
    assert strict_decoder.decode_container(data).strategies[0] == 1
    assert strict_decoder.decode_container(data).raw == raw
    assert STRATEGIES[Container.open(read_at(data), len(data)).chunk_header(1).payload.strategy].zstd_offset == 0
    assert (info.size, info.chunk_count) == (len(data), 2)
    assert info.checksum == fnv1a64(data[32:]) == ContainerHeader.parse(data).checksum


def test_content_that_ends_like_an_index_gets_an_index_of_its_own() -> None:
    planes_end = b"".join(bytes([byte, 0]) for byte in b"xxxx" + FOOTER)
    data = encode_container(planes_end, DType.F16, values_per_chunk=100)
    for strategy in (1, 7):
        raw = planes_end if strategy == 7 else bytes(100) + b"AQQTSFxi"
        sink = BytesSink()
        writer = ContainerWriter(sink, DType.F16, 1000)
        writer.append(encode_payload(raw, DType.F16, strategy=strategy))
        writer.finish(len(raw))
        assert decode_container(sink.getvalue()) == raw
    assert decode_container(data) == planes_end


def test_a_finished_prefix_can_be_gone_on_with() -> None:
    raw = random.Random(3).randbytes(1000)
    old = encode_container(raw, DType.F16, values_per_chunk=100)
    index = Container.open(read_at(old), len(old)).index
    assert index is not None
    sink = BytesSink()
    writer = ContainerWriter.resume(sink, index)
    last = len(old) - index.payload_lengths[-1] - 4
    sink.write(old[32:last])
    longer = raw + b"more, and of odd length"
    for start in range(800, len(longer), 200):
        part = longer[start : start + 200]
        writer.append(encode_payload(part + b"\0" * (len(part) % 2), DType.F16))
    writer.finish(len(longer))
    assert decode_container(sink.getvalue()) == longer
    assert strict_decoder.decode_container(sink.getvalue()).raw[: len(longer)] == longer


@pytest.mark.parametrize("sizes", [[11], [1, 1, 9], [3, 0, 4, 4], [10, 1]])
def test_chunks_that_come_together_make_the_container_of_chunks_that_come_alone(sizes: list[int]) -> None:
    raws = [random.Random(i).randbytes(200) for i in range(10)] + [b"shorter!"]
    payloads = [encode_payload(raw, DType.F16, appendable=True) for raw in raws]
    alone, together = BytesSink(), BytesSink()
    writer = ContainerWriter(alone, DType.F16, 100)
    for payload in payloads:
        writer.append(payload)
    expected = writer.finish(2008)
    writer = ContainerWriter(together, DType.F16, 100)
    states, left = [], list(payloads)
    for size in sizes:
        states += writer.extend(left[:size])
        del left[:size]
    assert writer.finish(2008) == expected
    data = together.getvalue()
    assert data == alone.getvalue()
    assert strict_decoder.decode_container(data).raw == b"".join(raws)
    offsets = [32 + sum(len(payload) + 4 for payload in payloads[:i]) for i in range(11)]
    assert states == [fnv1a64(data[32:offset]) for offset in offsets]


def test_of_chunks_that_come_together_all_are_taken_or_none() -> None:
    good, short = encode_payload(bytes(8), DType.F16, appendable=True), encode_payload(bytes(2), DType.F16)
    sink = BytesSink()
    writer = ContainerWriter(sink, DType.F16, 4, max_chunks=4)
    writer.append(good)
    for more, error in (
        ([good, short, good], ValueError),
        ([good, encode_payload(bytes(8), DType.BF16)], MixedDtypes),
        ([good, good, good, good], LimitExceeded),
        ([good, b"QATQ"], PayloadTooShort),
    ):
        with pytest.raises(error):
            writer.extend(more)
    writer.extend([good])
    writer.finish(16)
    assert decode_container(sink.getvalue()) == bytes(16)


def test_too_many_chunks_are_refused() -> None:
    writer = ContainerWriter(BytesSink(), DType.F16, 1, max_chunks=2)
    payload = encode_payload(b"ab", DType.F16)
    writer.append(payload)
    writer.append(payload)
    with pytest.raises(LimitExceeded, match="chunks"):
        writer.append(payload)


def test_chunks_of_another_size_or_dtype_are_refused() -> None:
    writer = ContainerWriter(BytesSink(), DType.F16, 4)
    with pytest.raises(MixedDtypes):
        writer.append(encode_payload(bytes(8), DType.BF16))
    for count in (0, 5):
        with pytest.raises(ValueError, match="values"):
            writer.append(encode_payload(bytes(2 * count), DType.F16))
    writer.append(encode_payload(bytes(6), DType.F16))
    with pytest.raises(ValueError, match="last chunk"):
        writer.append(encode_payload(bytes(8), DType.F16))


@pytest.mark.parametrize(
    ("dtype", "raw", "true_length"),
    [
        (DType.F16, bytes(8), 6),
        (DType.F16, bytes(8), 9),
        (DType.F16, b"1234567\x01", 7),
        (DType.F32, bytes(8), 0),
        (DType.F32, bytes(8), 4),
        (DType.F32, bytes(8), 9),
        (DType.F32, b"123456\x01\x00", 6),
        (DType.F32, b"1234567\x01", 7),
    ],
)
def test_a_length_that_the_values_do_not_have_is_refused(dtype: DType, raw: bytes, true_length: int) -> None:
    writer = ContainerWriter(BytesSink(), dtype, 100)
    writer.append(encode_payload(raw, dtype))
    with pytest.raises(ValueError, match=r"hold|pad"):
        writer.finish(true_length)


def test_nothing_can_be_added_to_a_finished_container() -> None:
    writer = ContainerWriter(BytesSink(), DType.F16, 4)
    writer.finish(0)
    with pytest.raises(ValueError, match="finished"):
        writer.finish(0)
    with pytest.raises(ValueError, match="finished"):
        writer.append(encode_payload(bytes(8), DType.F16))


def test_nothing_can_be_added_to_a_container_whose_sink_has_failed() -> None:
    class Full(BytesSink):
        def write(self, data: bytes) -> None:
            if len(data) > 50:
                raise OSError("full")
            super().write(data)

    payload = encode_payload(random.Random(0).randbytes(100), DType.F16)
    writer = ContainerWriter(Full(), DType.F16, 50)
    writer.append(payload)
    with pytest.raises(OSError, match="full"):
        writer.append(payload)
    for more in (lambda: writer.append(payload), lambda: writer.extend([payload]), lambda: writer.finish(200)):
        with pytest.raises(ValueError, match="broken"):
            more()


def write_sample(sink: FileSink) -> None:
    writer = ContainerWriter(sink, DType.F16, 4)
    for _ in range(3):
        writer.append(encode_payload(b"abcdefgh", DType.F16))
    writer.finish(24)


def test_a_file_sink_writes_descriptors_and_file_objects(tmp_path: Path) -> None:
    expected = encode_container(b"abcdefgh" * 3, DType.F16, values_per_chunk=4)
    by_object = io.BytesIO()
    by_object.write(b"front")
    write_sample(FileSink(by_object))
    assert by_object.getvalue() == b"front" + expected
    path = tmp_path / "c"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_sample(FileSink(fd))
    finally:
        os.close(fd)
    assert path.read_bytes() == expected


def test_an_unfinished_container_is_none() -> None:
    sink = BytesSink()
    writer = ContainerWriter(sink, DType.F16, 4)
    for _ in range(3):
        writer.append(encode_payload(b"abcdefgh", DType.F16))
    with pytest.raises(ValueError, match="magic"):
        decode_container(sink.getvalue())


def test_a_payload_that_ends_in_a_frame_like_ours_gets_a_real_one_behind_it() -> None:
    strangers = bytes.fromhex("5b2a4d1838000000") + bytes(56)  # the magic and the size that ours has
    sink = BytesSink()
    writer = ContainerWriter(sink, DType.BF16, 100)
    writer.append(encode_payload(b"abcd" * 50, DType.BF16, strategy=7) + strangers)
    writer.finish(200)
    found = Container.from_buffer(sink.getvalue())
    assert found.indexed
    assert found.read(0, 300) == b"abcd" * 50
    assert decode_container(sink.getvalue()) == b"abcd" * 50
