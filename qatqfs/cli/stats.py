"""``qatqfs stats``: show the counters of a running mount."""

import json
from collections.abc import Iterator
from typing import Any

import click

from qatqfs.cli.exits import DONE, say
from qatqfs.cli.running import mount_at
from qatqfs.cli.tables import bytes_text, json_option, table
from qatqfs.mount import control


@click.command()
@click.argument("mountpoint", type=click.Path())
@json_option
def command(mountpoint: str, as_json: bool) -> int:
    """Show what the mount at MOUNTPOINT has counted since it was mounted.

    The counters include reads, cache hits and misses, chunks decoded and encoded, commits, damage found, and dirty
    files and bytes (in staging, in no container yet). Counters that are still zero may be missing.

    \b
    Examples:
      qatqfs stats /data/kv
      qatqfs stats --json /data/kv | jq .cache_hits
    """
    counters = json.loads(control.query(mount_at(mountpoint), control.STATS))
    if as_json:
        say(json.dumps(counters, indent=2))
    else:
        rows = [(name.replace("_", " "), _value_text(name, value)) for name, value in _flat(counters)]
        say(*table(rows, "<>"))
    return DONE


def _flat(counters: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and value of every counter; in a nested object, the object's name comes first."""
    for name, value in counters.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield above + name, value


def _value_text(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return bytes_text(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)
