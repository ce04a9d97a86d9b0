"""Numpy arrays to containers and back.

The format stores the element type, the bits and their order, but no shape. The encoder uses the shape only to guess the
row width. numpy has bfloat16 only if the package ml_dtypes is installed, which is optional. Without it, bf16 values are
returned as their bit patterns.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from qatqfs.codec.buffers import Buffer
from qatqfs.codec.container import DEFAULT_CHUNK_BYTES
from qatqfs.codec.dtypes import DType
from qatqfs.codec.level import Level
from qatqfs.codec.limits import UNLIMITED, Limits
from qatqfs.codec.reader import Container
from qatqfs.codec.stride import row_widths
from qatqfs.codec.verify import decode_container
from qatqfs.codec.writer import encode_container

Array = npt.NDArray[Any]


def dtype_of_array(array: Array) -> DType:
    """Return the element type of an array of float32, float16, or ml_dtypes' bfloat16, of either byte order.

    Raises:
        TypeError: for any other array.
    """
    found = {("f", 4): DType.F32, ("f", 2): DType.F16}.get((array.dtype.kind, array.dtype.itemsize))
    if found is None and array.dtype.name == "bfloat16":
        found = DType.BF16
    if found is None:
        raise TypeError(f"{array.dtype} values are neither float32 nor float16 nor bfloat16")
    return found


def encode_array(
    array: Array,
    *,
    dtype: DType | None = None,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    level: Level = Level.BALANCED,
) -> bytes:
    """Encode an array as one container, in this thread.

    Args:
        array: of any shape; its values are stored in C order. They are float32, float16 or bfloat16, or their bit
            patterns as integers of the same size if ``dtype`` gives the type.
        dtype: type of bit patterns; not needed for floating-point values.
        chunk_bytes: raw bytes of a chunk, a multiple of 4.
        level: how hard to search for a smaller form.

    Returns:
        The container; :func:`decode_array` returns its values as a flat array.

    Raises:
        TypeError: the values are of another type.
        ValueError: ``chunk_bytes`` is not legal.
    """
    if dtype is None or array.dtype.kind not in "iu" or array.dtype.itemsize != dtype.width:
        found = dtype_of_array(array)
        if dtype not in (None, found):
            raise TypeError(f"{array.dtype} values are not {dtype.label}")
        dtype = found
    if chunk_bytes % DType.F32.width:
        raise ValueError(f"a chunk must have a multiple of 4 bytes, not {chunk_bytes}")
    words: Array = np.ascontiguousarray(array).reshape(-1)
    order = ">" if array.dtype.byteorder == ">" else "<"
    words = words.view(f"{order}u{dtype.width}").astype(f"<u{dtype.width}", copy=False)
    return encode_container(
        words.view(np.uint8).data,
        dtype,
        values_per_chunk=chunk_bytes // dtype.width,
        level=level,
        row_widths=row_widths(array.shape),
    )


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """Return numpy's type for an element type; u16 for bf16 if ml_dtypes is not installed."""
    if dtype is DType.F32:
        return np.dtype("<f4")
    if dtype is DType.F16:
        return np.dtype("<f2")
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype("<u2")
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def decode_array(buf: Buffer, *, limits: Limits | None = None) -> Array:
    """Decode a container into a flat, writable array, and verify all of its checksums.

    Args:
        buf: the whole container.
        limits: what to refuse although the format allows it.

    Raises:
        QatcError: the first thing that is wrong with the container.
        ValueError: its content is not a whole number of values (a file of such a length was padded).
    """
    content = decode_container(buf, limits=limits)
    dtype = Container.from_buffer(buf, limits=UNLIMITED).dtype
    if len(content) % dtype.width:
        raise ValueError(f"{len(content)} bytes are no whole {dtype.label} values")
    return np.frombuffer(content, numpy_dtype(dtype))
