"""What others make of the same blocks."""

from collections.abc import Iterable
from dataclasses import dataclass

import lz4.frame
import numpy as np
import zstandard

_CHUNK_VALUES = 32_768
"""Values whose planes are compressed together: those of a layer's keys in a block of 256 tokens here, and as many as in
each of the 384 chunks of the reference's own migration run."""


@dataclass
class Sizes:
    """Sums over files, in bytes.

    Attributes:
        raw: their content.
        planes: one zstd frame at level 3 over all byte planes of each 32,768 values, as the reference encodes.
        zstd: one zstd frame at level 3 over each file as it is.
        lz4: one lz4 frame over each.
    """

    raw: int = 0
    planes: int = 0
    zstd: int = 0
    lz4: int = 0


def measure(contents: Iterable[bytes], width: int) -> Sizes:
    """Compress each of some contents in each way; ``width`` is that of their elements, in bytes."""
    sizes = Sizes()
    for content in contents:
        sizes.raw += len(content)
        sizes.zstd += len(zstandard.compress(content, 3))
        sizes.lz4 += len(lz4.frame.compress(content))
        for start in range(0, len(content), _CHUNK_VALUES * width):
            chunk = np.frombuffer(content[start : start + _CHUNK_VALUES * width], np.uint8)
            sizes.planes += len(zstandard.compress(chunk.reshape(-1, width).T.tobytes(), 3))
    return sizes
