"""The strategies of an exact payload, in one table (format section 3.1).

Each family is one module, with its decoder beside its encoder. To add a strategy, change that module and
:data:`STRATEGIES`.
"""

from qatqfs.codec.strategies.base import Strategy
from qatqfs.codec.strategies.blocks import BLOCKS
from qatqfs.codec.strategies.predictor import PREDICTOR
from qatqfs.codec.strategies.raw import RAW_BITS
from qatqfs.codec.strategies.runs import BYTE_RUNS, DELTA_RUNS, PACKED_RUNS, PLANE_RUNS
from qatqfs.codec.strategies.zstdplanes import ADJACENT, DIFFERENCES, PLANES, STRIDED

STRATEGIES: dict[int, Strategy] = {
    strategy.id: strategy
    for strategy in (
        PREDICTOR,
        RAW_BITS,
        BYTE_RUNS,
        PLANE_RUNS,
        DELTA_RUNS,
        BLOCKS,
        PACKED_RUNS,
        PLANES,
        DIFFERENCES,
        ADJACENT,
        STRIDED,
    )
}
"""Strategies by their id, 0 to 10."""

__all__ = ["STRATEGIES", "Strategy"]
