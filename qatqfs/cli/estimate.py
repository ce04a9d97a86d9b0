"""``qatqfs estimate``: from samples, how small raw files would become, beside other compressors."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from qatqfs.cli.contents import look
from qatqfs.cli.exits import say, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.progress import Progress
from qatqfs.cli.surveying import Survey, Surveyor, Tally
from qatqfs.cli.tables import bytes_text, count_text, json_option, table
from qatqfs.cli.trials import Method, Ours, Sample, Trial, lz4, plan, zstd3
from qatqfs.cli.values import LEVEL, chunk_size_option, dtype_rules_option, parse_size, store_options
from qatqfs.codec import DType, Level

_SAMPLE, _SECONDS = "64M", 20.0
_ALL = "all"
_SURVEY_SHARE = 1 / 3
"""Share of the time limit that finding dtypes may use."""
_TIMED_BYTES = 1 << 20
"""Fewer bytes than this say nothing about a speed."""


@dataclass(slots=True)
class Estimate:
    """What one method would make of some files. The fields are keys of the JSON output, and scripts rely on them.

    Attributes:
        bytes: size that the files would have. Files of which nothing was sampled are not counted.
        ratio: of these to the raw bytes, ``None`` if there are none.
        encode_mb_per_s: millions of raw bytes a second on one core, ``None`` if too few were sampled.
        decode_mb_per_s: the same.
    """

    bytes: int
    ratio: float | None
    encode_mb_per_s: float | None
    decode_mb_per_s: float | None


@dataclass(slots=True)
class Row:
    """Files of one kind, or all files. The fields are keys of the JSON output too.

    Attributes:
        suffix: of the names, ``None`` for all files.
        dtype: of the values, ``None`` for all files.
        files: how many.
        raw_bytes: their size.
        sampled_files: how many of them were sampled.
        sampled_bytes: how much was sampled.
        methods: the estimates, by name of the method.
    """

    suffix: str | None
    dtype: str | None
    files: int
    raw_bytes: int
    sampled_files: int
    sampled_bytes: int
    methods: dict[str, Estimate]


def _parse_sample(_ctx: click.Context, _parameter: click.Parameter, text: str) -> int | None:
    size = None if text.strip().lower() == _ALL else parse_size(text)
    if size == 0:
        raise click.BadParameter(f"a sample of 0 bytes says nothing; give a size, or {_ALL!r}")
    return size


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option(
    "--level",
    "levels",
    type=LEVEL,
    multiple=True,
    show_default="all three",
    help="A level to try. May be repeated.",
)
@click.option(
    "--sample",
    metavar="SIZE|all",
    default=_SAMPLE,
    show_default=True,
    callback=_parse_sample,
    help="Raw bytes to sample, from all over the files; 'all' takes everything.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    metavar="N",
    show_default=f"{_SECONDS:.0f}, or no limit with --sample all",
    help="Time limit, after which no new sample is started. A third of it is for finding dtypes. The time to list the"
    " files is not included.",
)
@dtype_rules_option('Type of the values in files that match a shell pattern, as for "qatqfs mount". May be repeated.')
@chunk_size_option
@json_option
def command(
    paths: tuple[str, ...],
    levels: tuple[str, ...],
    sample: int | None,
    seconds: float | None,
    dtype_rules: tuple[tuple[str, DType], ...],
    chunk_size: int,
    as_json: bool,
) -> int:
    """Estimate how small raw files would become as containers, with zstd -3 and with lz4, and how fast each is here.

    PATH is a file or a directory; a directory stands for every regular file below it. Nothing is written. Samples
    from all over the files are encoded, verified and decoded on one core, and the rest is assumed to be like them.
    The output says how much was sampled. Containers are left out, because they are encoded already. zstd and lz4
    compress pieces of up to 4 MiB. lz4 is shown if its Python package is installed.

    Each kind of file has its own line: a suffix, and the dtype that a mount would find by the user.qatqfs.dtype
    attribute, --dtype, the suffix, a header (.safetensors, .npy) or the data. A ratio is stored bytes to raw bytes.

    \b
    Examples:
      qatqfs estimate /var/cache/lmcache
      qatqfs estimate dumps --level balanced --sample all --json
    """
    wanted = [level for level in Level if not levels or level.label in levels]
    options = store_options(chunk_size=chunk_size, dtype_rules=dtype_rules)
    limit = seconds if seconds is not None or sample is None else _SECONDS
    outcome = Outcome()
    contents = look(paths, outcome, mounted=True)
    survey_limit = _SURVEY_SHARE * (_SECONDS if limit is None else limit)
    survey = Surveyor(paths, options, outcome, time.monotonic() + survey_limit).survey(contents)
    others = [zstd3(), lz4()]
    methods: list[Method] = [Ours(level, chunk_size) for level in wanted]
    methods += [method for method in others if method is not None]
    samples = plan(survey.groups, methods, sample, chunk_size)
    with Progress(sum(piece.size for each in samples for piece in each.pieces), "sampling") as progress:
        deadline = None if limit is None else time.monotonic() + limit - survey_limit
        Trial(methods, outcome, deadline).run(samples, progress.advance)
    for each in samples:
        for size in each.failed.values():
            survey.unreadable.add(size)
    rows = [_row(each, methods) for each in samples if each.files]
    total = _total(rows, samples, methods)
    if as_json:
        say(json.dumps(_as_json(rows, total, survey, others[-1] is not None), indent=2))
    else:
        longest = max((piece.size for each in samples for piece in each.pieces), default=0)
        _print(rows, total, survey, longest, others[-1] is not None)
    return outcome.status


def _row(sample: Sample, methods: Sequence[Method]) -> Row:
    files = sample.files
    raw = sum(file.size for file in files)
    found = {}
    for method in methods:
        score = sample.scores[method.name]
        known = score.raw or not raw
        stored = round(score.ratio * raw) if score.raw else 0
        stored += method.framing(files) if known else 0
        found[method.name] = Estimate(
            stored,
            round(stored / raw, 6) if raw and known else None,
            _speed(score.raw, score.encode_s),
            _speed(score.raw, score.decode_s),
        )
    done = len(sample.done.difference(sample.failed))
    return Row(sample.group.suffix, sample.group.dtype.label, len(files), raw, done, sample.sampled, found)


def _total(rows: Sequence[Row], samples: Sequence[Sample], methods: Sequence[Method]) -> Row:
    """Add up the rows. Speeds are those of the mixture of kinds that was sampled."""
    covered = [row for row in rows if row.sampled_bytes or not row.raw_bytes]
    raw = sum(row.raw_bytes for row in covered)
    found = {}
    for method in methods:
        stored = sum(row.methods[method.name].bytes for row in covered)
        scores = [sample.scores[method.name] for sample in samples]
        size = sum(score.raw for score in scores)
        found[method.name] = Estimate(
            stored,
            round(stored / raw, 6) if raw else None,
            _speed(size, sum(score.encode_s for score in scores)),
            _speed(size, sum(score.decode_s for score in scores)),
        )
    return Row(
        None,
        None,
        sum(row.files for row in rows),
        sum(row.raw_bytes for row in rows),
        sum(row.sampled_files for row in rows),
        sum(row.sampled_bytes for row in rows),
        found,
    )


def _speed(size: int, seconds: float) -> float | None:
    return round(size / 1e6 / seconds, 1) if size >= _TIMED_BYTES and seconds > 0 else None


def _as_json(rows: Sequence[Row], total: Row, survey: Survey, has_lz4: bool) -> dict[str, Any]:
    return {
        "kinds": [asdict(row) for row in rows],
        "total": asdict(total),
        "not_reached_bytes": sum(row.raw_bytes for row in rows if not row.sampled_bytes),
        "guessed_dtypes": survey.guessed,
        "containers": _as_counts(survey.containers),
        "payloads": _as_counts(survey.payloads),
        "unreadable": _as_counts(survey.unreadable),
        "lz4_installed": has_lz4,
    }


def _as_counts(tally: Tally) -> dict[str, int]:
    return {"files": tally.files, "bytes": tally.size}


def _print(rows: Sequence[Row], total: Row, survey: Survey, longest_piece: int, has_lz4: bool) -> None:
    if rows:
        names = list(total.methods)
        lines = [("KIND", "DTYPE", "FILES", "RAW", "SAMPLED", *map(str.upper, names))]
        for row in [*rows, total] if len(rows) > 1 else rows:
            ratios = (_ratio_text(row.methods[name].ratio) for name in names)
            kind = "total" if row.suffix is None else shown(row.suffix)
            sizes = (f"{row.files:,}", bytes_text(row.raw_bytes), bytes_text(row.sampled_bytes))
            lines.append((kind, row.dtype or "", *sizes, *ratios))
        say(*table(lines, "<<>>>" + ">" * len(names)), "")
        summary = [("METHOD", "WOULD TAKE", "RATIO", "ENCODE", "DECODE")]
        for name, found in total.methods.items():
            speeds = (_speed_text(found.encode_mb_per_s), _speed_text(found.decode_mb_per_s))
            summary.append((name, bytes_text(found.bytes), _ratio_text(found.ratio), *speeds))
        say(*table(summary, "<>>>>"), "")
    say(*_notes(rows, total, survey, longest_piece, has_lz4))


def _ratio_text(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _speed_text(speed: float | None) -> str:
    return "-" if speed is None else f"{speed:,.0f} MB/s"


def _notes(rows: Sequence[Row], total: Row, survey: Survey, longest_piece: int, has_lz4: bool) -> list[str]:
    """Return notes that say how far the numbers can be trusted."""
    notes = []
    if total.raw_bytes:
        if total.sampled_bytes == total.raw_bytes:
            notes.append(f"Sampled all of {bytes_text(total.raw_bytes)} in {count_text(total.files, 'file')}.")
        else:
            notes.append(
                f"Sampled {bytes_text(total.sampled_bytes)} of {bytes_text(total.raw_bytes)}"
                f" ({total.sampled_bytes / total.raw_bytes:.1%}), from {total.sampled_files:,} of"
                f" {count_text(total.files, 'file')}; the rest is assumed to be similar."
            )
        notes.append(f"Speeds are of one core. zstd and lz4 compress pieces of up to {bytes_text(longest_piece)}.")
    elif not rows:
        notes.append("There are no raw files.")
    missed = sum(row.raw_bytes for row in rows if not row.sampled_bytes)
    if missed:
        notes.append(f"Not reached in time, and in no ratio: kinds with {bytes_text(missed)}; give more --seconds.")
    if survey.guessed:
        notes.append(f"Dtype assumed to be that of a neighbour: {count_text(survey.guessed, 'file')}.")
    for tally, what in (
        (survey.containers, "container"),
        (survey.payloads, "bare payload"),
        (survey.unreadable, "file that could not be read"),
    ):
        if tally.files:
            plural = "files that could not be read" if what.startswith("file") else None
            notes.append(f"Left out: {count_text(tally.files, what, plural)}, {bytes_text(tally.size)}.")
    if rows and not has_lz4:
        notes.append("lz4 is left out: its Python package is not installed (pip install lz4).")
    return notes
