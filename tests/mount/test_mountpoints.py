"""What may be mounted over, and what is refused because somebody would miss it."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted import QATQFS, qatqfs_mountpoints

pytestmark = pytest.mark.fuse

_MNT_DETACH = 2  # umount2(2)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*QATQFS, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A store with a file in it, and an empty directory; nothing stays mounted."""
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    assert run("mount", backing, mountpoint).returncode == 0
    (mountpoint / "x").write_bytes(b"data")
    assert run("umount", mountpoint).returncode == 0
    yield backing, mountpoint
    for mounted_at in qatqfs_mountpoints(tmp_path):
        run("umount", mounted_at)


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("qatqfs: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("options", [(), ("-o", "nonempty")], ids=["plain", "nonempty"])
def test_a_store_is_no_mountpoint_for_its_arguments_may_be_swapped(places: tuple[Path, Path], options) -> None:
    backing, mountpoint = places
    line = refusal(run("mount", *options, mountpoint, backing))
    assert f"{str(backing)!r} is itself a backing directory" in line and "BACKING comes first" in line
    assert qatqfs_mountpoints(backing.parent) == []


def test_a_directory_that_is_not_empty_is_a_mountpoint_only_if_that_is_asked_for(places: tuple[Path, Path]) -> None:
    backing, mountpoint = places
    (mountpoint / "precious").write_bytes(b"hidden")
    line = refusal(run("mount", backing, mountpoint))
    assert "is not empty" in line and "-o nonempty" in line
    assert run("mount", "-o", "nonempty", backing, mountpoint).returncode == 0
    assert os.listdir(mountpoint) == ["x"]
    assert run("umount", mountpoint).returncode == 0
    assert (mountpoint / "precious").read_bytes() == b"hidden"


def test_a_store_over_itself_is_refused_in_so_many_words(places: tuple[Path, Path]) -> None:
    assert "cannot be its own mountpoint" in refusal(run("mount", places[0], places[0]))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount an autofs")
def test_an_automounter_can_mount(places: tuple[Path, Path]) -> None:
    """Whoever looks into such a place waits for the mount, so the mount itself must not look."""
    mountpoint = places[1]
    libc = ctypes.CDLL(None, use_errno=True)
    readable, writable = os.pipe()
    options = f"fd={writable},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    if libc.mount(b"automount", os.fsencode(mountpoint), b"autofs", 0, options.encode()) != 0:
        pytest.skip(f"no autofs here: {os.strerror(ctypes.get_errno())}")
    os.close(writable)
    try:
        command = [*QATQFS, "mount", *places]
        done = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert (mountpoint / "x").read_bytes() == b"data"
        assert run("umount", mountpoint).returncode == 0
    finally:
        libc.umount2(os.fsencode(mountpoint), _MNT_DETACH)
        os.close(readable)
