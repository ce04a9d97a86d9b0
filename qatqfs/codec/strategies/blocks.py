"""Strategy 5: four byte planes, each zero, raw or one repeated byte (format section 4.3)."""

import numpy as np

from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidResidualStream
from qatqfs.codec.level import Level
from qatqfs.codec.planes import merge_planes, split_planes
from qatqfs.codec.strategies.base import F32_ONLY, Strategy

_ZERO, _RAW, _REPEAT = 0, 1, 2


def check(data: memoryview, size: int) -> None:
    """Walk the tags; raises InvalidResidualStream unless they and their planes fill the data exactly."""
    _entries(data, size // 4)


def _entries(data: memoryview, n: int) -> list[tuple[int, int]]:
    """Return the tag and the offset of the operand of each plane."""
    entries = []
    position = 0
    for _ in range(4):
        tag = data[position] if position < len(data) else None
        if tag not in (_ZERO, _RAW, _REPEAT):
            raise InvalidResidualStream("a plane has no known tag")
        entries.append((tag, position + 1))
        position += 1 + (0, n, 1)[tag]
        if position > len(data):
            raise InvalidResidualStream("a plane is cut off")
    if position != len(data):
        raise InvalidResidualStream("bytes are left over after the last plane")
    return entries


def decode(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Merge the four planes; raises InvalidResidualStream."""
    n = len(out) // 4
    planes = scratch("planes", len(out))
    for p, (tag, start) in enumerate(_entries(data, n)):
        plane = planes[p * n : (p + 1) * n]
        if tag == _RAW:
            plane[:] = np.frombuffer(data, np.uint8, n, start)
        else:
            plane[:] = data[start] if tag == _REPEAT else 0
    merge_planes(planes, 4, out)


def encode(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Return the tagged planes: constant ones in one or two bytes, others as they are."""
    n = len(raw) // 4
    planes = scratch("planes", len(raw))
    split_planes(raw, 4, planes)
    parts = []
    for plane in planes.reshape(4, n):
        if n == 0 or not plane.any():
            parts.append(bytes([_ZERO]))
        elif (plane == plane[0]).all():
            parts.append(bytes([_REPEAT, plane[0]]))
        else:
            parts.append(bytes([_RAW]) + plane.tobytes())
    return b"".join(parts)


BLOCKS = Strategy(5, "byte-plane-blocks", F32_ONLY, decode, encode, check)
