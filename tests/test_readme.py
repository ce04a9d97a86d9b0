"""What the README shows of Python runs, and the files that it names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_file_that_is_linked_is_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_there_is_an_example() -> None:
    assert EXAMPLES
