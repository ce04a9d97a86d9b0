"""The row width of a tensor, found in its bytes, or what its shape says that it may be.

In the top plane (sign and exponent) of a tensor of rows, a byte equals the one above it more often than chance
has it, for a channel keeps its scale. So the share of equal bytes, taken for every lag, has a peak at the row
width and at its multiples. That costs about as much as encoding a chunk, and so it looks no further than a few
thousand elements. A shape names candidates of any width for nothing, but knows neither which of them is the one nor
whether rows are alike at all. Either is only ever a proposal.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SIGNIFICANT = 6
"""Standard deviations by which a peak stands out: among a few thousand lags chance makes some four."""
_MOST_WIDTHS = 4
"""Rows of a head, a token, keys and values of a token, and those of all layers."""
_WIDEST = 1 << 26
"""Values that a payload may have (format section 2): no row in it is wider."""
_NEARLY_HIGHEST = 0.6
"""Share of the highest peak from which on a smaller lag is the row width, and the highest peak its multiple."""


def infer_stride(counts: npt.NDArray[np.uint32]) -> int | None:
    """Return the row width in elements, 2 or more; ``None`` if there seem to be no rows.

    Args:
        counts: what :func:`equal_at_lags` found in the top plane.
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
    """Return what the row width of a tensor may be, in elements, the narrowest first: at most four widths.

    For [tokens, heads, dim] these are dim and heads * dim: a value's neighbour in the token before is as far away as
    the dimensions behind that of the tokens are large. Which one that is a shape does not say.

    Args:
        shape: in C order, the fastest dimension last; may be anything, also what no tensor can have.
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
