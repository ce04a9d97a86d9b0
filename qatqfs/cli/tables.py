"""Results as aligned text, and the option for JSON instead."""

from collections.abc import Sequence

import click

from qatqfs.mount.asking import Pending

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def bytes_text(size: int) -> str:
    """Return a size for people: ``512 B``, ``1.5 MiB``."""
    scaled, unit = float(size), 0
    while scaled >= 1024 and unit < len(_UNITS) - 1:
        scaled /= 1024
        unit += 1
    return f"{scaled:.{1 if unit else 0}f} {_UNITS[unit]}"


def count_text(count: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 file``, ``3 files``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def table(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Return lines in which the columns of all rows are aligned.

    Args:
        rows: of equal length; the heading is one of them.
        alignment: ``<`` or ``>`` for each column.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [
        [f"{text:{side}{width}}" for text, side, width in zip(row, alignment, widths, strict=True)] for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


def left_text(left: Pending) -> str:
    """Return what is left to commit, as text."""
    files, size = left
    return f"{count_text(files, 'file')}, {bytes_text(size)} left"
