"""docs/posix.md names a test for every row, and each is there."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "posix.md"


def test_every_row_names_tests_that_exist() -> None:
    defined = {
        name
        for path in HERE.parent.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    rows = [row for row in rows if not row.startswith(("| Behaviour", "| Event", "| What |", "|---"))]
    assert len(rows) > 60
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
        assert named, f"no test: {row}"
        assert set(named) <= defined, f"no such test: {set(named) - defined}"
