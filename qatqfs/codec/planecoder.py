"""Compress byte planes: choose a way for each, and put each in a zstd frame of its own.

The planes of a tensor differ. The top plane (sign and exponent) has few symbols, and the lower ones are close to noise.
In one frame they would share blocks and Huffman tables. zstd's match finders would also find false matches in them,
which is slower and larger than coding single bytes. Where rows repeat, on the other hand, only matches help. So every
plane is examined first, and then coded in one of these ways:

* ``SINGLES`` codes single bytes, in blocks that end where the statistics of the plane change. Our own kernel writes
  these frames. It already has the histograms, and libzstd's stable calls always look for matches first.
* ``MATCHES`` also has matches, but only those that are cheaper than the bytes they replace. On tensors this is nearly
  as small as libzstd's optimal parser, and ten times as fast.
* ``DEEP`` is an ordinary high level of zstd, for text and anything else that is not a tensor.
* Noise is stored. A constant plane takes a few bytes.

``FAST`` uses matches only if a sample of the plane shows that strings repeat. ``BALANCED`` tries them on every plane
that is not noise, and remembers (:mod:`lessons`) where they pay. ``SMALL`` also tries slower parsers.

``planes_encode`` in ``native/plane_encode.h`` repeats these choices for planes whose way is known, so that a whole
chunk is one call. Change both together.
"""

import enum
import itertools
import threading
from collections.abc import Sequence
from typing import NamedTuple

import zstandard

from qatqfs.codec.buffers import Buffer, Bytes
from qatqfs.codec.lessons import Lessons
from qatqfs.codec.level import Level
from qatqfs.codec.planekernels import CodedPlane, Encoded, code_plane, encode_planes_at_once
from qatqfs.codec.zstdframes import constant_frame, stored_frame

_FEW_REPEATS = 0.015
"""Share of repeated strings from which on matches pay even on noise."""
_MANY_REPEATS = 0.1
"""Share of repeated strings from which on a plane may be text rather than numbers."""
_RUNS = 1.5
"""Runs are worth a match finder if a byte equals the one before so much more often than by chance."""
_ABOVE_ALL, _BELOW_ALL = 2.0, 0.0  # as bounds of a share
_MATCHES_GAIN = 0.98
"""``MATCHES`` takes three times as long as ``SINGLES``, so it has to save two percent."""
_DEEP_GAIN = 0.97
"""``DEEP`` takes some ten times as long as ``MATCHES``."""
_VERY_SMALL = 1 / 16
"""Below this share of the raw bytes, headers and tables weigh so much that one frame for all planes may be smaller."""
_SAMPLE_BYTES = 4096
"""How much of a plane ``DEEP`` is tried on before it is tried on all."""


class Way(enum.Enum):
    """How a plane is compressed; see above."""

    SINGLES = "singles"
    MATCHES = "matches"
    DEEP = "deep"


