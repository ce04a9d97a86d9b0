"""Locks between processes, and extended attributes."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sidebyside import SideBySide, opened, outcome, python

pytestmark = pytest.mark.fuse

DATA = bytes(range(256)) * 1024  # four chunks of 64 KiB

# -- locks -----------------------------------------------------------------------------------------------

LOCKS: dict[str, str] = {
    "flock": "fcntl.flock(fd, {kind} | fcntl.LOCK_NB)",
    "lockf": "fcntl.lockf(fd, {kind} | fcntl.LOCK_NB, 10, 5)",
}


@pytest.mark.parametrize("ours", ["LOCK_EX", "LOCK_SH", "LOCK_UN"])
@pytest.mark.parametrize("theirs", ["LOCK_EX", "LOCK_SH"])
@pytest.mark.parametrize("how", LOCKS)
def test_locks_exclude_other_processes(pair: SideBySide, how: str, ours: str, theirs: str) -> None:
    code = f"""
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    {LOCKS[how].format(kind="fcntl." + theirs)}
    print("locked")
except OSError as err:
    print(type(err).__name__)
"""

    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(DATA)
        with opened(path, os.O_RDWR) as fd:
            fcntl.flock(fd, getattr(fcntl, ours)) if how == "flock" else fcntl.lockf(fd, getattr(fcntl, ours), 10, 10)
            first = python(code, path).communicate()[0]
        return first, python(code, path).communicate()[0]

    assert pair.both(work)[1] == "locked\n"


def test_a_lock_outlives_a_commit_and_ends_with_the_process(pair: SideBySide) -> None:
    code = """
import fcntl, sys, time
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("x", flush=True)
time.sleep(60)
"""
    path = pair.here / "x"
    path.write_bytes(DATA)
    holder = python(code, path)
    assert holder.stdout is not None
    assert holder.stdout.read(1) == "x"
    with path.open("r+b", buffering=0) as file:
        file.write(b"changed")
        pair.mount.sync()
        with pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.communicate()
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- extended attributes ---------------------------------------------------------------------------------


def test_extended_attributes_where_the_backing_filesystem_has_them(pair: SideBySide) -> None:
    calls: list[Callable[[Path], object]] = [
        lambda p: os.setxattr(p, "user.a", b"1"),
        lambda p: os.setxattr(p, "user.a", b"2", os.XATTR_CREATE),
        lambda p: os.setxattr(p, "user.b", b"2", os.XATTR_REPLACE),
        lambda p: os.setxattr(p, "user.a", b"\0\xff" * 500, os.XATTR_REPLACE),
        lambda p: os.setxattr(p, "user.empty", b""),
        lambda p: os.getxattr(p, "user.a"),
        lambda p: os.getxattr(p, "user.empty"),
        lambda p: os.getxattr(p, "user.absent"),
        lambda p: os.removexattr(p, "user.empty"),
        lambda p: os.removexattr(p, "user.absent"),
        lambda p: os.setxattr(p, "user." + "n" * 250, b"long name"),
        lambda p: os.setxattr(p, "user." + "n" * 251, b"too long"),
        lambda p: os.setxattr(p, "user.big", b"x" * 3000),
        lambda p: os.setxattr(p, "user.too-big", b"x" * 65537),
        lambda p: os.setxattr(p, "nonsense.x", b"1"),
        lambda p: os.setxattr(p, "trusted.x", b"1", follow_symlinks=False),
        lambda p: os.getxattr(p, "trusted.x", follow_symlinks=False),
        lambda p: sorted(os.listxattr(p)),
        lambda p: sorted(os.listxattr(p, follow_symlinks=False)),
    ]

    def work(directory: Path) -> object:
        (directory / "file").write_bytes(b"content")
        (directory / "directory").mkdir()
        (directory / "link").symlink_to("directory/x")
        os.mkfifo(directory / "fifo")
        names = ("file", "directory", "link", "fifo")
        found = [outcome(lambda d, n=name, c=call: c(d / n), directory) for name in names for call in calls]
        pair.mount.sync()
        return [*found, sorted(os.listxattr(directory / "file")), os.getxattr(directory / "file", "user.a")]

    pair.both(work)


def test_extended_attributes_survive_rewriting_and_renaming_over_does_not_mix_them(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        for name in ("a", "b"):
            (directory / name).write_bytes(DATA)
            os.setxattr(directory / name, f"user.{name}", name.encode())
        pair.mount.sync()
        (directory / "a").write_bytes(b"rewritten")
        pair.mount.sync()
        (directory / "b").rename(directory / "c")
        os.rename(directory / "a", directory / "c")
        return os.listxattr(directory / "c"), (directory / "c").read_bytes()

    pair.both(work)
