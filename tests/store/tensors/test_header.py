"""What a header says about the tensors in a file reaches the encoder as a hint, and a header that lies does no harm."""

import io
import json
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mounted import errno_of
from strict_decoder import decode_container

from qatqfs.codec import Container, DType
from qatqfs.store import Store
from qatqfs.store.tensors.dtype import choose_dtype
from qatqfs.store.tensors.header import NO_HEADER, TensorHeader, read_header

HALVES = DType.BF16
EVERYTHING = 1 << 62


def header_of(content: bytes, size: int | None = None) -> TensorHeader:
    return read_header(len(content) if size is None else size, lambda offset, n: content[offset : offset + n])


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_text(text: bytes, version: int = 1) -> bytes:
    """An .npy header of any text."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def safetensors(tensors: object) -> bytes:
    """A .safetensors header of anything, padded to whole f32 values."""
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def tensor(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def wide_rows(rows: int, width: int) -> np.ndarray:
    """A K tensor [tokens, channels], as 16-bit patterns: a channel seldom changes, and then in its lowest bits."""
    rng = np.random.default_rng(width)
    changes = rng.integers(0, 4, (rows, width)) * (rng.random((rows, width)) < 0.3)
    changes[0] = rng.integers(0, 1 << 16, width)
    return np.bitwise_xor.accumulate(changes).astype("<u2")


# -- .npy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((), ()),
        ((100,), ()),
        ((7, 384), (384,)),
        ((7, 1, 384), (384,)),
        ((16, 12, 32), (32, 384)),
        ((4, 2, 6, 16, 12, 32), (32, 384, 6144, 36864)),
        ((5, 0), ()),
    ],
)
def test_an_npy_header_names_the_products_of_the_last_dimensions(version, shape, widths) -> None:
    content = npy(np.zeros(shape, np.float16), version)
    assert header_of(content).row_widths(0, EVERYTHING, HALVES) == widths


def test_in_fortran_order_the_first_dimension_is_the_fastest() -> None:
    content = npy(np.zeros((32, 12, 16), np.float16, order="F"))
    assert header_of(content).row_widths(0, EVERYTHING, HALVES) == (32, 384)


@pytest.mark.parametrize(
    ("dtype", "widths"),
    [("<f2", (64,)), ("|V2", (64,)), ("<f4", (128,)), ("<f8", (256,)), ("<i2", (64,)), ("|i1", (32,)), (">f2", (64,))],
)
def test_widths_are_in_elements_of_the_container_whatever_the_values_are(dtype, widths) -> None:
    assert header_of(npy(np.zeros((9, 64), dtype))).row_widths(0, EVERYTHING, HALVES) == widths


def test_rows_of_an_odd_number_of_bytes_are_no_rows_of_16_bit_elements() -> None:
    assert header_of(npy(np.zeros((9, 63), np.int8))).row_widths(0, EVERYTHING, HALVES) == ()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("<f4", DType.F32), ("<f2", DType.F16), ("|V2", DType.BF16), ("<i4", None), (">f4", None), ("<f8", None)],
)
def test_the_dtype_is_the_one_that_an_npy_header_states(dtype, expected) -> None:
    assert header_of(npy(np.zeros((9, 64), dtype))).dtype is expected


def test_values_off_their_grid_have_no_dtype() -> None:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 64), }"
    assert {shift: header_of(npy_text(text + b" " * shift)).dtype for shift in range(4)} == {
        0: None,
        1: None,
        2: DType.F32,
        3: None,
    }


# -- .safetensors ------------------------------------------------------------------------------------------------


def test_each_part_of_a_safetensors_file_has_the_widths_of_the_tensors_in_it() -> None:
    head = safetensors(
        {
            "__metadata__": {"format": "pt"},
            "b": tensor("F16", [50, 20], 6000, 8000),
            "a": tensor("BF16", [100, 30], 0, 6000),
            "c": tensor("F32", [10, 5, 40], 8000, 16000),
            "scalar": tensor("F16", [], 16000, 16002),
        }
    )
    header, start = header_of(head), len(head)
    assert header.row_widths(0, start, HALVES) == ()
    assert header.row_widths(0, start + 1, HALVES) == (30,)
    assert header.row_widths(start + 5999, start + 6000, HALVES) == (30,)
    assert header.row_widths(start + 5999, start + 6001, HALVES) == (20, 30)
    assert header.row_widths(start + 6000, start + 8000, HALVES) == (20,)
    assert header.row_widths(start + 7000, start + 9000, HALVES) == (20, 80, 400)
    assert header.row_widths(start + 16000, EVERYTHING, HALVES) == ()
    assert header.dtype is DType.F32


def test_the_tensors_that_have_most_of_a_part_propose_its_widths() -> None:
    sizes = {i: 2 * i * (100 + i) for i in range(1, 50)}
    head = safetensors({str(i): tensor("F16", [i, 100 + i], i << 20, (i << 20) + size) for i, size in sizes.items()})
    assert header_of(head).row_widths(0, EVERYTHING, HALVES) == (146, 147, 148, 149)


def test_a_header_is_known_by_its_content_and_not_by_the_name() -> None:
    content = npy(np.zeros((300, 64), np.float16))
    sampler = lambda offset, n: content[offset : offset + n]  # noqa: E731
    assert choose_dtype(b"kv/block_17", len(content), sampler, explicit=None) is DType.F16


# -- headers that lie --------------------------------------------------------------------------------------------

HUGE = 1 << 70
DAMAGED = {
    "nothing": b"",
    "a magic and no more": b"\x93NUMPY",
    "an unknown version": npy_text(b"{'descr': '<f2', 'shape': (4, 4)}", version=9),
    "no shape": npy_text(b"{'descr': '<f2'}"),
    "a structure": npy_text(b"{'descr': [('x', '<f2')], 'shape': (4, 4)}"),
    "a negative shape": npy_text(b"{'descr': '<f2', 'shape': (-4, 4)}"),
    "a shape beyond all files": npy_text(b"{'descr': '<f2', 'shape': (9999999999, 9999999999)}"),
    "a number of many digits": npy_text(b"{'descr': '<f2', 'shape': (" + b"9" * 60_000 + b", 4)}"),
    "a shape of many numbers": npy_text(b"{'descr': '<f2', 'shape': (" + b"1, " * 20_000 + b")}"),
    "values of no bytes": npy_text(b"{'descr': '|V0', 'shape': (4, 4)}"),
    "a length beyond the file": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr': '<f2', 'shape': (4, 4)}",
    "a JSON length beyond the file": struct.pack("<Q", 1 << 63) + b'{"a": 1}',
    "no JSON": safetensors(b'{"a": '),
    "bytes that are no text": safetensors(b'{"\xff\xfe": 1}'),
    "deep JSON": safetensors(b'{"a":' * 150_000),
    "deep JSON in a list": safetensors(b'{"a":' + b"[" * 500_000),
    "a list": safetensors(b"{}"[:1] + b"[]"),
    "entries that are none": safetensors({"a": 1, "b": None, "c": [], "d": "e", "f": {}}),
    "a shape that is none": safetensors({"a": {"dtype": "F16", "shape": 3, "data_offsets": [0, 8]}}),
    "numbers that are none": safetensors({"a": {"dtype": "F16", "shape": [1.5, True], "data_offsets": [0, 8]}}),
    "infinite offsets": safetensors(b'{"a": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 1e999]}}'),
    "a dtype that is none": safetensors({"a": {"dtype": ["F16"], "shape": [2, 2], "data_offsets": [0, 8]}}),
    "a negative dimension": safetensors({"a": tensor("F16", [-2, -2], 0, 8)}),
    "a dimension beyond all files": safetensors({"a": tensor("F16", [HUGE, 2], 0, 8)}),
    "many dimensions": safetensors({"a": tensor("F16", [(1 << 62)] * 40_000, 0, 8)}),
    "offsets beyond all files": safetensors({"a": tensor("F16", [2, 2], HUGE, HUGE + 8)}),
    "a sum of offsets beyond all files": safetensors({"a": tensor("F16", [2, 2], 0, (1 << 63) - 1)}),
    "negative offsets": safetensors({"a": tensor("F16", [2, 2], -8, 0)}),
    "offsets in the wrong order": safetensors({"a": tensor("F16", [2, 2], 8, 0)}),
    "three offsets": safetensors({"a": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 4, 8]}}),
    "more values than bytes": safetensors({"a": tensor("F16", [1000, 1000], 0, 7)}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_header_that_is_none_says_nothing(name: str) -> None:
    header = header_of(DAMAGED[name], max(len(DAMAGED[name]), 1 << 40) if "beyond the file" not in name else None)
    assert header.row_widths(0, EVERYTHING, HALVES) == ()
    assert header.row_widths(0, EVERYTHING, DType.F32) == ()


def test_tensors_that_overlap_are_no_tensors() -> None:
    entries = {str(i): tensor("F16", [5, 100 + i], i, i + 1000 + i * 10) for i in range(500)}
    found = header_of(safetensors(entries))
    assert [(found.tensors[0].stop - found.tensors[0].start, len(found.tensors))] == [(1000, 1)]


def test_a_header_too_large_to_look_into_is_not_read() -> None:
    asked: list[int] = []

    def sampler(offset: int, size: int) -> bytes:
        asked.append(size)
        return (struct.pack("<Q", 1 << 40) + b"{" + bytes(100))[offset : offset + size]

    assert read_header(1 << 50, sampler) is NO_HEADER
    assert sum(asked) < 100


_sizes = st.integers(-(1 << 66), 1 << 66) | st.integers(0, 300) | st.none() | st.floats() | st.booleans()
_json = st.recursive(_sizes | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
_entry = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "U64", "", "F4"]) | _json,
        "shape": st.lists(_sizes) | _json,
        "data_offsets": st.lists(_sizes, min_size=2, max_size=2) | _json,
    }
)
_json_headers = st.dictionaries(st.text(), _entry | _json).map(
    lambda entries: safetensors(json.dumps(entries).encode())
)
_npy_headers = st.builds(
    lambda version, descr, order, shape: npy_text(
        f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {tuple(shape)}, }}".encode("utf-8", "replace"),
        version,
    ),
    st.integers(0, 4),
    st.sampled_from(["<f2", "<f4", "|V2", ">i8", "|u1", "<U7"]) | st.text(),
    st.booleans(),
    st.lists(_sizes),
)
_headers = _json_headers | _npy_headers | st.binary()


@given(_headers, st.integers(0, 1 << 64), st.integers(0, 200), st.integers(0, 1 << 64), st.integers(0, 1 << 64))
@settings(max_examples=1500, deadline=None)
def test_no_header_does_harm(content: bytes, size: int, cut: int, start: int, length: int) -> None:
    content = content[: max(len(content) - cut, 0)] if cut < 100 else content

    def sampler(offset: int, n: int) -> bytes:
        assert offset >= 0 and 0 <= n <= 1 << 20 and offset + n <= size
        return content[offset : offset + n]

    header = read_header(size, sampler)
    assert header.dtype in (*DType, None)
    end = 0
    for found in header.tensors:
        assert end <= found.start < found.stop
        end = found.stop
    for dtype in DType:
        widths = header.row_widths(start, start + length, dtype)
        assert len(widths) <= 4 and list(widths) == sorted(set(widths))
        assert all(0 < width <= 1 << 63 for width in widths)


# -- on the way to a container -----------------------------------------------------------------------------------

WIDTH = 6000
"""Elements; the data alone is searched for rows up to 4,096 wide."""


def filters(path: Path) -> set[tuple[int, int]]:
    """Return strategy and, for the XOR with the row before, stride of each chunk."""
    container = Container.from_buffer(path.read_bytes())
    found = set()
    for i in range(container.chunk_count):
        payload = bytes(container.raw_chunk(i))
        found.add((payload[32], int.from_bytes(payload[36:40], "big") if payload[32] == 10 else 0))
    return found


def dumps() -> dict[str, bytes]:
    rows = wide_rows(120, WIDTH)
    entries = {
        "model.a": tensor("F16", [60, 2, WIDTH // 2], 0, 120 * WIDTH),
        "model.b": tensor("BF16", [60, 1, WIDTH], 120 * WIDTH, 240 * WIDTH),
    }
    return {
        "npy": npy(rows.view(np.float16)),
        "fortran.npy": npy(np.asfortranarray(rows.view(np.float16).T)),
        "safetensors": safetensors(entries) + rows.tobytes(),
    }


@pytest.mark.parametrize("name", dumps())
def test_rows_wider_than_the_data_is_searched_for_are_found_by_the_header_only(
    open_store, backing: Path, name: str
) -> None:
    store: Store = open_store(chunk_size=256 * 1024)
    content = dumps()[name]
    without_header = wide_rows(120, WIDTH).tobytes()
    for path, data in ((b"with", content), (b"without.bf16", without_header)):
        with store.create(path) as handle:
            handle.write(data, 0)
    store.sync()
    assert filters(backing / "with.qatc") == {(10, WIDTH)}
    assert 10 not in {strategy for strategy, _ in filters(backing / "without.bf16.qatc")}
    assert decode_container((backing / "with.qatc").read_bytes()).raw == content
    assert (backing / "with.qatc").stat().st_size < 0.6 * (backing / "without.bf16.qatc").stat().st_size


def test_what_is_encoded_ahead_knows_the_header_too(open_store, backing: Path) -> None:
    store: Store = open_store(chunk_size=256 * 1024)
    content = npy(wide_rows(1400, WIDTH).view(np.float16))
    with store.create(b"x.npy") as handle:
        for offset in range(0, len(content), 1 << 18):
            handle.write(content[offset : offset + (1 << 18)], offset)
        deadline = time.monotonic() + 60
        while not store.stats().get("chunks_encoded") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert store.stats()["chunks_encoded"] and not store.stats().get("commits")
    store.sync()
    assert filters(backing / "x.npy.qatc") == {(10, WIDTH)}
    assert decode_container((backing / "x.npy.qatc").read_bytes()).raw == content


def test_a_chunk_that_is_changed_later_still_has_the_header_of_its_file(open_store, backing: Path) -> None:
    store: Store = open_store(chunk_size=256 * 1024)
    content = bytearray(npy(wide_rows(200, WIDTH).view(np.float16)))
    with store.create(b"x.npy") as handle:
        handle.write(bytes(content), 0)
    store.sync()
    content[1_000_000:1_000_002] = b"ab"
    with store.open(b"x.npy", os.O_RDWR) as handle:
        handle.write(b"ab", 1_000_000)
    store.sync()
    assert filters(backing / "x.npy.qatc") == {(10, WIDTH)}
    assert decode_container((backing / "x.npy.qatc").read_bytes()).raw == bytes(content)


def test_a_damaged_first_chunk_keeps_no_other_from_being_committed(open_store, backing: Path) -> None:
    store: Store = open_store(chunk_size=65536)
    content = bytearray(npy(wide_rows(30, WIDTH).view(np.float16)))
    with store.create(b"x.npy") as handle:
        handle.write(bytes(content), 0)
    store.sync()
    store.close()
    stored = bytearray((backing / "x.npy.qatc").read_bytes())
    stored[32 + 4 + 28 + 200] ^= 1
    (backing / "x.npy.qatc").write_bytes(stored)
    store = open_store(chunk_size=65536)
    with store.open(b"x.npy", os.O_RDWR) as handle:
        handle.write(b"ab" * 8, 200_000)
    store.sync()
    with store.open(b"x.npy") as handle:
        assert handle.read(16, 200_000) == b"ab" * 8
        assert errno_of(handle.read, 16, 0) == "EIO"


@pytest.mark.parametrize("name", ["deep JSON", "infinite offsets", "a number of many digits", "many dimensions"])
def test_a_file_with_a_header_that_lies_is_committed_like_any_other(open_store, backing: Path, name: str) -> None:
    store: Store = open_store(chunk_size=65536)
    content = DAMAGED[name] + np.random.default_rng(0).normal(size=50_000).astype("<f2").tobytes()
    with store.create(b"x.safetensors") as handle:
        handle.write(content, 0)
    store.sync()
    decoded = decode_container((backing / "x.safetensors.qatc").read_bytes())
    assert decoded.raw[: len(content)] == content


@pytest.mark.parametrize("width", [1, 2, 4095, 4096, 4097, 6001, 59_999, 60_000, 61_000, 1 << 40])
def test_a_wrong_width_makes_nothing_larger(open_store, backing: Path, width: int) -> None:
    store: Store = open_store(chunk_size=256 * 1024)
    values = np.random.default_rng(1).normal(size=60_000).astype("<f2").tobytes()
    text = b"{'descr': '<f2', 'fortran_order': False, 'shape': (%d, %d), }" % (max(60_000 // width, 1), width)
    content = npy_text(text.ljust(118)) + values
    for path, data in ((b"lying", content), (b"silent", bytes(128) + values)):
        with store.create(path) as handle:
            handle.write(data, 0)
    store.sync()
    lying, silent = ((backing / name).stat().st_size for name in ("lying.qatc", "silent.qatc"))
    assert lying <= silent + 200
    assert decode_container((backing / "lying.qatc").read_bytes()).raw == content
