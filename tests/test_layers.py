"""Imports go one way: between the layers of the package, and between the rooms of the store."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qatqfs"

LAYERS = [("_lazy", "wording"), ("codec",), ("store",), ("mount", "integrations"), ("cli",)]
"""The layers of the package: each imports only itself and those before it."""

ROOMS = [
    ("system",),
    ("errors", "locks", "holder", "options", "tuning", "counters", "paths", "attributes", "private"),
    ("tensors",),
    ("reading",),
    ("staging",),
    ("encoding",),
    ("names",),
    ("commit",),
    ("facade",),
    ("background",),
    ("store",),
]
"""The rooms of the store, in the same order; the names in a tuple stand side by side."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> list[str]:
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> Iterator[list[str]]:
    """Yield the dotted names that a module imports at run time, also inside functions."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{path}: a relative import"
            found = node.module.split(".")
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*found, alias.name)
                is_module = inner.is_dir() or any(inner.with_suffix(ending).exists() for ending in (".py", ".pyi"))
                yield [*found, alias.name] if is_module else found


def position(order: list[tuple[str, ...]], name: str) -> int:
    return next(at for at, names in enumerate(order) if name in names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: "/".join(dotted(path)))
def test_layers_import_only_those_before_them(path: Path) -> None:
    here = dotted(path)
    if len(here) == 1:
        return
    for found in imports(path):
        if found[0] == "qatqfs" and len(found) > 1:
            assert position(LAYERS, found[1]) <= position(LAYERS, here[1]), (
                f"{'.'.join(here)} imports {'.'.join(found)}"
            )


@pytest.mark.parametrize("path", modules(), ids=lambda path: "/".join(dotted(path)))
def test_rooms_of_the_store_import_only_those_before_them(path: Path) -> None:
    here = dotted(path)
    if here[:2] != ["qatqfs", "store"] or len(here) == 2:
        return
    for found in imports(path):
        if found[:2] == ["qatqfs", "store"] and len(found) > 2:
            assert position(ROOMS, found[2]) <= position(ROOMS, here[2]), f"{'.'.join(here)} imports {'.'.join(found)}"


def test_every_module_has_its_place() -> None:
    top = {dotted(path)[1] for path in modules() if len(dotted(path)) > 1}
    rooms = {dotted(path)[2] for path in modules() if dotted(path)[1:2] == ["store"] and len(dotted(path)) > 2}
    assert top <= {name for names in LAYERS for name in names}
    assert rooms <= {name for names in ROOMS for name in names}


def test_no_module_imports_in_a_circle() -> None:
    graph = {".".join(dotted(path)): {".".join(found) for found in imports(path)} for path in modules()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name in done or name not in graph:
            return
        for below in graph[name]:
            visit(below, (*above, name))
        done.add(name)

    for name in graph:
        visit(name, ())
