"""The row width of a tensor, found in its bytes or proposed by its shape.

In the top plane (sign and exponent) of a tensor of rows, a byte equals the one above it more often than by chance,
because a channel keeps its scale. So the share of equal bytes, taken for every lag, has a peak at the row width and at
its multiples. This costs about as much as encoding a chunk, so only lags of up to a few thousand elements are tried. A
shape gives candidates of any width for free. But it says neither which of them is right, nor whether rows are similar
at all. Both are only proposals.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SIGNIFICANT = 6
"""Standard deviations of a real peak. Among a few thousand lags, chance reaches about four."""
_MOST_WIDTHS = 4
"""Most widths to propose: rows of a head, a token, the keys and values of a token, and those of all layers."""
_WIDEST = 1 << 26
"""Most values in a payload (format section 2); no row is wider."""
_NEARLY_HIGHEST = 0.6
"""From this share of the highest peak on, a smaller lag is the row width, and the highest peak its multiple."""


def infer_stride(counts: npt.NDArray[np.uint32]) -> int | None:
    """Return the row width in elements, 2 or more; ``None`` if there seem to be no rows.

    Args:
        counts: the result of :func:`equal_at_lags` for the top plane.
    """
    window, others = int(counts[0]), counts[2:]
    if not len(others):
        return None
    mean = float(others.mean())
    share = min(max(mean / window, 1 / window), 1 - 1 / window)
    highest = float(others.max()) - mean
    if highest < _SIGNIFICANT * math.sqrt(window * share * (1 - share)):
        return None
    return 2 + int(np.argmax(others >= mean + _NEARLY_HIGHEST * highest))


def row_widths(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the possible row widths of a tensor in elements, the narrowest first: at most four.

    For [tokens, heads, dim] these are dim and heads * dim. The distance from a value to its neighbour in the token
    before is the product of the dimensions after the token's dimension. A shape does not say which dimension that is.

    Args:
        shape: in C order, the fastest dimension last. Any numbers are accepted, even for impossible shapes.
    """
    widths: list[int] = []
    width = 1
    for size in reversed(shape[1:]):
        width *= size
        if not 0 < width <= _WIDEST or len(widths) == _MOST_WIDTHS:
            break
        if width > max(widths, default=1):
            widths.append(width)
    return tuple(widths)
