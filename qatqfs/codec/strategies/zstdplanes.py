"""Strategies 7 to 10: zstd over byte planes of the values, or of what is left of them after a difference.

Format section 4.5. What comes before the planes is a filter: none (7), the wrapping difference of each f32
bit pattern to the one before (8, which upstream calls a quaternion chain), the XOR of each 16-bit pattern with
the one before (9) or with the one ``stride`` elements before (10).
"""

import numpy as np
import numpy.typing as npt

from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidResidualStream
from qatqfs.codec.level import Level
from qatqfs.codec.planecoder import encode_planes
from qatqfs.codec.planes import merge_planes, split_planes
from qatqfs.codec.strategies.base import ALL_DTYPES, F32_ONLY, HALF_ONLY, Strategy
from qatqfs.codec.zstddecode import check_size, decompress_exactly
from qatqfs.codec.zstdframes import walk_frames

_STRIDE_SIZE = 4


def check(data: memoryview, size: int) -> None:
    """Walk the frames; raises InvalidResidualStream when they cannot hold ``size`` bytes."""
    check_size(walk_frames(data), size)


def decode(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress the planes and put the elements together; raises InvalidResidualStream."""
    planes = scratch("planes", len(out))
    decompress_exactly(data, planes)
    merge_planes(planes, dtype.width, out)


def encode(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Compress each plane of raw elements into frames of its own."""
    planes = scratch("planes", len(raw))
    split_planes(raw, dtype.width, planes)
    return encode_planes(planes, dtype.width, level)


def decode_differences(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress and add up wrapping u32 differences; raises InvalidResidualStream."""
    decode(data, out, dtype, scale)
    words = out.view("<u4")
    np.add.accumulate(words, out=words)


def differences(raw: Bytes) -> Bytes:
    """Return each u32 word of ``raw`` minus the one before it, modulo 2**32, in scratch memory."""
    filtered = scratch("filtered", len(raw))
    words, left = raw.view("<u4"), filtered.view("<u4")
    left[:1] = words[:1]
    np.subtract(words[1:], words[:-1], out=left[1:])
    return filtered


def encode_differences(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Compress the planes of wrapping u32 differences."""
    return encode(differences(raw), dtype, level)


def decode_adjacent(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress and undo the XOR with the element before; raises InvalidResidualStream."""
    decode(data, out, dtype, scale)
    _undo_xor(out.view("<u2"), 1)


def encode_adjacent(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Compress the planes of each element's XOR with the one before."""
    return encode(xor_with_earlier(raw, 1), dtype, level)


def check_strided(data: memoryview, size: int) -> None:
    """Like :func:`check`, behind a stride of four bytes."""
    if len(data) < _STRIDE_SIZE:
        raise InvalidResidualStream("the stride is cut off")
    check(data[_STRIDE_SIZE:], size)


def decode_strided(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decompress and undo the XOR with the element a stride before; raises InvalidResidualStream."""
    check_strided(data, len(out))
    decode(data[_STRIDE_SIZE:], out, dtype, scale)
    words = out.view("<u2")
    stride = int.from_bytes(data[:_STRIDE_SIZE], "big")
    if not 0 < stride < len(words):
        raise InvalidResidualStream(f"stride {stride} does not fit {len(words)} values")
    _undo_xor(words, stride)


def encode_strided(raw: Bytes, dtype: DType, level: Level, stride: int) -> bytes:
    """Compress the planes of each element's XOR with the one ``stride`` before; 0 < stride < n."""
    return stride.to_bytes(_STRIDE_SIZE, "big") + encode(xor_with_earlier(raw, stride), dtype, level)


def xor_with_earlier(raw: Bytes, stride: int) -> Bytes:
    """Return each 16-bit element XORed with the one ``stride`` before it, in scratch memory."""
    filtered = scratch("filtered", len(raw))
    words, left = raw.view("<u2"), filtered.view("<u2")
    left[:stride] = words[:stride]
    np.bitwise_xor(words[stride:], words[:-stride], out=left[stride:])
    return filtered


def _undo_xor(words: npt.NDArray[np.uint16], stride: int) -> None:
    whole = len(words) // stride * stride
    rows = words[:whole].reshape(-1, stride)
    np.bitwise_xor.accumulate(rows, axis=0, out=rows)
    if whole and whole < len(words):
        words[whole:] ^= rows[-1, : len(words) - whole]


PLANES = Strategy(7, "byte-plane-zstd", ALL_DTYPES, decode, encode, check, 0)
DIFFERENCES = Strategy(8, "quaternion-chain-zstd", F32_ONLY, decode_differences, encode_differences, check, 0)
ADJACENT = Strategy(9, "adjacent-xor-byte-plane-zstd", HALF_ONLY, decode_adjacent, encode_adjacent, check, 0)
STRIDED = Strategy(10, "strided-xor-byte-plane-zstd", HALF_ONLY, decode_strided, None, check_strided, _STRIDE_SIZE)
