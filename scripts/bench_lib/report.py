"""Figures as text."""

from collections.abc import Iterable, Mapping


def ratio_table(
    columns: tuple[str, str], rows: Iterable[tuple[str, str, str]], speeds: Mapping[str, float]
) -> list[str]:
    """Return lines of speeds in MB/s and their ratio.

    Args:
        columns: headings of ours and theirs.
        rows: a label, and the names in ``speeds`` of ours and theirs; left out where theirs was not measured.
        speeds: MB (10^6 bytes) a second by name.
    """
    present = [row for row in rows if row[2] in speeds]
    width = max(len(label) for label, _, _ in present)
    lines = [f"{'MB/s':{width}} {columns[0]:>8} {columns[1]:>8} {'ratio':>7}"]
    for label, ours, theirs in present:
        lines.append(f"{label:{width}} {speeds[ours]:8.0f} {speeds[theirs]:8.0f} {speeds[ours] / speeds[theirs]:7.2f}")
    return lines
