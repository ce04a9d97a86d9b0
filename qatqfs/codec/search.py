"""Which strategy holds some values in the fewest bytes.

Byte planes in zstd frames (7) win on nearly all tensors. Others are a transform before the same frames: differences
(8) on smooth f32, the XOR with the element before (9) or with the one a row before (10) on 16-bit values that
change slowly. What a transform gains is seen on a sample of the transformed values, so that hardly any value is
compressed twice; :mod:`planecoder` looks after the planes. Run lengths (2 to 6) may win where next to nothing is
left, as they have no frame headers, and what no strategy makes smaller stays raw bits (1), unless an index frame
has to be appended.

``FAST`` uses no transform, ``BALANCED`` the one that wins on the sample, ``SMALL`` tries on all values what the sample
does not rule out. A :class:`Memory` carries over from chunk to chunk what was found.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qatqfs.codec.buffers import Bytes, scratch
from qatqfs.codec.dtypes import DType
from qatqfs.codec.lessons import Lessons
from qatqfs.codec.level import Level
from qatqfs.codec.planecoder import Way, encode_planes, encode_planes_as_known
from qatqfs.codec.planekernels import Encoded, equal_at_lags, share_equal_at_lag
from qatqfs.codec.planes import Transform, split_planes
from qatqfs.codec.strategies import STRATEGIES
from qatqfs.codec.stride import infer_stride

_PREDICTOR, _RAW_BITS, _PLANES, _DIFFERENCES, _ADJACENT, _STRIDED = 0, 1, 7, 8, 9, 10
_TRANSFORMS = {
    _PLANES: Transform.NONE,
    _DIFFERENCES: Transform.DIFFERENCE,
    _ADJACENT: Transform.XOR,
    _STRIDED: Transform.XOR,
}
_RUN_LENGTHS = (2, 3, 4, 5, 6)
_SAMPLE_PARTS = 4
_SAMPLE_PART_BYTES = 4096
_TINY_BYTES = 1024
"""Up to here the headers of zstd frames weigh, so that every strategy is tried."""
_SHORT_BYTES = 1 << 16
"""Up to here ``SMALL`` asks no sample."""
_LITTLE = 1 / 16
"""Share of the raw bytes below which a sample says too little, and trying everything takes no time."""
_NEXT_TO_NOTHING = 1 / 64
"""Share of the raw bytes below which run lengths may win."""
_WORTH_A_TRIAL = 0.98
"""Share of the plain sample that a transformed one must stay below; nearer to 1 it may be chance."""
_ALIKE = 0.4
"""Share of top bytes that must equal the earlier ones, lest the XOR leave more than it takes away: it wins on K tensors
with 0.45 to 0.5, and on none with 0.4."""
_SURPRISE = 0.1
"""Relative change of a chunk's share from which on what the chunks before taught is doubted."""
_KINDS_OF_CHUNKS = 8
"""Of how many chunks that were tried the shares are remembered: those of layers, of keys and of values differ."""
_HOPELESS = 1.03
"""Relative size in the sample from which ``SMALL`` does not try a transform on all values."""
_GRID = 0.9
"""Share of the plain sample that the predictor has to stay below: it wins on values of its own grid, or not at all."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to values before their planes are compressed.

    Attributes:
        strategy: id, 7 to 10.
        stride: elements, for id 10 alone.
        shares: share of their raw bytes that the chunks took which taught this recipe, the latest first.
    """

    strategy: int
    stride: int = 0
    shares: tuple[float, ...] = field(default=(), compare=False)

    def expects(self, share: float) -> bool:
        """Whether a chunk that takes this share of its raw bytes is like one that taught this recipe."""
        return any(abs(share - known) <= _SURPRISE * known for known in self.shares)


_PLAIN = Recipe(_PLANES)


