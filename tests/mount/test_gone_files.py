"""A daemon keeps no file open that is gone, though its garbage collector never runs."""

import os
import sys
import time
from pathlib import Path

import pytest
from mounted import Mounted, errno_of, mounted

pytestmark = pytest.mark.fuse

UNCOLLECTED = [sys.executable, "-c", "import gc; gc.disable(); from qatqfs.cli.main import main; main()"]
DEADLINE_S = 20


def gone_but_open(mount: Mounted) -> list[str]:
    """The files of BACKING that the daemon has open and that have no name."""
    found = []
    for link in Path(f"/proc/{mount.pid}/fd").iterdir():
        try:
            path, st = os.readlink(link), link.stat()
        except OSError:  # closed meanwhile
            continue
        if path.startswith(str(mount.backing)) and st.st_nlink == 0:
            found.append(path)
    return found


def settled(mount: Mounted) -> list[str]:
    """The same, once the kernel has told the daemon of the last close and other threads are done with it."""
    deadline = time.monotonic() + DEADLINE_S
    while (left := gone_but_open(mount)) and time.monotonic() < deadline:  # a commit has some of its own for a moment
        time.sleep(0.01)
    return left


def test_of_files_that_were_committed_and_removed(tmp_path: Path) -> None:
    with mounted(tmp_path, "--workers", "2", program=UNCOLLECTED) as mount:
        names = [mount.path / f"x{i}" for i in range(6)]
        for path in names:
            path.write_bytes(os.urandom(1 << 20))
        mount.sync()
        for path in names:
            path.unlink()
        assert settled(mount) == []


def test_of_files_removed_before_their_commit_and_replaced_by_rename(tmp_path: Path) -> None:
    with mounted(tmp_path, "--workers", "2", program=UNCOLLECTED) as mount:
        for i in range(20):
            (mount.path / "x").write_bytes(os.urandom(3 << 20))
            (mount.path / "new").write_bytes(os.urandom(100 + i))
            (mount.path / "new").rename(mount.path / "x")
        (mount.path / "x").unlink()
        assert settled(mount) == []


def test_of_files_that_programs_met_errors_with(tmp_path: Path) -> None:
    with mounted(tmp_path, "--workers", "2", program=UNCOLLECTED) as mount:
        (mount.path / "x").write_bytes(os.urandom(2 << 20))
        mount.sync()
        stored = mount.stored("x")
        damaged = bytearray(stored.read_bytes())
        for place in range(1000, len(damaged) - 1000, 100_000):
            damaged[place] ^= 1
        stored.write_bytes(damaged)
        assert errno_of((mount.path / "x").read_bytes) == "EIO"
        (mount.path / "x").unlink()
        mount.stored("none").write_bytes(b"no container")
        assert errno_of((mount.path / "none").read_bytes) == "EIO"
        (mount.path / "none").unlink()
        assert settled(mount) == []