def _compressor(**settings: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters(write_content_size=1, **settings)
    return zstandard.ZstdCompressor(compression_params=parameters)


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
    """The compressors of a thread. They are expensive to make, and threads cannot share them."""

    def __init__(self) -> None:
        self.deep = zstandard.ZstdCompressor(level=9)


class _ThoroughContexts(threading.local):
    """Compressors that only ``SMALL`` needs. They take megabytes."""

    def __init__(self) -> None:
        self.ultra = zstandard.ZstdCompressor(level=19)
        self.parsers = [
            _optimal(zstandard.STRATEGY_BTLAZY2, 6, 15, 1),
            _optimal(zstandard.STRATEGY_BTOPT, 6, 15, 1),
            *(_optimal(zstandard.STRATEGY_BTULTRA2, min_match, 17, 7) for min_match in (3, 6)),
            self.ultra,
        ]


_contexts = _Contexts()
_thorough = _ThoroughContexts()


def encode_planes(planes: Bytes, width: int, level: Level, lessons: Lessons[Way] | None = None) -> bytes:
    """Return zstd frames that hold the planes one after another.

    Args:
        planes: ``width`` planes of equal length.
        width: how many planes there are.
        level: how hard to look for matches.
        lessons: what earlier planes of the same stream taught. Only ``BALANCED`` uses and extends them.
    """
    n = len(planes) // width
    if n == 0:
        return b""
    parts: list[Buffer] = []
    for i in range(width):
        parts += _encode_plane(planes[i * n : (i + 1) * n], i, level, lessons)
    frames = b"".join(parts)
    if level is not Level.FAST and len(frames) < _VERY_SMALL * len(planes):
        frames = min(frames, _contexts.deep.compress(planes.data), key=len)
    if level is Level.SMALL:
        frames = min(frames, _thorough.ultra.compress(planes.data), key=len)
    return frames


def encode_planes_as_known(
    raws: Sequence[Bytes],
    width: int,
    level: Level,
    lessons: Lessons[Way] | None,
    prefix: bytes,
    checksum_at: int,
    *,
    verified: bool,
) -> list[Encoded]:
    """Encode the planes of chunks that need no transform and no trial, in a fraction of the time.

    The frames are those that :func:`encode_planes` makes of the planes.

    Args:
        raws: equally long chunks of little-endian elements, at least one in each.
        width: bytes of an element.
        level: ``SMALL`` always tries.
        lessons: as for :func:`encode_planes`.
        prefix: written before the frames.
        checksum_at: offset in the prefix where the checksum of the values goes, 8 bytes.
        verified: decode the frames again and compare.

    Returns:
        The encoded chunks, up to the first one that needs a trial.
    """
    of_each = itertools.groupby(_known_ways(width, level, lessons) for _ in raws)
    ways, alike = next(of_each, (None, ()))
    if ways is None:
        return []
    found = encode_planes_at_once(
        raws[: sum(1 for _ in alike)],
        width,
        prefix,
        checksum_at,
        by_repeats=ways.by_repeats,
        by_matches=ways.by_matches,
        repeats_limit=_FEW_REPEATS,
        verified=verified,
    )
    if level is Level.FAST:
        return found
    least = len(prefix) + _VERY_SMALL * len(raws[0])  # below it one frame for all may do better
    return list(itertools.takewhile(lambda each: len(each.data) >= least, found))


class _KnownWays(NamedTuple):
    """Planes (bit i for plane i) whose way needs no trial, as :func:`encode_planes_at_once` takes them."""

    by_repeats: int
    by_matches: int


def _known_ways(width: int, level: Level, lessons: Lessons[Way] | None) -> _KnownWays | None:
    """Return what is known of the planes of the next chunk; ``None`` if it needs a trial."""
    if level is Level.FAST:
        return _KnownWays((1 << width) - 1, 0)
    if level is not Level.BALANCED or lessons is None:
        return None
    ways = [lessons.recall(plane) for plane in range(width)]
    if Way.DEEP in ways:  # that has to be confirmed each time
        return None
    by_repeats = sum(1 << plane for plane, way in enumerate(ways) if way is Way.SINGLES)
    by_matches = sum(1 << plane for plane, way in enumerate(ways) if way is Way.MATCHES)
    return _KnownWays(by_repeats, by_matches) if by_repeats | by_matches else None


def _encode_plane(plane: Bytes, number: int, level: Level, lessons: Lessons[Way] | None) -> list[Buffer]:
    """Return the parts of a frame. They refer to the plane if it is stored."""
    if plane[0] == plane[-1] == plane[len(plane) // 2] and not (plane != plane[0]).any():
        return [constant_frame(int(plane[0]), len(plane))]
    if level is Level.FAST:
        encoded = _fast(plane)
    elif level is Level.BALANCED:
        encoded = _balanced(plane, number, lessons)
    else:
        encoded = _smallest(plane)
    return [encoded] if encoded is not None and len(encoded) < len(plane) else stored_frame(plane)


def _fast(plane: Bytes) -> bytes | None:
    coded = code_plane(plane, singles_below=_FEW_REPEATS, matches_from=_FEW_REPEATS, matches_in_noise_from=_FEW_REPEATS)
    return coded.singles or coded.matches


def _balanced(plane: Bytes, number: int, lessons: Lessons[Way] | None) -> bytes | None:
    way = lessons.recall(number) if lessons is not None else None
    if way is Way.SINGLES:
        return _fast(plane)
    if way is Way.DEEP:
        return _still_deep(plane, number, lessons)
    singles_below = _ABOVE_ALL if way is None else _BELOW_ALL
    coded = code_plane(plane, singles_below=singles_below, matches_from=0, matches_in_noise_from=_FEW_REPEATS)
    if way is not None or coded.noise:
        return coded.matches
    best, encoded = _by_trial(plane, coded)
    if lessons is not None:
        lessons.learn(number, best)
    return encoded


def _still_deep(plane: Bytes, number: int, lessons: Lessons[Way] | None) -> bytes:
    """Return the plane at the high level, unless it is no longer text. That check takes a tenth of the time."""
    deep, fast = _contexts.deep.compress(plane.data), _fast(plane)
    if fast is None or len(deep) <= len(fast):
        return deep
    if lessons is not None:
        lessons.forget(number)
    return fast


def _by_trial(plane: Bytes, coded: CodedPlane) -> tuple[Way, bytes]:
    assert coded.singles is not None and coded.matches is not None
    best, encoded = Way.MATCHES, coded.matches
    if len(encoded) > _MATCHES_GAIN * len(coded.singles):
        best, encoded = Way.SINGLES, min(coded.singles, encoded, key=len)
    if _may_be_text(plane, coded):
        deep = _contexts.deep.compress(plane.data)
        if len(deep) < _DEEP_GAIN * len(encoded):
            best, encoded = Way.DEEP, deep
    return best, encoded


def _may_be_text(plane: Bytes, coded: CodedPlane) -> bool:
    if len(plane) <= 2 * _SAMPLE_BYTES:
        return True
    if coded.repeats < _MANY_REPEATS and coded.equal < _RUNS * coded.chance + 0.01:
        return False
    middle = len(plane) // 2
    sample = plane[middle : middle + _SAMPLE_BYTES]
    singles = code_plane(
        sample, singles_below=_ABOVE_ALL, matches_from=_ABOVE_ALL, matches_in_noise_from=_ABOVE_ALL
    ).singles
    return len(_contexts.deep.compress(sample.data)) < _DEEP_GAIN * len(singles or sample)


def _smallest(plane: Bytes) -> bytes:
    coded = code_plane(
        plane, singles_below=_ABOVE_ALL, matches_from=_BELOW_ALL, matches_in_noise_from=_BELOW_ALL, exact=True
    )
    forms = [form for form in (coded.singles, coded.matches) if form is not None]
    return min([*forms, *(parser.compress(plane.data) for parser in _thorough.parsers)], key=len)
