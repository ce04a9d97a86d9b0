"""``qatqfs info``: how files are stored, and how small, from their headers alone."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import click

from qatqfs.cli.contents import Found, Source, Storage, look
from qatqfs.cli.exits import say, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.progress import Progress
from qatqfs.cli.tables import bytes_text, count_text, json_option, table
from qatqfs.codec import STRATEGIES, UNLIMITED, Container, read_payload_header
from qatqfs.codec.payload import EXACT_HEADER_SIZE, EXACT_MODE, MODE_NAMES, read_bare_header
from qatqfs.store.private import lost_files, open_backing, waiting_files

_HEADING = ("FILE", "DTYPE", "CHUNKS", "CHUNK", "RAW", "STORED", "RATIO", "STRATEGIES")
_ALIGNMENT = "<<>>>>><"


@dataclass(frozen=True, slots=True)
class Description:
    """One file; the fields are the keys of the JSON output, and scripts rely on them."""

    path: str
    kind: str
    logical_bytes: int
    stored_bytes: int
    ratio: float | None
    dtype: str | None
    chunks: int
    chunk_size_bytes: int
    indexed: bool
    strategies: dict[str, int]


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@json_option
def command(paths: tuple[str, ...], as_json: bool) -> int:
    """Show how files are stored: sizes, ratio (stored to raw bytes), dtype, chunks and strategies.

    PATH is a container, a bare QATQ payload, a raw file or a directory. A directory stands for everything below it;
    raw files there are counted, not listed. A backing directory also shows how many dirty files are in staging, and
    the containers in lost+found. Only headers are read. Nothing is decoded or checked; "qatqfs verify" does that.

    \b
    The JSON object always has:
      files     one object for each listed file
      total     files, raw_files (among these), logical_bytes, stored_bytes, ratio
      backings  for each backing directory: path, pending_files, lost_files
      failed    how many files or directories could not be read
    \b
    Examples:
      qatqfs info kv.bf16.qatc
      qatqfs info --json backing
    """
    outcome = Outcome()
    contents = look(paths, outcome)
    named = set(paths)
    listed = [
        found
        for found in contents.files
        if found.path in named or (found.storage is not Storage.RAW and not found.lost)
    ]
    unlisted = [found.size for found in contents.files if found.path not in named and found.storage is Storage.RAW]
    descriptions = []
    with Progress(sum(found.size for found in listed), "reading headers", files=len(listed)) as progress:
        for found in listed:
            progress.begin(found.path)
            with outcome.of(found.path):
                descriptions.append(_describe(found))
            progress.advance(found.size)
    total = _total(descriptions, unlisted)
    backings = []
    for path in contents.backings:
        with outcome.of(path):
            root = open_backing(path)
            backings.append({"path": path, "pending_files": waiting_files(root), "lost_files": lost_files(root)})
    if as_json:
        files = list(map(asdict, descriptions))
        say(json.dumps({"files": files, "total": total, "backings": backings, "failed": outcome.failed}, indent=2))
    else:
        _print(descriptions, total, backings, outcome.failed)
    return outcome.status


def _total(descriptions: list[Description], unlisted: list[int]) -> dict[str, Any]:
    """Add up files, and the sizes in bytes of raw files that are not listed."""
    logical = sum(found.logical_bytes for found in descriptions) + sum(unlisted)
    stored = sum(found.stored_bytes for found in descriptions) + sum(unlisted)
    return {
        "files": len(descriptions) + len(unlisted),
        "raw_files": sum(found.kind == Storage.RAW.value for found in descriptions) + len(unlisted),
        "logical_bytes": logical,
        "stored_bytes": stored,
        "ratio": _ratio(stored, logical),
    }


def _ratio(stored: int, logical: int) -> float | None:
    return round(stored / logical, 6) if logical else None


def _describe(found: Found) -> Description:
    """Read the headers of a file; raises QatcError, OSError."""
    with Source(found.path) as source:
        storage = source.storage()
        if storage is Storage.CONTAINER:
            return _describe_container(source)
        if storage is Storage.PAYLOAD:
            return _describe_payload(source)
        return _description(source, Storage.RAW, source.size, None, 0, 0, Counter())


def _description(
    source: Source,
    storage: Storage,
    logical: int,
    dtype: str | None,
    chunks: int,
    chunk_size: int,
    strategies: Counter[str],
    *,
    indexed: bool = False,
) -> Description:
    return Description(
        path=source.path,
        kind=storage.value,
        logical_bytes=logical,
        stored_bytes=source.size,
        ratio=_ratio(source.size, logical),
        dtype=dtype,
        chunks=chunks,
        chunk_size_bytes=chunk_size,
        indexed=indexed,
        strategies=dict(strategies.most_common()),
    )


def _describe_container(source: Source) -> Description:
    container = Container.open(source.read_at, source.size, limits=UNLIMITED)
    strategies: Counter[str] = Counter()
    largest = 0
    for number in range(container.chunk_count):
        header = container.chunk_header(number).payload
        strategies[STRATEGIES[header.strategy].name] += 1
        largest = max(largest, header.raw_size)
    return _description(
        source,
        Storage.CONTAINER,
        container.length,
        container.dtype.label,
        container.chunk_count,
        largest,
        strategies,
        indexed=container.indexed,
    )


def _describe_payload(source: Source) -> Description:
    head = source.read_at(0, EXACT_HEADER_SIZE)
    header = read_bare_header(head)
    name = MODE_NAMES[header.mode]
    if header.mode == EXACT_MODE:
        header = read_payload_header(head)
        name = STRATEGIES[header.strategy].name
    size = header.raw_size
    return _description(source, Storage.PAYLOAD, size, header.dtype.label, 1, size, Counter({name: 1}))


def _print(descriptions: list[Description], total: dict[str, Any], backings: list[dict[str, Any]], failed: int) -> None:
    if descriptions:
        say(*table([_HEADING, *map(_row, descriptions)], _ALIGNMENT))
    if total["files"] or not failed:
        raw = f" ({total['raw_files']:,} raw)" if total["raw_files"] else ""
        sizes = f"{bytes_text(total['logical_bytes'])} stored in {bytes_text(total['stored_bytes'])}"
        ratio = f", ratio {total['ratio']:.4f}" if total["ratio"] is not None else ""
        without = f"; {failed:,} could not be read" if failed else ""
        say(f"{count_text(total['files'], 'file')}{raw}: {sizes}{ratio}{without}")
    for backing in backings:
        lost = backing["lost_files"]
        say(
            f"{shown(backing['path'])}: {count_text(backing['pending_files'], 'file')} in staging,"
            f" {count_text(len(lost), 'file')} in lost+found" + "".join(f"\n  {shown(name)}" for name in lost)
        )


def _row(found: Description) -> tuple[str, ...]:
    return (
        shown(found.path),
        found.dtype or "raw",
        f"{found.chunks:,}" if found.chunks else "-",
        bytes_text(found.chunk_size_bytes) if found.chunks else "-",
        bytes_text(found.logical_bytes),
        bytes_text(found.stored_bytes),
        f"{found.ratio:.4f}" if found.ratio is not None else "-",
        ", ".join(f"{name} {count:,}" for name, count in found.strategies.items()) or "-",
    )
