"""A strategy: an id, the dtypes that it is legal for, and functions that decode and encode values."""

from collections.abc import Callable
from dataclasses import dataclass

from qatqfs.codec.buffers import Bytes
from qatqfs.codec.dtypes import DType
from qatqfs.codec.level import Level

F32_ONLY = frozenset({DType.F32})
HALF_ONLY = frozenset({DType.F16, DType.BF16})
ALL_DTYPES = F32_ONLY | HALF_ONLY

Decode = Callable[[memoryview, Bytes, DType, float], None]
"""``decode(data, out, dtype, scale)`` fills ``out`` (n * width bytes) with raw little-endian elements.

``data`` is what follows the body prefix, ``scale`` the scale in the payload header. Raises a QatcError if the data does
not decode to exactly these elements.
"""

DecodeHashed = Callable[[memoryview, Bytes, DType], int | None]
"""``decode_hashed(data, out, dtype)`` does the same and returns the checksum of the values (format section 5).

It returns ``None`` if the data is damaged or empty. The caller then uses ``decode``, which handles or refuses it.
"""

Encode = Callable[[Bytes, DType, Level], bytes | None]
"""``encode(raw, dtype, level)`` returns the data for raw elements, ``None`` if the strategy cannot hold them."""

EncodeWithStride = Callable[[Bytes, DType, Level, int], bytes | None]
"""``encode(raw, dtype, level, stride)``: the same for a strategy that needs a stride, counted in elements."""

Scale = Callable[[Bytes], float]
"""``scale(raw)`` returns the scale that the payload header must have for data made from ``raw``."""

Check = Callable[[memoryview, int], None]
"""``check(data, size)`` refuses, by its lengths alone, data that cannot decode to ``size`` raw bytes.

Decoding refuses the same data. The check runs before memory is allocated for the result.
"""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of the table of format section 3.1.

    Attributes:
        id: the strategy byte.
        name: as the format calls it.
        dtypes: those it is legal for.
        decode: see :data:`Decode`.
        encode: see :data:`Encode`; ``None`` if the strategy needs a stride.
        check: see :data:`Check`.
        zstd_offset: offset of zstd frames that fill the rest of the data, so that a skippable frame may be appended;
            ``None`` if the data does not end with zstd frames.
        encode_with_stride: see :data:`EncodeWithStride`; ``None`` if the strategy has no stride.
        scale: see :data:`Scale`; ``None`` if the scale is not used.
        decode_hashed: see :data:`DecodeHashed`; ``None`` if there is no fast way.
    """

    id: int
    name: str
    dtypes: frozenset[DType]
    decode: Decode
    encode: Encode | None
    check: Check
    zstd_offset: int | None = None
    encode_with_stride: EncodeWithStride | None = None
    scale: Scale | None = None
    decode_hashed: DecodeHashed | None = None
