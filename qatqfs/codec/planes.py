"""Byte planes (format section 1.2): all most significant bytes first, then the next ones, and so on.

This is the typed front of the kernels in ``native/planes.h`` and ``native/plane_decode.h``. Several strategies
transform the elements before they are split into planes. The kernels do both at once, so that memory is read only once.
"""

import enum

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes


class Transform(enum.IntEnum):
    """What the planes hold for each element. The kernels use the same numbers."""

    NONE = 0
    """The element itself."""
    XOR = 1
    """Its XOR with the element ``stride`` before it. The first ``stride`` elements stay as they are."""
    DIFFERENCE = 2
    """The u32 pattern minus the one before, modulo 2**32."""


def split_planes(raw: Bytes, width: int, planes: Bytes, transform: Transform = Transform.NONE, stride: int = 1) -> None:
    """Write the planes of little-endian elements.

    Args:
        raw: n * width bytes, elements of 2 or 4 bytes.
        width: bytes of an element.
        planes: where to write, n * width bytes.
        transform: the transform; ``DIFFERENCE`` needs elements of 4 bytes.
        stride: of ``XOR``, in elements, at least 1. It has to be 1 for elements of 4 bytes.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    _native.split_planes(raw.data, planes.data, width, transform, stride)


def merge_planes(planes: Bytes, width: int, raw: Bytes, transform: Transform = Transform.NONE, stride: int = 1) -> None:
    """Write little-endian elements from their planes; the inverse of :func:`split_planes`."""
    _native.merge_planes(planes.data, raw.data, width, transform, stride)


def decode_planes(
    frames: memoryview, planes: Bytes, width: int, raw: Bytes, transform: Transform = Transform.NONE, stride: int = 1
) -> int | None:
    """Decode zstd frames of planes, write the elements, and return their checksum, in one call without the GIL.

    Args:
        frames: zstd data (format section 4.5).
        planes: working memory, n * width bytes.
        width: bytes of an element.
        raw: where to write, n * width bytes, at least one element. Its content is undefined after ``None``.
        transform: the transform of the planes.
        stride: of ``XOR``, in elements.

    Returns:
        The checksum (format section 5); ``None`` if the frames are wrong.
        :func:`~qatqfs.codec.zstdframes.decompress_exactly` says what is wrong with them.

    Raises:
        ValueError: if the arguments do not fit each other.
    """
    return _native.decode_planes(frames, planes.data, raw.data, width, transform, stride, width == 4)


def swap_elements(source: Bytes, width: int, target: Bytes) -> None:
    """Write each element with its bytes reversed: raw to canonical and back (format section 1.1).

    Args:
        source: n * width bytes.
        width: bytes of an element, 2 or 4.
        target: n * width bytes; it must not be the source.
    """
    _native.swap_elements(source.data, target.data, width)
