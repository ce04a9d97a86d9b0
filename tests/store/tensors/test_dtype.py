"""The dtype of a file without a hint is found in its bytes, wherever in the file they are."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import wait_for_draft
from strict_decoder import decode_container

from qatqfs.codec import DType, encode_container
from qatqfs.store.tensors.dtype import choose_dtype, dtype_of_data
from qatqfs.store.tensors.header import Tensor, TensorHeader
from qatqfs.store.tuning import Tuning

ROWS, COLUMNS = 600, 128


def values(seed: int = 0) -> np.ndarray:
    """A K/V tensor [tokens, channels] of f32 whose channels have scales of their own."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(ROWS, COLUMNS)) * np.exp(rng.normal(scale=0.7, size=COLUMNS))).astype(np.float32)


def f32(tensor: np.ndarray) -> bytes:
    return tensor.astype("<f4").tobytes()


def f16(tensor: np.ndarray) -> bytes:
    return tensor.astype("<f2").tobytes()


def bf16(tensor: np.ndarray) -> bytes:
    return (tensor.view(np.uint32) >> 16).astype("<u2").tobytes()


WRITERS: dict[DType, Callable[[np.ndarray], bytes]] = {DType.F32: f32, DType.F16: f16, DType.BF16: bf16}


def found(content: bytes) -> DType:
    return dtype_of_data(len(content), lambda offset, size: content[offset : offset + size])


def chosen(content: bytes, path: bytes = b"cache/block_17.bin", explicit: DType | None = None) -> DType:
    return choose_dtype(path, len(content), lambda offset, size: content[offset : offset + size], explicit=explicit)


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_a_tensor_is_known_by_its_values(dtype: DType, scale: float) -> None:
    assert found(WRITERS[dtype](values() * np.float32(scale))) is dtype


@pytest.mark.parametrize("dtype", DType)
def test_a_transposed_or_a_paged_tensor_is_known_too(dtype: DType) -> None:
    tensor = values()[:592]
    paged = np.concatenate([part for i in range(0, 592, 16) for part in (tensor[i : i + 16], -tensor[i : i + 16])])
    for layout in (np.ascontiguousarray(tensor.T), paged):
        assert found(WRITERS[dtype](layout)) is dtype


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("rows", [2, 3, 8])
def test_few_values_are_enough(dtype: DType, rows: int) -> None:
    assert found(WRITERS[dtype](values()[:rows])) is dtype


@pytest.mark.parametrize("dtype", DType)
def test_a_header_or_pages_of_zeros_before_the_values_do_not_mislead(dtype: DType) -> None:
    raw = WRITERS[dtype](values())
    header = json.dumps({"shape": [ROWS, COLUMNS], "layers": [{"name": f"layer.{i}"} for i in range(99)]}).encode()
    for before in (header + b" " * (-len(header) % 8), bytes(4096), bytes(2_000_000)):
        assert found(before + raw) is dtype
    assert found(raw + bytes(2_000_000)) is dtype


@pytest.mark.parametrize("dtype", DType)
def test_a_large_pool_with_little_in_use_is_known_by_what_is(dtype: DType) -> None:
    raw = WRITERS[dtype](values())
    pool = bytearray(40_000_000)
    pool[23_456_768 : 23_456_768 + len(raw)] = raw
    assert found(bytes(pool)) is dtype


def test_f32_that_holds_bf16_values_is_f32() -> None:
    tensor = values()
    assert found(f32((tensor.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32))) is DType.F32


@pytest.mark.parametrize("other", [DType.F16, DType.BF16])
@pytest.mark.parametrize("share", [0.15, 0.5])
def test_values_of_both_widths_are_f32_for_that_costs_the_others_nothing(other: DType, share: float) -> None:
    wide = b"".join(f32(values(seed)) for seed in range(4))
    narrow = b"".join(WRITERS[other](values(seed)) for seed in range(50))[: int(len(wide) * (1 / share - 1)) // 4 * 4]
    for content in (wide + narrow, narrow + wide, narrow[: len(narrow) // 2 & ~3] + wide + narrow):
        assert found(content) is DType.F32
        sizes = {dtype: len(encode_container(content, dtype, values_per_chunk=65536)) for dtype in (DType.F32, other)}
        assert sizes[DType.F32] < sizes[other]


def test_f32_values_at_any_offset_are_f32() -> None:
    raw = f32(values())
    assert [found(b"\x80\x02c"[:offset] + raw) for offset in range(4)] == [DType.F32] * 4


def test_a_header_of_tensors_of_both_widths_says_f32_if_a_quarter_is() -> None:
    def stated(wide: int, narrow: int) -> DType | None:
        tensors = [Tensor(0, wide, DType.F32, ()), Tensor(wide, wide + narrow, DType.BF16, ())]
        return TensorHeader(tensors).dtype

    assert [stated(25, 75), stated(24, 76), stated(99, 1)] == [DType.F32, DType.BF16, DType.F32]


@pytest.mark.parametrize("content", [b"", b"a", bytes(4096), bytes(3_000_000), b"\x80" * 7])
def test_what_says_nothing_is_of_16_bits(content: bytes) -> None:
    assert found(content) is DType.BF16


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_the_length_decides_nothing(cut: int) -> None:
    assert chosen(f32(values())[:-cut]) is DType.F32
    assert chosen(f16(values())[:-cut]) is DType.F16
    assert chosen(f16(values())[:-cut], explicit=DType.F32) is DType.F32


def test_what_somebody_said_wins_then_the_name_then_a_header_then_the_bytes() -> None:
    raw = f16(values())
    assert chosen(raw, b"x.f32", DType.BF16) is DType.BF16
    assert chosen(raw, b"x.f32") is DType.F32
    header = json.dumps({"t": {"dtype": "BF16", "shape": [len(raw) // 2], "data_offsets": [0, len(raw)]}}).encode()
    header += b" " * (-len(header) % 8)
    assert chosen(struct.pack("<Q", len(header)) + header + raw, b"x.safetensors") is DType.BF16
    assert chosen(raw, b"x.bin") is DType.F16


def test_a_file_of_a_store_gets_the_dtype_of_its_values(open_store, backing) -> None:
    store = open_store(chunk_size=65536)
    raw = bytes(8192) + f32(values())
    with store.create(b"dump.bin") as handle:
        handle.write(raw, 0)
    store.sync()
    assert decode_container((backing / "dump.bin.qatc").read_bytes()).dtype == "f32"


def test_a_beginning_that_misleads_is_corrected_before_the_commit(open_store, backing: Path) -> None:
    store = open_store(chunk_size=65536, tuning=Tuning(ahead_bytes=16 * 65536, claim_bytes=16 * 65536))
    halves = bf16(np.concatenate([values(seed) for seed in range(10)]))
    content = halves + b"".join(f32(values(seed)) for seed in range(20))
    with store.create(b"dump.bin") as handle:
        for offset in range(0, len(content), 65536):
            handle.write(content[offset : offset + 65536], offset)
            if offset == 20 * 65536:
                wait_for_draft(handle, 8)
                assert handle.node.staging.draft.dtype is DType.BF16
    store.sync()
    decoded = decode_container((backing / "dump.bin.qatc").read_bytes())
    assert (decoded.dtype, decoded.raw) == ("f32", content)
