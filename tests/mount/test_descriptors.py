"""A mount under a low hard limit of open files: a sensible errno, nothing lost, and room made where it can be."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from mounted import QATQFS, Mounted, errno_of, mounted

pytestmark = pytest.mark.fuse

DATA = os.urandom(20_000)
LIMIT = 128


def limited(limit: int) -> list[str]:
    return ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *QATQFS]


def write_open_files(mount: Mounted, opened: list[int], most: int) -> None:
    """Write so many files and leave them open; their descriptors are in ``opened`` whatever happens."""
    for number in range(most):
        fd = os.open(mount.path / str(number), os.O_CREAT | os.O_RDWR)
        opened.append(fd)
        os.write(fd, DATA)


def close_all(opened: list[int]) -> None:
    for fd in opened:
        with contextlib.suppress(OSError):  # ENOTCONN, its daemon is gone
            os.close(fd)


def written(mount: Mounted) -> set[str]:
    return {path.name for path in mount.path.iterdir() if path.read_bytes() == DATA}


def test_too_many_open_dirty_files_give_an_error_and_what_was_written_is_committed(tmp_path: Path) -> None:
    with mounted(tmp_path, program=limited(LIMIT)) as mount:
        opened: list[int] = []
        try:
            assert errno_of(write_open_files, mount, opened, 200) == "ENFILE"
            assert len(opened) > 20
            assert len(os.listdir(mount.path)) >= len(opened) - 1
            mount.sync()
        finally:
            close_all(opened)
        mount.remount()
        assert len(written(mount)) >= len(opened) - 1


def test_what_was_written_under_the_limit_survives_a_kill(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        opened: list[int] = []
        write_open_files(mount, opened, 120)
        assert mount.process is not None
        mount.process.kill()
        mount.process.wait()
        close_all(opened)
        mount.kill()
        mount.program = limited(LIMIT)
        mount.start()
        assert written(mount) == {str(number) for number in range(120)}


def test_any_number_of_files_can_be_written_one_after_another(tmp_path: Path) -> None:
    with mounted(tmp_path, program=limited(LIMIT)) as mount:
        for number in range(300):
            (mount.path / str(number)).write_bytes(DATA)
        assert len(written(mount)) == 300


def test_a_limit_too_low_for_a_mount_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "backing").mkdir()
    (tmp_path / "mnt").mkdir()
    command = [*limited(64), "mount", str(tmp_path / "backing"), str(tmp_path / "mnt")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "qatqfs: only 64 files may be open here (ulimit -Hn), and a mount needs 128 at least"
    ]
