"""Which dtype a file's values have: what somebody said, else its name, else its header, else its bytes.

A wrong choice costs size, never content. Lengths that are no multiple of four always get a 16-bit dtype.
"""

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Callable

from qatqfs.codec import DType, Level, encode_payload
from qatqfs.store.names import split

DTYPE_XATTR = b"user.qatqfs.dtype"
"""Extended attribute, on a file or a directory above it, whose value names the dtype (``bf16``)."""

_SUFFIXES = {
    b"f32": DType.F32,
    b"fp32": DType.F32,
    b"f16": DType.F16,
    b"fp16": DType.F16,
    b"bf16": DType.BF16,
}
_SAFETENSORS = {"F32": DType.F32, "F16": DType.F16, "BF16": DType.BF16}
_NPY = {"<f4": DType.F32, "<f2": DType.F16, "|V2": DType.BF16, "<V2": DType.BF16}
_NPY_DESCR = re.compile(rb"'descr':\s*'([^']{1,8})'")
_FALLBACK_16_BIT = DType.BF16
_HEADER_BYTES = 1 << 20
_SAMPLE_BYTES = 64 * 1024
_SAMPLES = 4

Sampler = Callable[[int, int], bytes]
"""``sampler(offset, size)`` returns that part of the logical file, shorter at its end."""


def dtype_of_suffix(path: bytes) -> DType | None:
    """Return the dtype that the last extension of a path names (``.bf16``, ``.f32le`` ...)."""
    _, name = split(path)
    stem, dot, extension = name.lower().rpartition(b".")
    return _SUFFIXES.get(extension.removesuffix(b"le")) if dot and stem else None


def dtype_of_header(path: bytes, size: int, sampler: Sampler) -> DType | None:
    """Return the dtype that most bytes of a .safetensors file have, or that an .npy file states."""
    lowered = path.lower()
    if lowered.endswith(b".safetensors"):
        return _safetensors_dtype(size, sampler)
    if lowered.endswith(b".npy"):
        head = sampler(0, 512)
        found = _NPY_DESCR.search(head) if head.startswith(b"\x93NUMPY") else None
        return _NPY.get(found[1].decode("ascii", "replace")) if found else None
    return None


def _safetensors_dtype(size: int, sampler: Sampler) -> DType | None:
    prefix = sampler(0, 8)
    if len(prefix) < 8:
        return None
    (length,) = struct.unpack("<Q", prefix)
    if length > min(size - 8, _HEADER_BYTES) or length % 2:
        return None  # not a header, one too large to look into, or data off the 16-bit grid
    weights: Counter[DType] = Counter()
    try:
        for name, tensor in json.loads(sampler(8, length)).items():
            dtype = _SAFETENSORS.get(tensor["dtype"]) if name != "__metadata__" else None
            if dtype is not None:
                begin, end = tensor["data_offsets"]
                weights[dtype] += int(end) - int(begin)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not weights:
        return None
    best = weights.most_common(1)[0][0]
    return best if length % best.width == 0 else None


def dtype_of_data(size: int, sampler: Sampler) -> DType:
    """Encode samples from all over the file in both element widths and return the smaller's dtype.

    What is 16 bits wide is labelled bf16: both 16-bit dtypes encode alike.
    """
    if size <= _SAMPLES * _SAMPLE_BYTES:
        offsets = [0]
        length = size
    else:
        length = _SAMPLE_BYTES
        step = (size - length) // (_SAMPLES - 1)
        offsets = [i * step // 4 * 4 for i in range(_SAMPLES)]
    totals: Counter[DType] = Counter()
    for offset in offsets:
        sample = sampler(offset, length)
        sample = sample[: len(sample) // 4 * 4]
        for dtype in (_FALLBACK_16_BIT, DType.F32):
            totals[dtype] += len(encode_payload(sample, dtype, level=Level.FAST))
    return DType.F32 if totals[DType.F32] < totals[_FALLBACK_16_BIT] else _FALLBACK_16_BIT


def choose_dtype(path: bytes, size: int, sampler: Sampler, *, explicit: DType | None) -> DType:
    """Choose the dtype of a logical file.

    Args:
        path: its logical path.
        size: its length in bytes.
        sampler: reads parts of it.
        explicit: what the xattr or a rule says; it wins, unless the length forbids it.

    Raises:
        OSError: what the sampler raised.
    """
    chosen = explicit or dtype_of_suffix(path) or dtype_of_header(path, size, sampler)
    if size % DType.F32.width:
        return chosen if chosen is not None and chosen.width == 2 else _FALLBACK_16_BIT
    if chosen is None:
        return dtype_of_data(size, sampler) if size else _FALLBACK_16_BIT
    return chosen


def parse_xattr(value: bytes) -> DType | None:
    """Read the value of the dtype attribute; ``None`` for one that names no dtype."""
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
