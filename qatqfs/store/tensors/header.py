"""Read what the beginning of a file says about the tensors in it: .npy and .safetensors.

The format is recognized by content, because many runtimes give such files other names. A header only guides the
encoder, so it is checked only as far as reading it safely requires. A wrong header costs size at most. Files of other
formats say nothing, and neither do headers that are damaged, cut off or too large.

Formats: numpy.lib.format (versions 1.0 to 3.0), and the README of huggingface/safetensors.
"""

import bisect
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from qatqfs.codec import DType
from qatqfs.codec.stride import row_widths

Sampler = Callable[[int, int], bytes]
"""``sampler(offset, size)`` returns that part of the logical file, shorter at its end."""

_HEADER_BYTES = 1 << 20
_MOST_WIDTHS = 4
"""Row widths proposed for one chunk: each takes a few microseconds."""
_F32_SHARE = 4
"""A file is f32 if one byte in so many belongs to f32 values."""
_MOST_DIMENSIONS = 64
"""Numpy's own limit. Products of many more dimensions would take seconds."""
_LARGEST = 1 << 63
"""Bytes that no file, and so no tensor in a file, has."""

_NPY_MAGIC = b"\x93NUMPY"
_NPY_LENGTHS = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}
_NPY_DESCR = re.compile(rb"'descr':\s*'([<>|=]?[a-zA-Z](\d{1,4}))'")
_NPY_FORTRAN = re.compile(rb"'fortran_order':\s*True\b")
_NPY_SHAPE = re.compile(rb"'shape':\s*\(([\d,\sL]{0,1000})\)")
_NPY_DTYPES = {b"<f4": DType.F32, b"<f2": DType.F16, b"|V2": DType.BF16, b"<V2": DType.BF16}
_SAFETENSORS_LENGTH = struct.Struct("<Q")
_SAFETENSORS_DTYPES = {"F32": DType.F32, "F16": DType.F16, "BF16": DType.BF16}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        start: byte offset of its first value.
        stop: where it ends.
        dtype: of its values, ``None`` for a type without strategies of its own.
        row_bytes: possible distances in bytes between a value and the one in the row above.
    """

    start: int
    stop: int
    dtype: DType | None
    row_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """The tensors of a file.

    Attributes:
        tensors: those with any bytes, in the order of the file. None overlaps another.
    """

    tensors: Sequence[Tensor] = field(default=())

    @property
    def dtype(self) -> DType | None:
        """The dtype of most bytes, or f32 if a quarter of the bytes is f32.

        As f32, 16-bit values take no more, but the reverse costs size. ``None`` if no tensor has a dtype with
        strategies, or if the first tensor does not start on a multiple of its width.
        """
        weights: Counter[DType] = Counter()
        for tensor in self.tensors:
            if tensor.dtype is not None:
                weights[tensor.dtype] += tensor.stop - tensor.start
        if not weights:
            return None
        most = weights.most_common(1)[0][0]
        best = DType.F32 if _F32_SHARE * weights[DType.F32] >= weights.total() else most
        return best if self.tensors[0].start % best.width == 0 else None

    def row_widths(self, start: int, stop: int, dtype: DType) -> tuple[int, ...]:
        """Return possible widths of a row in a part of the file, the narrowest first, four at most.

        Args:
            start: of the part, in bytes.
            stop: where the part ends.
            dtype: the widths are counted in elements of this type.
        """
        weights: Counter[int] = Counter()
        first = bisect.bisect_right(self.tensors, start, key=lambda tensor: tensor.start)
        for i in range(max(first - 1, 0), len(self.tensors)):
            tensor = self.tensors[i]
            if tensor.start >= stop:
                break
            shared = min(stop, tensor.stop) - max(start, tensor.start)
            for row in tensor.row_bytes if shared > 0 else ():
                if row % dtype.width == 0:
                    weights[row // dtype.width] += shared
        return tuple(sorted(width for width, _ in weights.most_common(_MOST_WIDTHS)))

    def row_widths_of_chunks(self, chunks: range, chunk_size: int, dtype: DType) -> list[tuple[int, ...]]:
        """Return :meth:`row_widths` of each of some chunks, given by their numbers and size in bytes."""
        return [self.row_widths(chunk * chunk_size, (chunk + 1) * chunk_size, dtype) for chunk in chunks]


NO_HEADER = TensorHeader()


def read_header(size: int, sampler: Sampler) -> TensorHeader:
    """Read the header of a file; return :data:`NO_HEADER` if it has none of a known format.

    Args:
        size: bytes of the file, or of what was written of it so far.
        sampler: reads parts of it.

    Raises:
        OSError: what the sampler raised.
    """
    beginning = sampler(0, min(size, 12))
    if beginning.startswith(_NPY_MAGIC):
        tensors = _npy(beginning, size, sampler)
    elif beginning[8:9] == b"{":
        tensors = _safetensors(beginning, size, sampler)
    else:
        return NO_HEADER
    return TensorHeader(_apart(tensors)) if tensors else NO_HEADER


def _npy(beginning: bytes, size: int, sampler: Sampler) -> list[Tensor]:
    length_field = _NPY_LENGTHS.get(beginning[6]) if len(beginning) == 12 else None
    if length_field is None:
        return []
    (length,) = length_field.unpack_from(beginning, 8)
    start = 8 + length_field.size
    if length > min(size - start, _HEADER_BYTES):
        return []
    text = sampler(start, length)
    descr, shape_text = _NPY_DESCR.search(text), _NPY_SHAPE.search(text)
    if descr is None or shape_text is None:
        return []
    shape = [int(number) for number in re.findall(rb"\d{1,20}", shape_text[1])]
    if _NPY_FORTRAN.search(text):
        shape.reverse()
    start += length
    size = math.prod(shape) * int(descr[2])
    return _tensor(start, start + size, shape, _NPY_DTYPES.get(descr[1]))


def _safetensors(beginning: bytes, size: int, sampler: Sampler) -> list[Tensor]:
    (length,) = _SAFETENSORS_LENGTH.unpack_from(beginning)
    start = _SAFETENSORS_LENGTH.size
    if length > min(size - start, _HEADER_BYTES):
        return []
    try:
        entries = json.loads(sampler(start, length))
    except (ValueError, RecursionError):
        return []
    start += length
    tensors: list[Tensor] = []
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if name != "__metadata__" and isinstance(entry, dict):
            tensors += _safetensors_entry(entry, start)
    return tensors


def _safetensors_entry(entry: dict[str, Any], start: int) -> list[Tensor]:
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        return []
    return _tensor(start + offsets[0], start + offsets[1], shape, _SAFETENSORS_DTYPES.get(dtype))


def _are_sizes(numbers: object) -> TypeGuard[list[int]]:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < _LARGEST for number in numbers)


def _tensor(start: int, stop: int, shape: Sequence[int], dtype: DType | None) -> list[Tensor]:
    """Return the tensor of a C-order shape; none if it has no bytes, or more than any file."""
    if len(shape) > _MOST_DIMENSIONS:
        return []
    count = math.prod(shape)
    if not start < stop < _LARGEST or not count:
        return []
    size = stop - start
    rows = (size * width // count for width in row_widths(shape) if size * width % count == 0)
    return [Tensor(start, stop, dtype, tuple(rows))]


def _apart(tensors: list[Tensor]) -> list[Tensor]:
    """Return tensors in order, without those that overlap an earlier one. No honest header has any of these."""
    kept: list[Tensor] = []
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        if not kept or tensor.start >= kept[-1].stop:
            kept.append(tensor)
    return kept
