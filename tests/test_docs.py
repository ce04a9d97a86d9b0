"""What README and docs/ show of Python runs, and the files, tests and functions that they name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    (page.name, code) for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]
LINKS = sorted({(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text())})

SOURCES = [
    path
    for folder in ("qatqfs", "tests", "scripts")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".pyi", ".h", ".c")
]
FILES = sorted({(page, name) for page in PAGES for name in re.findall(r"[\w/]+\.(?:py|h|c)\b", page.read_text())})
TESTS = sorted({(page, name) for page in PAGES for name in re.findall(r"\btest_\w+\b(?!\.)", page.read_text())})


def files_called(name: str) -> list[Path]:
    """Return the source files whose path is this, or ends in this from some folder on."""
    return [path for path in SOURCES if f"/{path.relative_to(ROOT)}".endswith(f"/{name}")]


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table rows below a heading of a page, without the table's own heading."""
    text = (ROOT / "docs" / page).read_text().split(f"\n{heading}\n", 1)[1]
    lines = [line for line in re.split(r"\n#+ ", text)[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells[1:] if not row[0].startswith("--")]


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs(page: str, code: str) -> None:
    exec(compile(code, page, "exec"), {"__name__": "example"})


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: getattr(value, "name", value))
def test_a_file_that_is_linked_is_there(page: Path, link: str) -> None:
    assert (page.parent / link).exists()


@pytest.mark.parametrize(("page", "name"), FILES, ids=lambda value: getattr(value, "name", value))
def test_a_source_file_that_is_named_is_there(page: Path, name: str) -> None:
    assert files_called(name)


@pytest.mark.parametrize(("page", "name"), TESTS, ids=lambda value: getattr(value, "name", value))
def test_a_test_that_is_named_is_there(page: Path, name: str) -> None:
    defined = re.compile(rf"^ *(?:async )?def {name}\(", re.MULTILINE)
    assert any(defined.search(path.read_text()) for path in SOURCES if path.name.startswith("test_"))


@pytest.mark.parametrize("row", rows("internals.md", "## Where things are decided"), ids=lambda row: row[0])
def test_a_function_that_decides_something_is_in_the_file_that_is_named(row: list[str]) -> None:
    _, files, functions = row
    sources = [path.read_text() for name in re.findall(r"`([\w/]+\.py)`", files) for path in files_called(name)]
    named = re.findall(r"`(?:\w+\.)?(\w+)`", functions)
    assert named
    for function in named:
        defined = re.compile(rf"^ *(?:async )?(?:def|class) {function}\b|\bself\.{function}\b", re.MULTILINE)
        assert any(map(defined.search, sources)), f"{function} is not in {files}"


@pytest.mark.parametrize("row", rows("durability.md", "## What happens, and what survives"), ids=lambda row: row[0])
def test_a_row_about_durability_names_its_tests(row: list[str]) -> None:
    *_, tests = row
    named = re.findall(r"`([\w/]+\.py)`", tests)
    assert named
    text = "\n".join(path.read_text() for name in named for path in files_called(name))
    for phrase in re.findall(r'"([^"]+)"', tests):
        assert phrase in text or phrase.replace(" ", "_") in text, f"{phrase} is in none of {named}"


def test_there_are_examples_links_files_and_tests() -> None:
    assert EXAMPLES
    assert len(LINKS) > 10
    assert len(FILES) > 40
    assert len(TESTS) > 100
