"""Choose the dtype of a file's values: by an attribute or a rule, else by its name, its header, or its bytes.

A wrong choice costs size, but never content. A file of any length can have any dtype.
"""

import os

import numpy as np
import numpy.typing as npt

from qatqfs.codec import DType, Level, encode_payload
from qatqfs.store.paths import split
from qatqfs.store.tensors.header import Sampler, TensorHeader, read_header

DTYPE_XATTR = b"user.qatqfs.dtype"
"""Extended attribute, on a file or a directory above it, whose value names the dtype (``bf16``)."""

_SUFFIXES = {
    b"f32": DType.F32,
    b"fp32": DType.F32,
    b"f16": DType.F16,
    b"fp16": DType.F16,
    b"bf16": DType.BF16,
}
_FALLBACK_16_BIT = DType.BF16
_PROBE_BYTES = 4096
_PROBES = 64
_MORE_PROBES = 1024
"""Number of probes if the first ones found nothing but zeros, as in a pool of which only one page is in use."""
_CLEARLY_SMALLER = 0.985
"""Share of the 16-bit size below which values are f32. Pairs of 16-bit values take nearly the same size both ways."""
_PARTS = 8
"""Number of parts of a file's samples that are judged separately. Some f32 values among 16-bit ones show in a part."""
_PART_BYTES = 16 << 10
"""Least bytes of a part. In smaller ones, tables of symbols matter more than the values."""
_F16_BITS = 2.8
"""Entropy of bits 9 to 7 of a value, given the bits above, from which on they are the top of a mantissa."""


def dtype_of_suffix(path: bytes) -> DType | None:
    """Return the dtype that the last extension of a path names (``.bf16``, ``.f32le`` ...)."""
    _, name = split(path)
    stem, dot, extension = name.lower().rpartition(b".")
    return _SUFFIXES.get(extension.removesuffix(b"le")) if dot and stem else None


def dtype_of_data(size: int, sampler: Sampler) -> DType:
    """Return the most probable dtype of a file's values, judged by samples from all over the file.

    The element width is the one in which the samples take fewer bytes. With the wrong width, a plane has bytes of
    different meaning: f32 values take 5 % more as 16-bit values, while the reverse costs nothing. So a file is f32 if
    any part of it clearly is and the whole does not take more.
    """
    sample = _sample(size, sampler)
    if len(sample) == 0:
        return _FALLBACK_16_BIT
    size = max(_PART_BYTES, -(-len(sample) // (4 * _PARTS)) * 4)
    parts = [sample[start : start + size] for start in range(0, len(sample), size)]
    if _f32_share(sample) < 1 and any(_f32_share(part) < _CLEARLY_SMALLER for part in parts):
        return DType.F32
    return label_of_halves(sample.view("<u2"))


def _f32_share(sample: npt.NDArray[np.uint8]) -> float:
    """Return the size of a sample encoded as f32, as a share of its size encoded as 16-bit values."""
    half, full = (len(encode_payload(sample.data, dtype, level=Level.FAST)) for dtype in (_FALLBACK_16_BIT, DType.F32))
    return full / half


def label_of_halves(values: npt.NDArray[np.uint16]) -> DType:
    """Return whether 16-bit patterns look like f16 or bf16; both encode alike.

    In f16, bits 9 to 7 are the top of the mantissa and nearly uniform. In bf16 they are the low end of the exponent,
    which has only the few magnitudes of a tensor. Zeros say nothing.
    """
    values = values[values & 0x7FFF != 0]
    if len(values) == 0:
        return _FALLBACK_16_BIT
    counts = np.bincount(values >> 7, minlength=512).reshape(64, 8).astype(np.float64)
    above = counts.sum(axis=1)
    bits = (_xlogx(above).sum() - _xlogx(counts).sum()) / len(values)
    # With few values the entropy comes out too small (Miller and Madow's correction).
    bits += (np.count_nonzero(counts) - np.count_nonzero(above)) / (2 * np.log(2) * len(values))
    return DType.F16 if bits > _F16_BITS else DType.BF16


def _xlogx(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return counts * np.log2(np.maximum(counts, 1))


def _sample(size: int, sampler: Sampler) -> npt.NDArray[np.uint8]:
    """Return a multiple of four bytes from all over a file, without stretches of one byte repeated."""
    size -= size % 4
    if size <= _PROBES * _PROBE_BYTES:
        return _varied(sampler(0, size))
    for probes in (_PROBES, _MORE_PROBES):
        step = (size - _PROBE_BYTES) / (probes - 1)
        offsets = sorted({int(i * step) // 4 * 4 for i in range(probes)})
        found = np.concatenate([_varied(sampler(offset, _PROBE_BYTES)) for offset in offsets])
        if len(found):
            break
    return found


def _varied(probe: bytes) -> npt.NDArray[np.uint8]:
    """Return the blocks of a probe that are not one byte repeated."""
    probe = probe[: len(probe) // 4 * 4]
    blocks = [probe[i : i + _PROBE_BYTES] for i in range(0, len(probe), _PROBE_BYTES)]
    kept = [block for block in blocks if block.count(block[0]) < len(block)]
    return np.frombuffer(b"".join(kept), np.uint8)


def choose_dtype(
    path: bytes, size: int, sampler: Sampler, *, explicit: DType | None, header: TensorHeader | None = None
) -> DType:
    """Choose the dtype of a logical file.

    Args:
        path: the file's logical path.
        size: its length in bytes.
        sampler: reads parts of it.
        explicit: dtype that the attribute or a rule names, which is always taken.
        header: of the file, if it was read already.

    Raises:
        OSError: what the sampler raised.
    """
    chosen = explicit or dtype_of_suffix(path)
    if chosen is None:
        chosen = (read_header(size, sampler) if header is None else header).dtype
    if chosen is None:
        chosen = dtype_of_data(size, sampler)
    return chosen


def parse_xattr(value: bytes) -> DType | None:
    """Parse the value of the dtype attribute; return ``None`` if it names no dtype."""
    try:
        return DType.parse(value.decode("ascii").strip())
    except ValueError:
        return None


def xattr_dtype(path: str) -> DType | None:
    """Return the dtype that the attribute on one file or directory names, if it has one."""
    try:
        return parse_xattr(os.getxattr(path, DTYPE_XATTR))
    except OSError:
        return None