@dataclass
class Memory:
    """What the chunks of one stream of values taught, kept by whoever encodes the stream.

    It may be shared by the threads that encode the chunks, see :class:`Lessons`. A new one is as good as an old
    one, but for the speed of the first chunks.

    Attributes:
        recipes: which recipe won.
        ways: which way of compressing a plane won with each strategy.
    """

    recipes: Lessons[Recipe] = field(default_factory=Lessons)
    ways: dict[int, Lessons[Way]] = field(
        default_factory=lambda: {i: Lessons() for i in (_PLANES, _DIFFERENCES, _ADJACENT, _STRIDED)}
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all chunks of a stream of values.

    Attributes:
        dtype: type of the values.
        level: how hard to search for a smaller form.
        memory: what earlier chunks of the stream taught, ``None`` for a stream of one chunk.
        verified: decode what was encoded, and compare.
    """

    dtype: DType
    level: Level
    memory: Memory | None = None
    verified: bool = False


def encode_smallest(
    raw: Bytes,
    settings: Settings,
    row_widths: Sequence[int] = (),
    *,
    appendable: bool = False,
    strategy: int | None = None,
    stride: int | None = None,
) -> tuple[int, bytes]:
    """Encode values with the strategy that suits them.

    Args:
        raw: little-endian elements.
        settings: of the stream that they are a chunk of.
        row_widths: elements that a row may have, any numbers: they are tried, and used if that makes it smaller.
        appendable: only strategies whose data ends in zstd frames.
        strategy: force this one.
        stride: elements in a row, needed when strategy 10 is forced.

    Returns:
        The id of the strategy and its data.

    Raises:
        ValueError: when the forced strategy cannot be used.
    """
    if strategy is not None:
        if appendable and strategy in STRATEGIES and STRATEGIES[strategy].zstd_offset is None:
            raise ValueError(f"nothing can be appended to strategy {STRATEGIES[strategy].name}")
        return strategy, _encode(strategy, raw, settings.dtype, settings.level, stride)
    best, data = _smallest_frames(raw, settings, tuple(row_widths))
    if not appendable:
        best, data = _without_frames(raw, settings.dtype, settings.level, best, data)
    return best, data


def encode_as_known(
    raws: Sequence[Bytes], settings: Settings, prefix: bytes, checksum_at: int, row_widths: Sequence[int] = ()
) -> list[Encoded]:
    """Encode chunks as byte planes (7) if it is known already that this suits them, in a fraction of the time.

    Args:
        raws: equally long chunks of little-endian elements.
        settings: of the stream that they are chunks of.
        prefix: written before the data.
        checksum_at: offset in the prefix of the checksum of the values, 8 bytes that are filled in.
        row_widths: as for :func:`encode_smallest`.

    Returns:
        Prefix and data of each, and whether verification succeeded, up to the first one that takes a search.
    """
    size = len(raws[0])
    if size <= _TINY_BYTES:
        return []
    dtype, level, memory = settings.dtype, settings.level, settings.memory

    def encode(some: Sequence[Bytes], ways: Lessons[Way] | None) -> list[Encoded]:
        return encode_planes_as_known(some, dtype.width, level, ways, prefix, checksum_at, verified=settings.verified)

    if level is Level.FAST:
        return encode(raws, None)
    if memory is None:
        return []
    subject, recipes = (dtype, tuple(row_widths)), memory.recipes
    lesson = recipes.latest(subject)
    if lesson is None or lesson != _PLAIN:
        return []
    some = list(itertools.takewhile(lambda _: recipes.recall(subject) is not None, raws))
    found = encode(some, memory.ways[_PLANES])
    for i, each in enumerate(found):
        if not lesson.expects((len(each.data) - len(prefix)) / size):
            recipes.forget(subject)
            return found[:i]
    return found


# -- zstd frames, after a transform or none ----------------------------------------------------------------


def _smallest_frames(raw: Bytes, settings: Settings, row_widths: tuple[int, ...]) -> tuple[int, bytes]:
    dtype, level, memory = settings.dtype, settings.level, settings.memory
    if level is Level.FAST and len(raw) > _TINY_BYTES:
        return _PLANES, _encode_frames(_PLAIN, raw, settings)
    subject = dtype, row_widths  # a chunk of rows of another width is of another tensor
    known = memory.recipes.recall(subject) if memory is not None else None
    if known is not None and known.stride < len(raw) // dtype.width:
        data = _encode_frames(known, raw, settings)
        if known.expects(len(data) / len(raw)):
            return known.strategy, data
    forms = [(_PLAIN, _encode_frames(_PLAIN, raw, settings))]
    before = memory.recipes.latest(subject) if memory is not None else None
    widths = {*row_widths, before.stride} if before is not None else set(row_widths)
    for recipe in _candidates(raw, dtype, level, widths, plain_bytes=len(forms[0][1])):
        forms += [(recipe, _encode_frames(recipe, raw, settings))]
    best, data = min(forms, key=lambda form: len(form[1]))
    if memory is not None and level is not Level.SMALL and len(raw):
        shares = before.shares if before == best else ()
        memory.recipes.learn(subject, replace(best, shares=(len(data) / len(raw), *shares)[:_KINDS_OF_CHUNKS]))
    return best.strategy, data


def _candidates(raw: Bytes, dtype: DType, level: Level, widths: Iterable[int], plain_bytes: int) -> list[Recipe]:
    """Return the recipes worth trying on all values, when without one they take ``plain_bytes``."""
    if dtype is DType.F32:
        recipes = [Recipe(_DIFFERENCES)]
    elif len(raw) <= _TINY_BYTES:
        recipes = [Recipe(_ADJACENT)]
    else:
        recipes = _xor_recipes(raw, level, widths)
    if len(raw) <= _TINY_BYTES or not recipes:
        return recipes
    if plain_bytes < _LITTLE * len(raw) or (level is Level.SMALL and len(raw) <= _SHORT_BYTES):
        return recipes
    plain = len(encode_planes(_sampled_planes(_PLAIN, raw, dtype), dtype.width, Level.FAST))
    limit = plain * (_HOPELESS if level is Level.SMALL else _WORTH_A_TRIAL)
    sizes = {
        recipe: len(encode_planes(_sampled_planes(recipe, raw, dtype), dtype.width, Level.FAST)) for recipe in recipes
    }
    promising = sorted((recipe for recipe in recipes if sizes[recipe] < limit), key=sizes.__getitem__)
    return promising if level is Level.SMALL else promising[:1]


def _xor_recipes(raw: Bytes, level: Level, widths: Iterable[int]) -> list[Recipe]:
    """Return the XOR recipes that the top plane suggests: enough of its bytes must equal the earlier ones.

    ``SMALL`` asks that of proposed widths alone, of which there may be many.
    """
    top_plane = raw[1::2]
    counts = equal_at_lags(top_plane)
    lags = {1, infer_stride(counts) or 1}
    if level is not Level.SMALL:
        lags = {lag for lag in lags if counts[lag] > _ALIKE * counts[0]}
    for lag in widths:
        if 0 < lag < len(counts):
            alike = counts[lag] > _ALIKE * counts[0]
        else:
            alike = 0 < lag < len(top_plane) and share_equal_at_lag(top_plane, lag) > _ALIKE
        if alike:
            lags.add(lag)
    return [Recipe(_STRIDED, lag) if lag > 1 else Recipe(_ADJACENT) for lag in sorted(lags)]


def _sampled_planes(recipe: Recipe, raw: Bytes, dtype: DType) -> Bytes:
    """Return the planes of a few runs of transformed values from all over."""
    planes = _split(recipe, raw, dtype).reshape(dtype.width, -1)
    n, part = planes.shape[1], _SAMPLE_PART_BYTES // dtype.width
    if n <= _SAMPLE_PARTS * part:
        return planes.reshape(-1)
    # in the middle of each quarter, for the first row is as it was: at the very beginning it would count too much
    starts = [(2 * i + 1) * n // (2 * _SAMPLE_PARTS) - part // 2 for i in range(_SAMPLE_PARTS)]
    return np.concatenate([planes[:, start : start + part] for start in starts], axis=1).reshape(-1)


def _split(recipe: Recipe, raw: Bytes, dtype: DType) -> Bytes:
    """Return the planes of the transformed values, in scratch memory."""
    planes = scratch("planes", len(raw))
    split_planes(raw, dtype.width, planes, _TRANSFORMS[recipe.strategy], max(recipe.stride, 1))
    return planes


def _encode_frames(recipe: Recipe, raw: Bytes, settings: Settings) -> bytes:
    planes = _split(recipe, raw, settings.dtype)
    lessons = settings.memory.ways[recipe.strategy] if settings.memory is not None else None
    frames = encode_planes(planes, settings.dtype.width, settings.level, lessons)
    return recipe.stride.to_bytes(4, "big") + frames if recipe.strategy == _STRIDED else frames


# -- everything else ---------------------------------------------------------------------------------------


def _without_frames(raw: Bytes, dtype: DType, level: Level, best: int, data: bytes) -> tuple[int, bytes]:
    """Return the best form, or a smaller one of a strategy that has no zstd frames."""
    tried: list[int] = []
    if len(raw) <= _TINY_BYTES or (len(data) < _NEXT_TO_NOTHING * len(raw) and level is not Level.FAST):
        tried += _RUN_LENGTHS
    if level is Level.SMALL and dtype is DType.F32 and _suits_predictor(raw, dtype):
        tried.append(_PREDICTOR)
    for strategy in tried:
        known = STRATEGIES[strategy]
        if known.encode is None or dtype not in known.dtypes:
            continue
        other = known.encode(raw, dtype, level)
        if other is not None and len(other) < len(data):
            best, data = strategy, other
    if len(data) >= len(raw):
        return _RAW_BITS, _encode(_RAW_BITS, raw, dtype, level)
    return best, data


def _suits_predictor(raw: Bytes, dtype: DType) -> bool:
    encode = STRATEGIES[_PREDICTOR].encode
    if encode is None:
        return False
    sample = raw[:_SAMPLE_PART_BYTES]
    predicted = encode(sample, dtype, Level.FAST)
    return predicted is not None and len(predicted) < _GRID * len(
        encode_planes(_sampled_planes(_PLAIN, sample, dtype), dtype.width, Level.FAST)
    )


def _encode(strategy: int, raw: Bytes, dtype: DType, level: Level, stride: int | None = None) -> bytes:
    known = STRATEGIES.get(strategy)
    if known is None:
        raise ValueError(f"there is no strategy {strategy}")
    if dtype not in known.dtypes:
        raise ValueError(f"strategy {known.name} is not legal for {dtype.label}")
    if known.encode is not None:
        data = known.encode(raw, dtype, level)
    elif known.encode_with_stride is not None and stride is not None:
        data = known.encode_with_stride(raw, dtype, level, stride)
    else:
        raise ValueError(f"strategy {known.name} needs a stride")
    if data is None:
        raise ValueError(f"strategy {known.name} cannot hold these {len(raw)} bytes")
    return data
