"""The row width of a tensor, found in its bytes.

In the top plane (sign and exponent) of a tensor of rows, a byte equals the one above it more often than chance
has it, for a channel keeps its scale. So the share of equal bytes, taken for every lag, has a peak at the row
width and at its multiples.
"""

import math

import numpy as np
import numpy.typing as npt

_SIGNIFICANT = 6
"""Standard deviations by which a peak stands out: among a few thousand lags chance makes some four."""
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
