"""The table of inodes: numbers that stay, names that move, references that are given back."""

import errno
import stat
from collections.abc import Iterator
from threading import RLock

import pytest
from mounted import errno_of

from qatqfs.mount.inodes import ROOT, InodeTable
from qatqfs.store import Attributes


def attributes(ino: int, mode: int = stat.S_IFREG | 0o644, nlink: int = 1) -> Attributes:
    return Attributes((1, ino), mode, nlink, 0, 0, 0, 0, 0, 0, 0, 0)


class FakeNode:
    def content_tag(self) -> str:
        return "after"


@pytest.fixture
def table() -> Iterator[InodeTable]:
    lock = RLock()
    with lock:
        yield InodeTable(attributes(2, stat.S_IFDIR | 0o755), lock)


def test_names_are_for_who_holds_the_lock() -> None:
    table = InodeTable(attributes(2, stat.S_IFDIR | 0o755), RLock())
    with pytest.raises(AssertionError, match="not held"):
        table.remember(attributes(77), table.get(ROOT), b"x")


def test_a_free_backing_number_is_used(table: InodeTable) -> None:
    assert table.remember(attributes(77), table.get(ROOT), b"x").number == 77


def test_a_number_that_is_taken_gives_one_of_our_own(table: InodeTable) -> None:
    root = table.get(ROOT)
    first = table.remember(attributes(77), root, b"x")
    table.gone((1, 77))
    second = table.remember(attributes(77), root, b"y")
    assert first.number == 77
    assert second.number == 1 << 63


def test_the_backing_number_one_is_not_the_top(table: InodeTable) -> None:
    assert table.remember(attributes(1), table.get(ROOT), b"x").number != ROOT


def test_hard_links_are_one_inode_and_lose_one_name_at_a_time(table: InodeTable) -> None:
    root = table.get(ROOT)
    inode = table.remember(attributes(77, nlink=2), root, b"x")
    assert table.remember(attributes(77, nlink=2), root, b"y") is inode
    assert inode.lookups == 2
    table.unname(root, b"x")
    assert table.path(inode) == b"y"
    table.unname(root, b"y")
    assert errno_of(table.path, inode) == errno.errorcode[errno.ENOENT]


def test_a_file_with_one_link_has_only_the_name_seen_last(table: InodeTable) -> None:
    root = table.get(ROOT)
    inode = table.remember(attributes(77), root, b"x")
    table.remember(attributes(77), root, b"y")  # renamed in BACKING itself
    assert inode.names == {(root, b"y")}


def test_a_commit_changes_the_key_and_nothing_else(table: InodeTable) -> None:
    root = table.get(ROOT)
    inode = table.remember(attributes(77), root, b"x")
    inode.tag = "before"
    table.rekey((1, 77), (1, 88), FakeNode())  # type: ignore[arg-type]
    assert table.remember(attributes(88), root, b"x") is inode
    assert inode.tag == "after"
    assert table.remember(attributes(77), root, b"other") is not inode


def test_a_new_key_that_an_old_inode_still_had_is_taken_from_it(table: InodeTable) -> None:
    root = table.get(ROOT)
    inode = table.remember(attributes(77), root, b"x")
    stale = table.remember(attributes(88), root, b"gone")
    table.rekey((1, 77), (1, 88), FakeNode())  # type: ignore[arg-type]
    assert stale.key is None
    table.forget(stale.number, 1)
    assert table.remember(attributes(88), root, b"x") is inode


def test_renaming_a_directory_moves_everything_in_it(table: InodeTable) -> None:
    root = table.get(ROOT)
    directory = table.remember(attributes(10, stat.S_IFDIR), root, b"d")
    inode = table.remember(attributes(11), directory, b"x")
    table.move(root, b"d", root, b"e")
    assert table.path(inode) == b"e/x"


def test_renaming_over_a_name_takes_it_from_what_was_there(table: InodeTable) -> None:
    root = table.get(ROOT)
    moved = table.remember(attributes(10), root, b"x")
    replaced = table.remember(attributes(11), root, b"y")
    table.move(root, b"x", root, b"y")
    assert table.path(moved) == b"y"
    assert replaced.names == set()


def test_exchanging_swaps_names(table: InodeTable) -> None:
    root = table.get(ROOT)
    one = table.remember(attributes(10), root, b"x")
    other = table.remember(attributes(11), root, b"y")
    table.swap(root, b"x", root, b"y")
    assert (table.path(one), table.path(other)) == (b"y", b"x")


def test_the_last_reference_drops_the_inode_and_its_number_is_free_again(table: InodeTable) -> None:
    root = table.get(ROOT)
    inode = table.remember(attributes(77), root, b"x")
    table.remember(attributes(77), root, b"x")
    table.forget(77, 1)
    assert table.get(77) is inode
    table.forget(77, 1)
    assert errno_of(table.get, 77) == "ENOENT"
    assert len(table) == 1
    assert table.remember(attributes(77), root, b"z").number == 77


def test_the_top_is_never_dropped(table: InodeTable) -> None:
    table.forget(ROOT, 1000)
    assert table.path(table.get(ROOT)) == b""


def test_an_inode_number_that_comes_back_as_another_type_is_another_inode(table: InodeTable) -> None:
    root = table.get(ROOT)
    file = table.remember(attributes(77), root, b"x")
    directory = table.remember(attributes(77, stat.S_IFDIR), root, b"d")
    assert directory is not file
    assert directory.number != file.number
