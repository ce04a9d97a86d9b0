"""Measures how small several methods make samples of raw files, and how fast.

A sample consists of pieces from all over a group of files, each some chunks long. Pieces are drawn with equal
probability and measured in random order, so the ratio of those that were done in time stands for all. Every method
gets the same pieces.
"""

import bisect
import importlib
import itertools
import operator
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import zstandard

from qatqfs.cli.contents import Source
from qatqfs.cli.exits import Refusal, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.surveying import Group, RawFile
from qatqfs.codec import (
    CONTAINER_HEADER_SIZE,
    LENGTH_FIELD_SIZE,
    STRATEGIES,
    IndexFrame,
    Level,
    Memory,
    decode_payloads,
    empty_container,
    encode_payload,
    encode_payloads,
    read_payload_header,
)
from qatqfs.store.tensors.header import NO_HEADER, TensorHeader, read_header

PIECE_BYTES = 4 << 20
"""Most bytes in a piece: twice the distance that zstd looks back at level 3."""
_PIECES = 8
"""Fewest pieces of a group that is long enough, because layers, keys and values differ."""
_MOST_PIECES = 1 << 16
"""Most pieces that are drawn from a group that is not taken whole: 64 MiB if its files have a kilobyte each."""
_EVEN_SHARE = 0.25
"""Share of the sample that is split equally among the groups; the rest is split by their size."""
_SEED = 2


