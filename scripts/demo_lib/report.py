"""The table of sizes: what was written, what is on disk, and what zstd and lz4 make of the same bytes."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import lz4.frame
import zstandard

from demo_lib.dumps import Dump
from demo_lib.session import DemoError, qatqfs

WIDTH = 110
_HEAD = f"{'file':27} {'dtype':5} {'raw bytes':>11} {'on disk':>11} {'ratio':>6} {'zstd-3':>6} {'lz4':>6}  "
_STRATEGY_WIDTH = WIDTH - len(_HEAD)


@dataclass
class Row:
    """Sums over the files of one table line, in bytes."""

    raw: int = 0
    stored: int = 0
    zstd: int = 0
    lz4: int = 0
    dtypes: set[str] = field(default_factory=set)
    strategies: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Row") -> None:
        """Add another line's files to this one's."""
        self.raw += other.raw
        self.stored += other.stored
        self.zstd += other.zstd
        self.lz4 += other.lz4
        self.dtypes |= other.dtypes
        self.strategies += other.strategies

    def line(self, name: str, what: str) -> str:
        """Format one line of the table; ``what`` fills the last column."""
        cells = f"{name:27} {'/'.join(sorted(self.dtypes)):5} {self.raw:11,} {self.stored:11,}"
        ratios = " ".join(f"{size / self.raw:6.3f}" for size in (self.stored, self.zstd, self.lz4))
        return f"{cells} {ratios}  {what}".rstrip()


def measure(dumps: Iterable[Dump], containers: dict[str, Path]) -> dict[str, Row]:
    """Return the rows by name; ``containers`` maps a dump's name to its container on disk."""
    dumps = list(dumps)
    facts = _container_facts([containers[dump.name] for dump in dumps])
    rows: dict[str, Row] = {}
    for dump in dumps:
        path = containers[dump.name]
        dtype, strategies = facts[str(path)]
        rows.setdefault(dump.row, Row()).add(
            Row(
                raw=len(dump.content),
                stored=path.stat().st_size,
                zstd=len(zstandard.compress(dump.content, 3)),
                lz4=len(lz4.frame.compress(dump.content)),
                dtypes={dtype},
                strategies=strategies,
            )
        )
    return rows


def _container_facts(paths: list[Path]) -> dict[str, tuple[str, Counter[str]]]:
    try:
        entries = json.loads(qatqfs("info", "--json", *paths))["files"]
        facts = {entry["path"]: (str(entry["dtype"]), Counter(entry["strategies"])) for entry in entries}
    except (ValueError, TypeError, KeyError) as error:
        raise DemoError(f"qatqfs info --json: not the expected form: {error!r}") from None
    missing = [path for path in paths if str(path) not in facts]
    if missing:
        raise DemoError(f"qatqfs info --json says nothing about {missing[0]}")
    return facts


def table(rows: dict[str, Row]) -> list[str]:
    """Format the rows, their total, and the strategies of all chunks, each line within WIDTH."""
    total = Row()
    for row in rows.values():
        total.add(row)
    everything = ", ".join(f"{name} {count}" for name, count in total.strategies.most_common())
    total.dtypes = set()
    return [
        _HEAD + "strategies (chunks)",
        *(row.line(name, _short(row.strategies)) for name, row in rows.items()),
        total.line("total", f"{total.strategies.total()} chunks"),
        *textwrap.wrap(f"strategies of all chunks: {everything}", WIDTH),
    ]


def _short(strategies: Counter[str]) -> str:
    (name, count), *rest = strategies.most_common()
    text = f"{name} {count}"
    if rest:
        text += f", {sum(n for _, n in rest)} other"
    return textwrap.shorten(text, _STRATEGY_WIDTH, placeholder="...")
