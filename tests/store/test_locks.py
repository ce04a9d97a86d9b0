"""Which lock protects what: asserted where it is needed, in every test, and at no cost to a mount."""

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qatqfs.store import Store
from qatqfs.store.locks import VARIABLE, assert_held

STORE = Path(__file__).parents[2] / "qatqfs/store"
NODE = {"state.py", "node.py"}
"""The modules that may assign the fields of a node."""

FIELDS = {
    *("key", "path", "storage", "fd", "staging", "sequence", "changed_at", "durable_sequence", "handles", "writers"),
    *("several_names", "durable", "stays_container", "metadata_durable", "_container", "_generation"),
}


def test_a_lock_that_is_not_held_is_found() -> None:
    lock = threading.RLock()
    with pytest.raises(AssertionError, match="not held"):
        assert_held(lock)


def test_a_lock_that_is_held_is_fine() -> None:
    lock = threading.RLock()
    with lock:
        assert_held(lock)


def test_a_lock_that_another_thread_holds_is_not_held() -> None:
    lock = threading.RLock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(30)
        with pytest.raises(AssertionError):
            assert_held(lock)
    finally:
        done.set()
        thread.join()


def test_nothing_is_asserted_unless_the_environment_says_so() -> None:
    command = "import threading; from qatqfs.store.locks import assert_held; assert_held(threading.RLock())"
    without = {name: value for name, value in os.environ.items() if name != VARIABLE}
    assert subprocess.run([sys.executable, "-c", command], env=without, check=False).returncode == 0
    with_it = subprocess.run(
        [sys.executable, "-c", command], env=without | {VARIABLE: "1"}, check=False, capture_output=True
    )
    assert b"AssertionError" in with_it.stderr


def test_a_node_changes_only_under_its_locks(store: Store) -> None:
    with store.create(b"x") as handle:
        for change in (
            lambda: handle.node.renamed(b"y"),
            lambda: handle.node.handle_opened(writable=False),
            lambda: handle.node.become_raw(handle.node.fd, handle.node.key),
            lambda: store.tree.forget_if_idle(handle.node),
        ):
            with pytest.raises(AssertionError, match="not held"):
                change()


def test_the_container_is_replaced_under_both_locks(store: Store) -> None:
    with store.create(b"x") as handle:
        node, container = handle.node, handle.node.container()
        with store.tree.lock, pytest.raises(AssertionError, match="not held"):
            node.replaced(node.fd, node.key, container, whole=True)
        with node.lock, pytest.raises(AssertionError, match="not held"):
            node.replaced(node.fd, node.key, container, whole=True)


def test_a_content_lock_is_not_waited_for_with_the_namespace_lock_held(store: Store) -> None:
    with store.create(b"x") as handle:
        with store.tree.lock, pytest.raises(AssertionError, match="comes after"):
            handle.write(b"abc", 0)
        assert handle.write(b"abc", 0) == 3


def test_a_content_lock_that_is_held_may_be_taken_again_with_the_namespace_lock(store: Store) -> None:
    with store.create(b"x") as handle, handle.node.lock, store.tree.lock:
        assert handle.write(b"abc", 0) == 3


def assigned_fields(path: Path) -> list[str]:
    """Return what a module assigns of something that is called a node."""
    targets: list[ast.expr] = []
    for statement in ast.walk(ast.parse(path.read_text())):
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
            targets.append(statement.target)
    flat = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
    fields = [one for one in flat if isinstance(one, ast.Attribute) and one.attr in FIELDS]
    return [ast.unparse(one) for one in fields if ast.unparse(one.value).split(".")[-1] == "node"]


@pytest.mark.parametrize("path", sorted(STORE.rglob("*.py")), ids=lambda path: str(path.relative_to(STORE)))
def test_only_a_node_assigns_its_fields(path: Path) -> None:
    if path.name not in NODE:
        assert assigned_fields(path) == []
