"""What the options accept: sizes, dtypes, rules, levels. One definition for all verbs and for ``-o``."""

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from qatqfs.codec import DType, Level
from qatqfs.store import StoreOptions

DEFAULTS = StoreOptions()

_F = TypeVar("_F", bound=Callable[..., Any])
_SIZE = re.compile(r"(\d+)\s*(?:([KMGT])(?:iB?)?)?", re.IGNORECASE)
_UNITS = " KMGT"


def parse_size(text: str) -> int:
    """Return the bytes of ``4096``, ``64K``, ``256KiB`` or ``1G`` (K is always 1024); raises BadParameter."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no size, expected something like 64K, 256K, 512M or 1G")
    return int(found[1]) << 10 * _UNITS.index((found[2] or " ").upper())


def parse_dtype(text: str) -> DType:
    """Return the dtype that any of its names means; raises BadParameter."""
    try:
        return DType.parse(text)
    except ValueError as err:
        raise click.BadParameter(str(err)) from err


def parse_dtype_rule(text: str) -> tuple[str, DType]:
    """Return shell pattern and dtype of ``*.bin=bf16``; raises BadParameter."""
    pattern, _, word = text.rpartition("=")
    if not pattern:
        raise click.BadParameter(f"{text!r} is no rule, expected PATTERN=DTYPE, as in '*.bin=bf16'")
    return pattern, parse_dtype(word)


LEVEL = click.Choice([level.label for level in Level], case_sensitive=False)
WORKERS = click.IntRange(min=1)


def size_text(size: int) -> str:
    """Return a size the way :func:`parse_size` reads it, in the largest unit that divides it."""
    power = 0
    while size and size % 1024 == 0 and power < len(_UNITS) - 1:
        size //= 1024
        power += 1
    return f"{size}{_UNITS[power].strip()}"


def encoding_options(command: _F) -> _F:
    """Add --chunk-size, --level and --workers, which mean the same wherever something is encoded."""
    for option in (
        click.option(
            "--workers",
            type=WORKERS,
            metavar="N",
            default=DEFAULTS.workers,
            show_default=f"one for each CPU, here {os.cpu_count()}",
            help="Threads that encode and decode.",
        ),
        click.option(
            "--level",
            type=LEVEL,
            default=DEFAULTS.level.label,
            show_default=True,
            help="How hard to look for a small form: fast only codes entropy, balanced also looks for repetition"
            " where a sample promises some, small tries everything and is slow. Reading is equally fast.",
        ),
        click.option(
            "--chunk-size",
            type=parse_size,
            metavar="SIZE",
            default=size_text(DEFAULTS.chunk_size),
            show_default=True,
            help="Raw bytes in each chunk of a new container; reading one byte decodes one chunk.",
        ),
    ):
        command = option(command)
    return command


def store_options(**settings: Any) -> StoreOptions:
    """Return the options of a store; fails with click's UsageError when their values do not go together."""
    try:
        return StoreOptions(**settings)
    except ValueError as err:
        raise click.UsageError(str(err)) from err
