"""Compress byte planes, each in a zstd frame of its own, in the way that suits it.

The planes of a tensor differ: the top one (sign and exponent) has few symbols, the lower ones are close to
noise. In one frame they would share blocks and Huffman tables, and zstd's usual match finders find false matches
in them, which makes them slower and larger than coding single bytes. Where rows repeat, on the other hand, only
matches help. So cheap statistics of a plane come first, and then the ways that can win are tried:

* ``ENTROPY`` codes single bytes, with blocks cut where the statistics of the plane change;
* ``LONG`` does the same, but for matches of at least twelve bytes, which zstd's long-distance matcher finds by a
  hash of the content. On the planes of a tensor twelve equal bytes are hardly ever chance, so this is nearly as
  small as the optimal parser, and ten times as fast;
* ``DEEP`` is an ordinary high level, for text and whatever else is no tensor;
* noise is stored, a constant plane takes a few bytes.

``FAST`` looks for matches only where a sample says that strings repeat. ``BALANCED`` tries them on every plane that
is no noise, and remembers (:mod:`lessons`) where they pay. ``SMALL`` tries all of this and slower parsers too.
"""

import enum
import threading
from collections.abc import Callable

import numpy as np
import zstandard

from qatqfs.codec.buffers import Bytes
from qatqfs.codec.lessons import Lessons
from qatqfs.codec.level import Level
from qatqfs.codec.statistics import PlaneStatistics, plane_statistics
from qatqfs.codec.zstdframes import constant_frame, stored_frame

_FEW_REPEATS = 0.015
"""Share of repeated strings above which matches pay even on a plane of noise."""
_MANY_REPEATS = 0.1
"""Share of repeated strings from which on a plane may be text rather than numbers."""
_RUNS = 1.5
"""How much more often than by chance a byte equals the one before where runs are worth a match finder."""
_LONG_GAIN = 0.99
"""``LONG`` takes three times as long as ``ENTROPY``: it has to save a percent for that."""
_DEEP_GAIN = 0.97
"""``DEEP`` takes some ten times as long as ``LONG``."""
_VERY_SMALL = 1 / 16
"""Share of the raw bytes below which frame headers and tables weigh, so that one frame for all may do better."""
_TINY_PLANE = 1024
"""Bytes up to which every way is as good as free."""


class Way(enum.Enum):
    """How a plane is compressed."""

    ENTROPY = "entropy"
    LONG = "long"
    DEEP = "deep"


