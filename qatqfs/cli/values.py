"""Options that several verbs share, and what their values may be. ``-o`` of a mount uses the same definitions."""

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
        raise click.BadParameter(f"{text!r} is not a size; use for example 64K, 256K, 512M or 1G")
    return int(found[1]) << 10 * _UNITS.index((found[2] or " ").upper())


def parse_dtype(text: str) -> DType:
    """Return the dtype of any of its names; raises BadParameter."""
    try:
        return DType.parse(text)
    except ValueError as err:
        raise click.BadParameter(str(err)) from err


def parse_dtype_rule(text: str) -> tuple[str, DType]:
    """Return the shell pattern and the dtype of ``*.bin=bf16``; raises BadParameter."""
    pattern, _, word = text.rpartition("=")
    if not pattern:
        raise click.BadParameter(f"{text!r} is not a rule; use PATTERN=DTYPE, for example '*.bin=bf16'")
    return pattern, parse_dtype(word)


LEVEL = click.Choice([level.label for level in Level], case_sensitive=False)
WORKERS = click.IntRange(min=1)


def size_text(size: int) -> str:
    """Return a size as :func:`parse_size` reads it, in the largest unit that divides it."""
    power = 0
    while size and size % 1024 == 0 and power < len(_UNITS) - 1:
        size //= 1024
        power += 1
    return f"{size}{_UNITS[power].strip()}"


chunk_size_option = click.option(
    "--chunk-size",
    type=parse_size,
    metavar="SIZE",
    default=size_text(DEFAULTS.chunk_size),
    show_default=True,
    help="Raw bytes in each chunk of a new container. Reading one byte decodes one chunk.",
)


def dtype_rules_option(text: str) -> Callable[[_F], _F]:
    """Return --dtype PATTERN=DTYPE, which may be repeated, with a help text."""
    return click.option(
        "--dtype",
        "dtype_rules",
        type=parse_dtype_rule,
        metavar="PATTERN=f32|f16|bf16",
        multiple=True,
        help=text,
    )


def encoding_options(command: _F) -> _F:
    """Add --chunk-size, --level and --workers, which mean the same for every verb that encodes."""
    for option in (
        click.option(
            "--workers",
            type=WORKERS,
            metavar="N",
            default=DEFAULTS.workers,
            show_default=f"one for each CPU, here {os.cpu_count()}",
            help="Number of threads that encode and decode.",
        ),
        click.option(
            "--level",
            type=LEVEL,
            default=DEFAULTS.level.label,
            show_default=True,
            help="How hard to search for a smaller form. fast codes entropy only. balanced also searches for"
            " repetition where a sample shows some. small tries everything and is slow. Reading is equally fast.",
        ),
        chunk_size_option,
    ):
        command = option(command)
    return command


def store_options(**settings: Any) -> StoreOptions:
    """Return the options of a store; raises click's UsageError if their values do not go together."""
    try:
        return StoreOptions(**settings)
    except ValueError as err:
        raise click.UsageError(str(err)) from err
