"""The mount uses of a store what :mod:`qatqfs.store.facade` says, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from qatqfs.store import Handle, Node, Store
from qatqfs.store.facade import File, FileHandle, FileStore

MOUNT = Path(__file__).parents[2] / "qatqfs/mount"
MODULES = sorted(MOUNT.glob("*.py"))

PROTOCOLS: dict[str, type] = {"store": FileStore, "handle": FileHandle, "attached": FileHandle, "file": File}
"""What variables and attributes of these names are in the mount."""

INSIDE = {"tree", "opener", "syncs", "node", "nodes"}
"""What a store is made of."""

OPEN_TO_ALL = {
    *("attributes", "errors", "facade", "holder", "locks", "options", "paths", "private"),
    *("system.descriptors", "system.fd", "system.calls"),
}
"""Modules of the store that the mount imports; :class:`Store` itself is for the module that opens one."""


def members(protocol: type) -> set[str]:
    found = {name for one in protocol.__mro__ for name in (*vars(one), *vars(one).get("__annotations__", ()))}
    return {name for name in found if not name.startswith("_")}


def attributes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield for each ``a.b.c`` in a module its value (``a.b``) and its last name (``c``)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_mount_uses_only_the_facade(path: Path) -> None:
    for value, name in attributes(path):
        protocol = PROTOCOLS.get(value.split(".")[-1].lstrip("_"))
        if protocol is not None and value != "options.store":
            assert name in members(protocol), f"{path.name} uses {value}.{name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_mount_does_not_look_inside_a_store(path: Path) -> None:
    assert [f"{value}.{name}" for value, name in attributes(path) if name in INSIDE] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_mount_imports_nothing_from_inside_a_store(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("qatqfs.store"):
            continue
        module = (node.module or "").removeprefix("qatqfs.store").lstrip(".")
        if module:
            assert module in OPEN_TO_ALL, f"{path.name} imports {node.module}"
        else:
            allowed = {"StoreError", "StoreOptions"} | ({"Store"} if path.name == "opening.py" else set())
            assert {alias.name for alias in node.names} <= allowed, f"{path.name} imports {ast.unparse(node)}"


@pytest.mark.parametrize(("protocol", "own"), [(FileHandle, Handle), (File, Node)])
def test_files_and_handles_have_what_the_facade_says(protocol: type, own: type, tmp_path: Path) -> None:
    with Store(tmp_path) as store, store.create(b"x") as handle:
        one = handle if own is Handle else handle.file
        assert isinstance(one, own)
        assert [name for name in members(protocol) if not hasattr(one, name)] == []


def test_a_store_has_what_the_facade_says(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert [name for name in members(FileStore) if not hasattr(store, name)] == []