@dataclass(slots=True)
class Score:
    """What a method made of its pieces: bytes in and out, and processor time of one core."""

    raw: int = 0
    stored: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0

    @property
    def ratio(self) -> float:
        """Stored bytes per raw byte."""
        return self.stored / self.raw


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, which starts at a chunk boundary.

    Attributes:
        file: the file.
        offset: in the file, in bytes.
        size: in bytes.
    """

    file: RawFile
    offset: int
    size: int


@dataclass(slots=True)
class Known:
    """What is kept of a file between its pieces: its header, and the lessons of its chunks for each level."""

    header: TensorHeader = NO_HEADER
    memories: dict[Level, Memory] = field(default_factory=dict)


class Method(Protocol):
    """A way of making bytes smaller.

    Attributes:
        name: for people, and the key in the JSON output.
    """

    name: str

    def measure(self, piece: Piece, raw: bytes, known: Known, score: Score) -> None:
        """Encode and decode a piece, and add the result to a score."""
        ...

    def framing(self, files: Sequence[RawFile]) -> int:
        """Return the bytes that some files need in addition to their encoded pieces."""
        ...


class Ours:
    """Containers, at one level.

    Args:
        level: effort.
        chunk_size: raw bytes in each chunk.
    """

    def __init__(self, level: Level, chunk_size: int) -> None:
        self.name = level.label
        self._level = level
        self._chunk_size = chunk_size

    def measure(self, piece: Piece, raw: bytes, known: Known, score: Score) -> None:
        """Encode the chunks as in a container, verify each, and decode them."""
        dtype = piece.file.dtype
        memory = known.memories.setdefault(self._level, Memory())
        parts = [memoryview(raw)[at : at + self._chunk_size] for at in range(0, len(raw), self._chunk_size)]
        hints = [
            known.header.row_widths(piece.offset + at, piece.offset + at + len(part), dtype)
            for at, part in zip(range(0, len(raw), self._chunk_size), parts, strict=True)
        ]
        pad = -len(raw) % dtype.width
        if pad:
            parts[-1] = memoryview(bytes(parts[-1]) + bytes(pad))
        last = piece.offset + piece.size == piece.file.size and _has_index(piece.file, self._chunk_size)
        started = time.thread_time()
        payloads: list[bytes] = []
        for widths, group in itertools.groupby(zip(parts, hints, strict=True), key=operator.itemgetter(1)):
            payloads += encode_payloads(
                [part for part, _ in group], dtype, level=self._level, row_widths=widths, memory=memory, verified=True
            )
        # As ContainerWriter does: only zstd data can hold the index frame at the end of a container.
        if last and STRATEGIES[read_payload_header(payloads[-1]).strategy].zstd_offset is None:
            payloads[-1] = encode_payload(parts[-1], dtype, level=self._level, appendable=True, verified=True)
        encoded = time.thread_time()
        decode_payloads(payloads, dtype=dtype)
        score.decode_s += time.thread_time() - encoded
        score.encode_s += encoded - started
        score.stored += sum(map(len, payloads))
        score.raw += len(raw)

    def framing(self, files: Sequence[RawFile]) -> int:
        """Return the bytes of headers, length fields and indexes."""
        total = 0
        for file in files:
            if not file.size:
                total += len(empty_container(file.dtype))
                continue
            chunks = -(-file.size // self._chunk_size)
            total += CONTAINER_HEADER_SIZE + LENGTH_FIELD_SIZE * chunks
            total += IndexFrame.size(chunks) if _has_index(file, self._chunk_size) else 0
        return total


class Other:
    """A general compressor of bytes.

    Args:
        name: of the method.
        compress: compresses bytes.
        decompress: restores them.
    """

    def __init__(self, name: str, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]) -> None:
        self.name = name
        self._compress = compress
        self._decompress = decompress

    def measure(self, piece: Piece, raw: bytes, known: Known, score: Score) -> None:
        """Compress a piece on its own, and decompress it."""
        started = time.thread_time()
        compressed = self._compress(raw)
        encoded = time.thread_time()
        self._decompress(compressed)
        score.decode_s += time.thread_time() - encoded
        score.encode_s += encoded - started
        score.stored += len(compressed)
        score.raw += len(raw)

    def framing(self, files: Sequence[RawFile]) -> int:
        """Return 0, because all framing is in the pieces."""
        return 0


def zstd3() -> Method:
    """Return zstd at level 3, the default of its command."""
    return Other("zstd -3", zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress)


def lz4() -> Method | None:
    """Return lz4 in its frame format, ``None`` where the package is not installed."""
    try:
        frame: Any = importlib.import_module("lz4.frame")  # it has no type annotations
    except ImportError:
        return None
    return Other("lz4", frame.compress, frame.decompress)


def _has_index(file: RawFile, chunk_size: int) -> bool:
    return file.size > chunk_size or file.size % file.dtype.width != 0


@dataclass(slots=True)
class Sample:
    """A group and what is tried on it.

    Attributes:
        group: the files.
        pieces: of its files, in random order.
        scores: by name of the method.
        done: paths of the files that were sampled.
        failed: sizes of the files that could not be read after all, by path.
    """

    group: Group
    pieces: list[Piece]
    scores: dict[str, Score]
    done: set[str] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> list[RawFile]:
        """Return the files of the group that could be read."""
        return [file for file in self.group.files if file.path not in self.failed]

    @property
    def sampled(self) -> int:
        """Raw bytes that were measured."""
        return next(iter(self.scores.values())).raw


def plan(groups: Sequence[Group], methods: Sequence[Method], budget: int | None, chunk_size: int) -> list[Sample]:
    """Draw the pieces.

    Args:
        groups: of files.
        methods: to try.
        budget: raw bytes to sample, ``None`` for all.
        chunk_size: raw bytes in each chunk.
    """
    total = sum(group.size for group in groups)
    samples = []
    for group in groups:
        share = group.size
        if budget is not None and total > budget:
            share = int(budget * ((1 - _EVEN_SHARE) * group.size / total + _EVEN_SHARE / len(groups)))
        pieces = _draw(group, min(share, group.size), chunk_size)
        samples.append(Sample(group, pieces, {method.name: Score() for method in methods}))
    return samples


def _draw(group: Group, share: int, chunk_size: int) -> list[Piece]:
    """Return at least one piece, of about ``share`` bytes in all, in random order."""
    per_piece = max(1, min(PIECE_BYTES, share // _PIECES) // chunk_size) * chunk_size
    if share == group.size:
        per_piece = max(1, PIECE_BYTES // chunk_size) * chunk_size
    ends = list(itertools.accumulate(-(-file.size // per_piece) for file in group.files))
    total = ends[-1] if ends else 0
    taken = 0
    drawn: list[Piece] = []
    for number in random.Random(_SEED).sample(range(total), total if share == group.size else min(total, _MOST_PIECES)):
        index = bisect.bisect_right(ends, number)
        file = group.files[index]
        offset = (number - (ends[index - 1] if index else 0)) * per_piece
        piece = Piece(file, offset, min(per_piece, file.size - offset))
        if drawn and taken + piece.size > share:
            break
        drawn.append(piece)
        taken += piece.size
    return drawn


class Trial:
    """Measures samples, and takes pieces of all groups in turn.

    Args:
        methods: to try, see :func:`plan`.
        outcome: told what cannot be read.
        deadline: on the monotonic clock; after it no piece is started. ``None`` for no deadline.
    """

    def __init__(self, methods: Sequence[Method], outcome: Outcome, deadline: float | None) -> None:
        self._methods = methods
        self._outcome = outcome
        self._deadline = deadline
        self._known: dict[str, Known] = {}

    def run(self, samples: Sequence[Sample], advance: Callable[[int], None]) -> None:
        """Measure all pieces, or as many as time allows; ``advance`` is called with the bytes done."""
        order = sorted(
            (i / len(sample.pieces), number, i)
            for number, sample in enumerate(samples)
            for i in range(len(sample.pieces))
        )
        for done, (_, number, i) in enumerate(order):
            if done and self._deadline is not None and time.monotonic() > self._deadline:
                break
            sample = samples[number]
            piece = sample.pieces[i]
            if piece.file.path not in sample.failed:
                self._measure(sample, piece)
            advance(piece.size)

    def _measure(self, sample: Sample, piece: Piece) -> None:
        """Try every method on one piece. A file that cannot be read counts as failed."""
        path = piece.file.path
        sample.failed[path] = piece.file.size
        with self._outcome.of(path):
            with Source(path) as source:
                raw = source.read_at(piece.offset, piece.size)
                if len(raw) != piece.size:
                    raise Refusal(f"{shown(path)}: became shorter while it was read")
                known = self._known.get(path) or Known(read_header(source.size, source.read_at))
            if piece.size < piece.file.size:
                self._known[path] = known
            for method in self._methods:
                method.measure(piece, raw, known, sample.scores[method.name])
            sample.done.add(path)
            del sample.failed[path]
