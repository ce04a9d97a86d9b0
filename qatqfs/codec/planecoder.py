"""Compress byte planes, each in a zstd frame of its own with the settings that suit it.

The planes of a tensor differ: the top one (sign and exponent) has few symbols, the lower ones are close to
noise. In one frame they would share blocks and Huffman tables, and zstd's match finders find false matches in
them, which makes them slower and larger than coding the entropy alone. Where rows repeat, on the other hand,
only matches help. So each plane is compressed by entropy alone, which is cheap, and then again in ways that
may do better, as far as the level goes and the first results promise something:

* in blocks of 16 KiB instead of 128, for the statistics of a plane drift;
* with a thin table of seven-byte matches, which notices repeated rows at hardly any cost;
* on planes near noise with a binary tree of matches, which gives up quickly where there is nothing;
* with an optimal parser, which weighs each match against the entropy of what it replaces. It is the best of all
  and twenty times slower, hence the last resort of ``BALANCED``;
* all planes in one frame, where hardly anything is left of them.
"""

import threading
from collections.abc import Callable

import zstandard

from qatqfs.codec.buffers import Bytes
from qatqfs.codec.level import Level
from qatqfs.codec.zstdframes import constant_frame

_BLOCK_BYTES = 16 * 1024
_NEAR_NOISE = 0.9
"""Share of the raw bytes from which on entropy coding alone has next to nothing to gain."""
_NOISE = 0.999
"""Share of the raw bytes from which on a plane is noise to the last bit."""
_PROMISING = 0.985
"""Matches pay if even the thin table brings a plane below this share of its entropy coding alone."""
_VERY_SMALL = 1 / 16
"""Share of the raw bytes below which frame headers and tables weigh, so that one frame for all may do better."""


def _compressor(**settings: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters(write_content_size=1, **settings)
    return zstandard.ZstdCompressor(compression_params=parameters)


class _Contexts(threading.local):
    """One compressor for each way, in each thread: they are neither cheap to make nor safe to share."""

    def __init__(self) -> None:
        self.entropy = _compressor(
            strategy=zstandard.STRATEGY_FAST,
            min_match=7,
            hash_log=6,
            chain_log=6,
            target_length=0,
            window_log=17,
        )
        self.thin = _compressor(
            strategy=zstandard.STRATEGY_FAST,
            min_match=7,
            hash_log=14,
            chain_log=6,
            target_length=0,
            window_log=17,
        )
        self.tree = _compressor(
            strategy=zstandard.STRATEGY_BTLAZY2,
            min_match=6,
            hash_log=15,
            chain_log=16,
            search_log=1,
            target_length=32,
            window_log=18,
        )
        self.optimal = _compressor(
            strategy=zstandard.STRATEGY_BTOPT,
            min_match=6,
            hash_log=15,
            chain_log=16,
            search_log=1,
            target_length=32,
            window_log=18,
        )
        self.whole = zstandard.ZstdCompressor(level=9)
        self.ultra = zstandard.ZstdCompressor(level=19)
        self.thorough = [
            _compressor(
                strategy=zstandard.STRATEGY_BTULTRA2,
                min_match=min_match,
                hash_log=17,
                chain_log=18,
                search_log=7,
                target_length=256,
                window_log=18,
            )
            for min_match in (3, 6)
        ]


_contexts = _Contexts()


def encode_planes(planes: Bytes, width: int, level: Level) -> bytes:
    """Return zstd frames that hold the planes one after another.

    Args:
        planes: ``width`` planes of equal length.
        width: how many planes there are.
        level: how hard to look for matches.
    """
    n = len(planes) // width
    if n == 0:
        return b""
    encode = _ENCODERS[level]
    frames = b"".join(_constant(plane) or encode(plane.data) for plane in planes.reshape(width, n))
    if level is Level.SMALL:
        return min(frames, _contexts.ultra.compress(planes.data), key=len)
    if level is Level.BALANCED and len(frames) < _VERY_SMALL * len(planes):
        return min(frames, _contexts.whole.compress(planes.data), key=len)
    return frames


def _constant(plane: Bytes) -> bytes | None:
    """Return the frame of a plane that repeats one byte, ``None`` for any other plane."""
    if plane[0] != plane[-1] or plane[0] != plane[len(plane) // 2] or (plane != plane[0]).any():
        return None
    return constant_frame(int(plane[0]), len(plane))


def _fast(plane: memoryview) -> bytes:
    return _contexts.entropy.compress(plane)


def _balanced(plane: memoryview) -> bytes:
    best = _contexts.entropy.compress(plane)
    if len(best) > _NEAR_NOISE * len(plane):
        return min(best, _contexts.tree.compress(plane), key=len)
    if len(plane) > 2 * _BLOCK_BYTES:
        best = min(best, _in_small_blocks(plane), key=len)
    thin = _contexts.thin.compress(plane)
    if len(thin) > _PROMISING * len(best):
        return min(best, thin, key=len)
    return min(best, thin, _contexts.optimal.compress(plane), key=len)


def _small(plane: memoryview) -> bytes:
    contexts = _contexts
    ways = (contexts.entropy, contexts.thin, contexts.tree, contexts.optimal)
    best = min([_in_small_blocks(plane), *(way.compress(plane) for way in ways)], key=len)
    if len(best) > _NOISE * len(plane):
        return best  # even the optimal parser has found nothing
    return min([best, *(way.compress(plane) for way in (contexts.ultra, *contexts.thorough))], key=len)


def _in_small_blocks(plane: memoryview) -> bytes:
    session = _contexts.entropy.compressobj(size=len(plane))
    parts = []
    for start in range(0, len(plane), _BLOCK_BYTES):
        parts.append(session.compress(plane[start : start + _BLOCK_BYTES]))
        is_last = start + _BLOCK_BYTES >= len(plane)
        parts.append(
            session.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH if is_last else zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        )
    return b"".join(parts)


_ENCODERS: dict[Level, Callable[[memoryview], bytes]] = {
    Level.FAST: _fast,
    Level.BALANCED: _balanced,
    Level.SMALL: _small,
}
