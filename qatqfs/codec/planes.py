"""Byte planes (format section 1.2): all most significant bytes first, then the next ones, and so on."""

from qatqfs.codec import _native
from qatqfs.codec.buffers import Bytes


def split_planes(raw: Bytes, width: int, planes: Bytes) -> None:
    """Write the planes of little-endian elements.

    Args:
        raw: n * width bytes, elements of 2 or 4 bytes.
        width: bytes of an element.
        planes: where to write, n * width bytes.
    """
    _native.split_planes(raw.data, planes.data, width)


def merge_planes(planes: Bytes, width: int, raw: Bytes) -> None:
    """Write little-endian elements from their planes; the inverse of :func:`split_planes`."""
    _native.merge_planes(planes.data, raw.data, width)


def swap_elements(source: Bytes, width: int, target: Bytes) -> None:
    """Write each element with its bytes reversed: raw to canonical and back (format section 1.1).

    Args:
        source: n * width bytes.
        width: bytes of an element, 2 or 4.
        target: n * width bytes, not the source.
    """
    target.view(f"<u{width}")[:] = source.view(f">u{width}")
