"""Strategy 1: the canonical bytes as they are (format section 4.1)."""

import numpy as np

from qatqfs.codec.buffers import Bytes
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import LengthMismatch
from qatqfs.codec.level import Level
from qatqfs.codec.planes import swap_elements
from qatqfs.codec.strategies.base import ALL_DTYPES, Strategy


def check(data: memoryview, size: int) -> None:
    """Refuse data that is not as long as the values; raises LengthMismatch."""
    if len(data) != size:
        raise LengthMismatch(size, len(data))


def decode(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Reverse the bytes of each element into ``out``; raises LengthMismatch."""
    check(data, len(out))
    swap_elements(np.frombuffer(data, np.uint8), dtype.width, out)


def encode(raw: Bytes, dtype: DType, level: Level) -> bytes:
    """Return the canonical bytes of raw elements."""
    canonical = np.empty(len(raw), np.uint8)
    swap_elements(raw, dtype.width, canonical)
    return canonical.tobytes()


RAW_BITS = Strategy(1, "raw-bits", ALL_DTYPES, decode, encode, check)
