"""Strategies 7 to 10: zstd over byte planes of the values, or of the transformed values (format section 4.5).

The transforms before the planes are: none (7), the wrapping difference of each f32 bit pattern to the one before (8,
which upstream calls a quaternion chain), and the XOR of each 16-bit pattern with the one before (9) or with the one
``stride`` elements before (10).
"""

from functools import partial

from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidResidualStream
from qatqfs.codec.level import Level
from qatqfs.codec.planecoder import encode_planes
from qatqfs.codec.planes import Transform, decode_planes, merge_planes, split_planes
from qatqfs.codec.strategies.base import ALL_DTYPES, F32_ONLY, HALF_ONLY, Strategy
from qatqfs.codec.zstdframes import check_size, decompress_exactly, walk_frames

_STRIDE_SIZE = 4


def check(data: memoryview, size: int) -> None:
    """Raise InvalidResidualStream if frames cannot hold ``size`` bytes, without decompressing them."""
    check_size(walk_frames(data), size)


def _decode(data: memoryview, out: Bytes, width: int, transform: Transform = Transform.NONE, stride: int = 1) -> None:
    planes = scratch("planes", len(out))
    decompress_exactly(data, planes)
    merge_planes(planes, width, out, transform, stride)


def _decode_hashed(
    data: memoryview, out: Bytes, dtype: DType, transform: Transform = Transform.NONE, stride: int = 1
) -> int | None:
    if not len(out):
        return None
    planes = scratch("planes", len(out))
    return decode_planes(data, planes, dtype.width, out, transform, stride)


def _encode(raw: Bytes, dtype: DType, level: Level, transform: Transform = Transform.NONE, stride: int = 1) -> bytes:
    planes = scratch("planes", len(raw))
    split_planes(raw, dtype.width, planes, transform, stride)
    return encode_planes(planes, dtype.width, level)


def decode(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress the planes and merge them into elements; raises InvalidResidualStream."""
    _decode(data, out, dtype.width)


def encode(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Compress each plane of raw elements into its own frames."""
    return _encode(raw, dtype, level)


def decode_differences(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress and add up wrapping u32 differences; raises InvalidResidualStream."""
    _decode(data, out, dtype.width, Transform.DIFFERENCE)


def encode_differences(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Compress the planes of wrapping u32 differences."""
    return _encode(raw, dtype, level, Transform.DIFFERENCE)


def decode_adjacent(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress and undo the XOR with the element before; raises InvalidResidualStream."""
    _decode(data, out, dtype.width, Transform.XOR)


def encode_adjacent(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Compress the planes of each element's XOR with the one before."""
    return _encode(raw, dtype, level, Transform.XOR)


def decode_strided_hashed(data: memoryview, out: Bytes, dtype: DType) -> int | None:
    """Decode strided values and return their checksum; ``None`` if the data is damaged."""
    stride = int.from_bytes(data[:_STRIDE_SIZE], "big")
    if len(data) < _STRIDE_SIZE or not 0 < stride < len(out) // dtype.width:
        return None
    return _decode_hashed(data[_STRIDE_SIZE:], out, dtype, Transform.XOR, stride)


def check_strided(data: memoryview, size: int) -> None:
    """Do the same as :func:`check` for frames after a stride of four bytes."""
    if len(data) < _STRIDE_SIZE:
        raise InvalidResidualStream("the stride is cut off")
    check(data[_STRIDE_SIZE:], size)


def decode_strided(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress and undo the XOR with the element a stride before; raises InvalidResidualStream."""
    check_strided(data, len(out))
    planes = scratch("planes", len(out))
    decompress_exactly(data[_STRIDE_SIZE:], planes)
    n = len(out) // dtype.width
    stride = int.from_bytes(data[:_STRIDE_SIZE], "big")
    if not 0 < stride < n:
        raise InvalidResidualStream(f"stride {stride} does not fit {n} values")
    merge_planes(planes, dtype.width, out, Transform.XOR, stride)


def encode_strided(raw: Bytes, dtype: DType, level: Level, stride: int) -> bytes | None:
    """Compress the planes of each element's XOR with the one ``stride`` before.

    Returns:
        The data; ``None`` unless 0 < stride < n.
    """
    if not 0 < stride < len(raw) // dtype.width:
        return None
    return stride.to_bytes(_STRIDE_SIZE, "big") + _encode(raw, dtype, level, Transform.XOR, stride)


PLANES = Strategy(7, "byte-plane-zstd", ALL_DTYPES, decode, encode, check, 0, decode_hashed=_decode_hashed)
DIFFERENCES = Strategy(
    8,
    "quaternion-chain-zstd",
    F32_ONLY,
    decode_differences,
    encode_differences,
    check,
    0,
    decode_hashed=partial(_decode_hashed, transform=Transform.DIFFERENCE),
)
ADJACENT = Strategy(
    9,
    "adjacent-xor-byte-plane-zstd",
    HALF_ONLY,
    decode_adjacent,
    encode_adjacent,
    check,
    0,
    decode_hashed=partial(_decode_hashed, transform=Transform.XOR),
)
STRIDED = Strategy(
    10,
    "strided-xor-byte-plane-zstd",
    HALF_ONLY,
    decode_strided,
    None,
    check_strided,
    _STRIDE_SIZE,
    encode_with_stride=encode_strided,
    decode_hashed=decode_strided_hashed,
)
