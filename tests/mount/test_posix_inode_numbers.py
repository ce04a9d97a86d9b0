"""Inode numbers in a mount: stable while a file is known, and never shared by two files."""

import os
from pathlib import Path

import pytest
from mounted import errno_of
from sidebyside import SideBySide

pytestmark = pytest.mark.fuse


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_inode_numbers_stay_over_commits_renames_and_other_files_coming_and_going(pair: SideBySide) -> None:
    path = pair.here / "x"
    path.write_bytes(b"content")
    with path.open("rb") as file:  # held open, so the kernel goes on knowing the inode
        number = os.fstat(file.fileno()).st_ino
        for i in range(20):
            (pair.here / f"other{i}").write_bytes(b"other")
            with path.open("ab") as appender:
                appender.write(b"more")
            pair.mount.sync()
            (pair.here / f"other{i}").unlink()
            path.rename(pair.here / f"x{i}")
            path = pair.here / f"x{i}"
            assert inode(path) == os.fstat(file.fileno()).st_ino == number
            assert {entry.inode() for entry in os.scandir(pair.here)} == {number}


def test_no_two_files_have_the_same_inode_number(pair: SideBySide) -> None:
    held = []
    for i in range(200):  # ext4 gives a freed number to the next file at once
        path = pair.here / f"x{i}"
        path.write_bytes(b"content")
        held.append(path.open("rb"))
        if i % 2:
            path.unlink()
        elif i % 3 == 0:
            pair.mount.sync()
    numbers = [os.fstat(file.fileno()).st_ino for file in held]
    for file in held:
        file.close()
    assert len(set(numbers)) == len(numbers)


def test_a_name_that_is_gone_leads_nowhere_although_its_inode_number_comes_back(pair: SideBySide) -> None:
    for i in range(50):
        (pair.here / "old").write_bytes(b"old %d" % i)
        (pair.here / "old").unlink()
        (pair.here / "new").write_bytes(b"new %d" % i)
        assert errno_of((pair.here / "old").read_bytes) == "ENOENT"
        assert (pair.here / "new").read_bytes() == b"new %d" % i
        (pair.here / "new").unlink()
