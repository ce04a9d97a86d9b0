"""Who may talk to a daemon, and what users other than its owner can do."""

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted import QATQFS, Mounted, errno_of, mounted, qatqfs_mountpoints
from sidebyside import STRANGER, as_user

from qatqfs.mount import control

pytestmark = [pytest.mark.fuse, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become other users")]

NOBODY = 65534
"""A user with a name, which fusermount3 asks for."""

ASKED = [control.STATS, control.PID, control.BACKING, control.DAEMON]


@pytest.fixture(scope="module")
def open_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount of root's that lets everybody in, with one file that everybody may write."""
    with mounted(tmp_path_factory.mktemp("rights"), "--allow-other") as mount:
        (mount.path / "f").write_bytes(b"content")
        os.chmod(mount.path / "f", 0o666)
        os.chmod(mount.path, 0o777)
        yield mount


@pytest.mark.parametrize("name", ASKED)
def test_root_sees_what_the_daemon_tells_and_others_do_not(open_mount: Mounted, name: bytes) -> None:
    assert os.getxattr(open_mount.path, name)
    for path in (".", "f"):
        assert as_user(
            STRANGER, STRANGER, [], open_mount.path, lambda d, p=path: errno_of(os.getxattr, d / p, name)
        ) == ("EPERM")


def test_others_cannot_make_the_daemon_sync(open_mount: Mounted) -> None:
    for path in (".", "f"):
        work = lambda d, p=path: errno_of(os.setxattr, d / p, control.SYNC, b"1")  # noqa: E731
        assert as_user(STRANGER, STRANGER, [], open_mount.path, work) == "EPERM"
    open_mount.sync()


def test_others_may_set_and_read_the_type_of_their_values(open_mount: Mounted) -> None:
    def work(directory: Path) -> bytes:
        os.setxattr(directory / "f", b"user.qatqfs.dtype", b"f16")
        return os.getxattr(directory / "f", b"user.qatqfs.dtype")

    assert as_user(STRANGER, STRANGER, [], open_mount.path, work) == b"f16"


def run_as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.run(
        [*become, *map(str, command)], capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )


@pytest.fixture
def nobodys_places() -> Iterator[tuple[Path, Path]]:
    """A BACKING of root's that everybody may read, with a file in it, and nobody's mountpoint.

    They are where nobody can get at, which the directories of pytest are not.
    """
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    try:
        pwd.getpwuid(NOBODY)
    except KeyError:
        pytest.skip("there is no user nobody")
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("/dev/fuse is for root alone")
    base = Path("/tmp") / f"qatqfs-rights-{os.getpid()}"
    base.mkdir(mode=0o755)
    try:
        with mounted(base) as mount:
            (mount.path / "f").write_bytes(b"content")
        nobodys = base / "nobodys"
        nobodys.mkdir()
        os.chown(nobodys, NOBODY, NOBODY)
        if run_as_nobody(*QATQFS, "--version").returncode != 0:
            pytest.skip("other users cannot run this installation")
        yield mount.backing, nobodys
    finally:
        for mountpoint in qatqfs_mountpoints(base):
            subprocess.run(["fusermount3", "-u", "-z", "--", mountpoint], check=False)
        shutil.rmtree(base)


def test_a_user_who_cannot_enter_the_private_directory_mounts_read_only_and_is_told(
    nobodys_places: tuple[Path, Path],
) -> None:
    result = run_as_nobody(*QATQFS, "mount", "--read-only", *nobodys_places)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("qatqfs: only the owner of .qatqfs can tell") and result.stderr.count("\n") == 1
    assert run_as_nobody("cat", nobodys_places[1] / "f").stdout == "content"


def test_the_user_who_mounted_sees_what_the_daemon_tells(nobodys_places: tuple[Path, Path]) -> None:
    run_as_nobody(*QATQFS, "mount", "--read-only", *nobodys_places)
    result = run_as_nobody(*QATQFS, "stats", "--json", nobodys_places[1])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["dirty_files"] == 0


def test_a_user_who_cannot_write_to_backing_is_told_so(nobodys_places: tuple[Path, Path]) -> None:
    result = run_as_nobody(*QATQFS, "mount", *nobodys_places)
    assert result.returncode == 2
    assert "ermission denied" in result.stderr and result.stderr.count("\n") == 1


def test_allow_root_lets_root_into_a_users_mount(nobodys_places: tuple[Path, Path]) -> None:
    backing, mountpoint = nobodys_places
    result = run_as_nobody(*QATQFS, "mount", "-o", "ro,allow_root", backing, mountpoint)
    if "user_allow_other" in result.stderr:
        pytest.skip("/etc/fuse.conf has no user_allow_other")
    assert (mountpoint / "f").read_bytes() == b"content"
