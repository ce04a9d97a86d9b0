"""From a trace that fails to a short one that still does."""

import time
from collections.abc import Callable

from stress_lib.pair import Trace


def shrink(trace: Trace, fails: Callable[[Trace], bool], *, seconds: float) -> Trace:
    """Leave out pieces of a trace, large ones first, as long as the rest still fails and there is time."""
    deadline = time.monotonic() + seconds
    piece = len(trace) // 2
    while piece:
        start = 0
        while start < len(trace) and time.monotonic() < deadline:
            shorter = trace[:start] + trace[start + piece :]
            if fails(shorter):
                trace = shorter
            else:
                start += piece
        piece //= 2
    return trace
