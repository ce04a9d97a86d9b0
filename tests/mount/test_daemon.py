"""How a mount starts, is refused, dies and comes back."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mounted import QATQFS, Mounted, mounted, qatqfs_mountpoints

pytestmark = pytest.mark.fuse


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*QATQFS, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def places(tmp_path: Path):
    """BACKING and MOUNTPOINT for a daemon in the background, which is stopped at the end."""
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    yield backing, mountpoint
    if qatqfs_mountpoints(mountpoint):
        run("umount", mountpoint)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode in (1, 2), result
    assert result.stdout == ""
    assert result.stderr.startswith("qatqfs: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_mount_returns_once_the_mount_answers_and_umount_once_all_is_committed(places) -> None:
    backing, mountpoint = places
    mounted_result = run("mount", backing, mountpoint)
    assert (mounted_result.returncode, mounted_result.stdout, mounted_result.stderr) == (0, "", "")
    (mountpoint / "x").write_bytes(b"data" * 1000)
    unmounted = run("umount", mountpoint)
    assert (unmounted.returncode, unmounted.stdout, unmounted.stderr) == (0, "", "")
    assert os.listdir(mountpoint) == []
    assert (backing / "x.qatc").stat().st_size > 72
    assert list((backing / ".qatqfs/staging").iterdir()) == []


def test_sync_returns_once_what_was_written_is_in_containers(places) -> None:
    backing, mountpoint = places
    run("mount", backing, mountpoint)
    with (mountpoint / "x").open("wb", buffering=0) as file:
        file.write(b"data" * 1000)
        result = run("sync", mountpoint)
        assert (result.returncode, result.stderr) == (0, "")
        assert (backing / "x.qatc").stat().st_size > 72


def test_a_second_mount_for_writing_is_refused_and_a_read_only_one_is_not(places, tmp_path: Path) -> None:
    backing, mountpoint = places
    other = tmp_path / "other"
    other.mkdir()
    run("mount", backing, mountpoint)
    refused(run("mount", backing, other), "already in use")
    (mountpoint / "x").write_bytes(b"data")
    run("sync", mountpoint)
    assert run("mount", "--read-only", backing, other).returncode == 0
    assert (other / "x").read_bytes() == b"data"
    with pytest.raises(OSError, match="Read-only"):
        (other / "y").write_bytes(b"no")
    assert run("umount", other).returncode == 0


def test_places_that_are_not_there_are_named(places, tmp_path: Path) -> None:
    backing, mountpoint = places
    absent, file = tmp_path / "absent", tmp_path / "file"
    file.touch()
    refused(run("mount", absent, mountpoint), str(absent), "does not exist")
    refused(run("mount", backing, absent), str(absent), "does not exist")
    refused(run("mount", file, mountpoint), str(file), "not a directory")
    refused(run("mount", backing, file), str(file), "not a directory")
    refused(run("mount", backing, backing / "sub"), "sub")
    refused(run("mount", backing, backing), "its own mountpoint")
    refused(run("mount", "--log-file", mountpoint / "log", backing, mountpoint), "log file")
    assert qatqfs_mountpoints(tmp_path) == []


def test_unknown_options_are_named_and_nothing_is_mounted(places, tmp_path: Path) -> None:
    backing, mountpoint = places
    refused(run("mount", "--frobnicate", backing, mountpoint), "--frobnicate")
    refused(run("mount", "-o", "frobnicate", backing, mountpoint), "frobnicate")
    refused(run("mount", "--chunk-size", "13", backing, mountpoint), "chunk")
    assert qatqfs_mountpoints(tmp_path) == []


def test_a_format_of_the_future_is_refused(places) -> None:
    backing, mountpoint = places
    (backing / ".qatqfs").mkdir()
    (backing / ".qatqfs/format").write_text("qatqfs backing directory, format 99\n")
    refused(run("mount", backing, mountpoint), "format 99")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set the read-ahead of a mount")
def test_the_kernel_reads_two_chunks_ahead(places) -> None:
    backing, mountpoint = places
    run("mount", backing, mountpoint)
    device = mountpoint.stat().st_dev
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if os.access(path, os.W_OK):
        assert int(path.read_text()) == 512


def test_a_mount_in_a_mount_is_refused(places, tmp_path: Path) -> None:
    backing, mountpoint = places
    other = tmp_path / "other"
    other.mkdir()
    run("mount", backing, mountpoint)
    (mountpoint / "sub").mkdir()
    refused(run("mount", mountpoint / "sub", other), "qatqfs mount")
    refused(run("mount", backing, mountpoint), "already")


def test_umount_of_what_is_no_mount_is_refused(places) -> None:
    refused(run("umount", places[1]), "no qatqfs mount")


def test_umount_of_a_mount_in_use_says_so(places) -> None:
    backing, mountpoint = places
    run("mount", backing, mountpoint)
    with (mountpoint / "x").open("wb"):
        refused(run("umount", mountpoint), "busy")


def test_after_a_kill_umount_and_mount_everything_acknowledged_is_there(places) -> None:
    backing, mountpoint = places
    run("mount", backing, mountpoint)
    (mountpoint / "closed").write_bytes(b"closed" * 50_000)
    file = (mountpoint / "open").open("wb", buffering=0)
    file.write(b"open" * 50_000)
    os.kill(int(os.getxattr(mountpoint, "user.qatqfs.pid")), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.stat(mountpoint)
        except OSError:
            break
    result = run("umount", mountpoint)
    assert result.returncode == 2
    assert "its daemon was gone" in result.stderr and "in staging for the next mount" in result.stderr
    assert qatqfs_mountpoints(mountpoint) == []
    again = run("mount", backing, mountpoint)
    assert again.returncode == 0, again.stderr
    assert (mountpoint / "closed").read_bytes() == b"closed" * 50_000
    assert (mountpoint / "open").read_bytes() == b"open" * 50_000


def test_a_dead_mount_is_cleaned_up_by_the_next_mount(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(b"data")
        assert mount.process is not None
        mount.process.kill()
        mount.process.wait()
        assert qatqfs_mountpoints(mount.path)
        mount.start()
        assert (mount.path / "x").read_bytes() == b"data"
        assert len(qatqfs_mountpoints(mount.path)) == 1


def test_without_the_fuse_device_there_is_one_clear_line(places) -> None:
    backing, mountpoint = places
    code = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True);"
        "os.unshare(os.CLONE_NEWNS) if hasattr(os, 'unshare') else libc.unshare(0x20000);"
        "libc.mount(b'none', b'/', None, 0x44000, None); libc.mount(b'tmpfs', b'/dev', b'tmpfs', 0, None);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    if os.geteuid() != 0:
        pytest.skip("needs root to hide the device")
    result = subprocess.run(
        [QATQFS[0], "-c", code, *QATQFS, "mount", str(backing), str(mountpoint)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    refused(result, "/dev/fuse")


def test_a_read_only_mount_says_how_many_files_wait(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        file = (mount.path / "x").open("wb", buffering=0)
        file.write(b"data")
        mount.kill()
        result = run("mount", "--read-only", mount.backing, mount.path)
        try:
            assert result.returncode == 0
            assert "1 file has uncommitted content" in result.stderr
        finally:
            run("umount", mount.path)
    assert isinstance(mount, Mounted)