def _compressor(**settings: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters(write_content_size=1, **settings)
    return zstandard.ZstdCompressor(compression_params=parameters)


_NO_MATCHES = {
    "strategy": zstandard.STRATEGY_FAST,
    "min_match": 7,
    "hash_log": 6,
    "chain_log": 6,
    "target_length": 0,
    "window_log": 20,
}
"""A match finder with a table of 64 entries: it finds next to nothing, in next to no time."""


def _optimal(strategy: int, min_match: int, table_log: int, search_log: int) -> zstandard.ZstdCompressor:
    return _compressor(
        strategy=strategy,
        min_match=min_match,
        hash_log=table_log,
        chain_log=table_log + 1,
        search_log=search_log,
        target_length=32 if search_log == 1 else 256,
        window_log=20,
    )


class _Contexts(threading.local):
    """One compressor for each way, in each thread: they are neither cheap to make nor safe to share."""

    def __init__(self) -> None:
        self.entropy = _compressor(**_NO_MATCHES)
        self.long, self.longer = (
            _compressor(
                **_NO_MATCHES,
                enable_ldm=1,
                ldm_min_match=12,
                ldm_hash_log=14,
                ldm_hash_rate_log=rate_log,
                ldm_bucket_size_log=1,
            )
            for rate_log in (4, 1)
        )
        self.deep = zstandard.ZstdCompressor(level=9)


class _ThoroughContexts(threading.local):
    """What only ``SMALL`` needs, and takes megabytes for."""

    def __init__(self) -> None:
        self.ultra = zstandard.ZstdCompressor(level=19)
        self.parsers = [
            _compressor(**{**_NO_MATCHES, "hash_log": 14}),
            _optimal(zstandard.STRATEGY_BTLAZY2, 6, 15, 1),
            _optimal(zstandard.STRATEGY_BTOPT, 6, 15, 1),
            *(_optimal(zstandard.STRATEGY_BTULTRA2, min_match, 17, 7) for min_match in (3, 6)),
        ]


_contexts = _Contexts()
_thorough = _ThoroughContexts()


def encode_planes(planes: Bytes, width: int, level: Level, lessons: Lessons[Way] | None = None) -> bytes:
    """Return zstd frames that hold the planes one after another.

    Args:
        planes: ``width`` planes of equal length.
        width: how many planes there are.
        level: how hard to look for matches.
        lessons: what earlier planes of the same stream taught; used and extended by ``BALANCED`` alone.
    """
    n = len(planes) // width
    if n == 0:
        return b""
    frames = b"".join([_encode_plane(planes[i * n : (i + 1) * n], i, level, lessons) for i in range(width)])
    if level is not Level.FAST and len(frames) < _VERY_SMALL * len(planes):
        frames = min(frames, _contexts.deep.compress(planes.data), key=len)
    if level is Level.SMALL:
        frames = min(frames, _thorough.ultra.compress(planes.data), key=len)
    return frames


def _encode_plane(plane: Bytes, number: int, level: Level, lessons: Lessons[Way] | None) -> bytes:
    if plane[0] == plane[-1] == plane[len(plane) // 2] and not (plane != plane[0]).any():
        return constant_frame(int(plane[0]), len(plane))
    statistics = plane_statistics(plane)
    if level is Level.SMALL:
        encoded = _smallest(plane, statistics)
    elif statistics.noise and statistics.repeats < _FEW_REPEATS:
        return stored_frame(plane)
    elif level is Level.FAST:
        encoded = _WAYS[_fast_way(statistics)](plane.data, statistics)
    else:
        encoded = _balanced(plane.data, number, statistics, lessons)
    return encoded if len(encoded) < len(plane) else stored_frame(plane)


def _fast_way(statistics: PlaneStatistics) -> Way:
    return Way.LONG if statistics.repeats >= _FEW_REPEATS else Way.ENTROPY


def _balanced(plane: memoryview, number: int, statistics: PlaneStatistics, lessons: Lessons[Way] | None) -> bytes:
    subject = (number, 32 * len(statistics.frame) // statistics.size, int(16 * statistics.repeats))
    way = lessons.recall(subject) if lessons is not None else None
    if way is not None:
        return _WAYS[way](plane, statistics)
    best, encoded = Way.LONG, _long(plane, statistics)
    if not statistics.noise:
        if len(encoded) > _LONG_GAIN * len(statistics.frame):
            best, encoded = Way.ENTROPY, statistics.frame
        if len(plane) <= _TINY_PLANE or _may_be_text(statistics):
            deep = _deep(plane, statistics)
            if len(deep) < _DEEP_GAIN * len(encoded):
                best, encoded = Way.DEEP, deep
    if lessons is not None:
        lessons.learn(subject, best)
    return encoded


def _may_be_text(statistics: PlaneStatistics) -> bool:
    return statistics.repeats > _MANY_REPEATS or statistics.equal > _RUNS * statistics.chance + 0.01


def _smallest(plane: Bytes, statistics: PlaneStatistics) -> bytes:
    view = plane.data
    forms = [way(view, statistics) for way in _WAYS.values()]
    forms.append(_in_blocks(_contexts.longer, view, statistics))
    forms += [parser.compress(view) for parser in (*_thorough.parsers, _thorough.ultra)]
    return min(forms, key=len)


def _entropy(plane: memoryview, statistics: PlaneStatistics) -> bytes:
    return statistics.frame or bytes(stored_frame(np.frombuffer(plane, np.uint8)))


def _long(plane: memoryview, statistics: PlaneStatistics) -> bytes:
    return _in_blocks(_contexts.long, plane, statistics)


def _deep(plane: memoryview, statistics: PlaneStatistics) -> bytes:
    return _contexts.deep.compress(plane)


def _in_blocks(compressor: zstandard.ZstdCompressor, plane: memoryview, statistics: PlaneStatistics) -> bytes:
    """Compress a plane into one frame whose blocks end where its statistics change."""
    *ends, last = statistics.ends or [len(plane)]
    if not ends:
        return compressor.compress(plane)
    session = compressor.compressobj(size=last)
    parts: list[bytes] = []
    start = 0
    for end in ends:
        parts += (session.compress(plane[start:end]), session.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
        start = end
    parts += (session.compress(plane[start:]), session.flush())
    return b"".join(parts)


_WAYS: dict[Way, Callable[[memoryview, PlaneStatistics], bytes]] = {
    Way.ENTROPY: _entropy,
    Way.LONG: _long,
    Way.DEEP: _deep,
}
