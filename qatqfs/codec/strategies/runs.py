"""Strategies 2, 3, 4 and 6: run lengths over canonical bytes or byte planes (format sections 4.2 and 4.4).

The encoders end runs where the reference does, so their data is identical.
"""

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.errors import InvalidResidualStream
from qatqfs.codec.level import Level
from qatqfs.codec.planes import Transform, merge_planes, split_planes, swap_elements
from qatqfs.codec.strategies.base import ALL_DTYPES, F32_ONLY, Strategy

_REPEAT_TOKEN = 2
_MIN_RUN_BYTES, _MAX_RUN_LENGTH = 3, 65535
_MIN_PACKED_RUN_BYTES, _MAX_PACKED_RUN_LENGTH = 1, 64


def _check(data: memoryview, size: int, run_bytes: int, run_length: int) -> None:
    if len(data) < -(-size // run_length) * run_bytes or (size == 0 and len(data)):
        raise InvalidResidualStream(f"{len(data)} bytes of runs cannot give {size} bytes")


def check_runs(data: memoryview, size: int) -> None:
    """Refuse runs that are too few for ``size`` bytes; raises InvalidResidualStream."""
    _check(data, size, _MIN_RUN_BYTES, _MAX_RUN_LENGTH)


def check_packed_runs(data: memoryview, size: int) -> None:
    """Refuse packed runs that are too few for ``size`` bytes; raises InvalidResidualStream."""
    _check(data, size, _MIN_PACKED_RUN_BYTES, _MAX_PACKED_RUN_LENGTH)


def _unpack(data: memoryview, out: Bytes) -> None:
    if not _native.decode_runs(data, out.data, 1, _REPEAT_TOKEN):
        raise InvalidResidualStream(f"runs do not give exactly {len(out)} bytes")


def decode_byte_runs(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decode runs over canonical bytes; raises InvalidResidualStream."""
    canonical = scratch("planes", len(out))
    _unpack(data, canonical)
    swap_elements(canonical, dtype.width, out)


def encode_byte_runs(raw: Bytes, dtype: DType, level: Level) -> bytes | None:
    """Return the runs over the canonical bytes of raw elements."""
    canonical = scratch("planes", len(raw))
    swap_elements(raw, dtype.width, canonical)
    return _native.encode_runs(canonical.data)


def decode_plane_runs(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decode runs over byte planes; raises InvalidResidualStream."""
    planes = scratch("planes", len(out))
    _unpack(data, planes)
    merge_planes(planes, dtype.width, out)


def encode_plane_runs(raw: Bytes, dtype: DType, level: Level) -> bytes | None:
    """Return the runs over the byte planes of raw elements, which may cross from one plane into the next."""
    planes = scratch("planes", len(raw))
    split_planes(raw, dtype.width, planes)
    return _native.encode_runs(planes.data)


def decode_delta_runs(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decode runs over the planes of each word's XOR with the one before; raises InvalidResidualStream."""
    planes = scratch("planes", len(out))
    _unpack(data, planes)
    merge_planes(planes, dtype.width, out, Transform.XOR)


def encode_delta_runs(raw: Bytes, dtype: DType, level: Level) -> bytes | None:
    """Return the runs over the planes of each word's XOR with the one before."""
    planes = scratch("planes", len(raw))
    split_planes(raw, dtype.width, planes, Transform.XOR)
    return _native.encode_runs(planes.data)


def decode_packed_runs(data: memoryview, out: Bytes, dtype: DType, scale: float) -> None:
    """Decode packed runs over byte planes; raises InvalidResidualStream."""
    planes = scratch("planes", len(out))
    if not _native.decode_packed_runs(data, planes.data):
        raise InvalidResidualStream(f"packed runs do not give exactly {len(out)} bytes")
    merge_planes(planes, dtype.width, out)


def encode_packed_runs(raw: Bytes, dtype: DType, level: Level) -> bytes | None:
    """Return the packed runs over the byte planes of raw elements."""
    planes = scratch("planes", len(raw))
    split_planes(raw, dtype.width, planes)
    return _native.encode_packed_runs(planes.data)


BYTE_RUNS = Strategy(2, "byte-rle", ALL_DTYPES, decode_byte_runs, encode_byte_runs, check_runs)
PLANE_RUNS = Strategy(3, "byte-plane-rle", ALL_DTYPES, decode_plane_runs, encode_plane_runs, check_runs)
DELTA_RUNS = Strategy(4, "delta-xor-byte-plane-rle", F32_ONLY, decode_delta_runs, encode_delta_runs, check_runs)
PACKED_RUNS = Strategy(
    6, "byte-plane-packed-rle", ALL_DTYPES, decode_packed_runs, encode_packed_runs, check_packed_runs
)
