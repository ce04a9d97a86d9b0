"""The ``-o`` options of a mount: what fstab(5), mount(8) and mount.fuse3(8) make of a line, also when it changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mounted import errno_of, mounted

from qatqfs.mount import control, mountinfo

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may remount")


@pytest.fixture
def mount(tmp_path):
    with mounted(tmp_path) as found:
        (found.path / "x").write_bytes(b"content")
        yield found


def flags(mount) -> set[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    (line,) = [line.split() for line in lines if line.split()[1] == str(mount.path).replace(" ", r"\040")]
    return set(line[3].split(","))


@root_only
def test_a_mount_can_be_made_read_only_and_writable_again(process, mount):
    result = process(mount.backing, mount.path, "-o", "remount,ro")
    assert (result.status, result.err) == (0, "")
    assert "ro" in flags(mount)
    assert errno_of((mount.path / "y").write_bytes, b"no") == "EROFS"
    assert (mount.path / "x").read_bytes() == b"content"
    assert process(mount.backing, mount.path, "-o", "remount,rw").status == 0
    assert "rw" in flags(mount)
    (mount.path / "y").write_bytes(b"yes")


@root_only
def test_remounting_changes_what_is_named_and_leaves_the_rest(process, mount):
    before = flags(mount)
    assert {"nosuid", "nodev"} <= before
    assert process(mount.backing, mount.path, "-o", "remount,noexec").status == 0
    assert flags(mount) == before | {"noexec"}
    assert process(mount.backing, mount.path, "-o", "remount,exec,noatime,level=small,x-initrd.mount").status == 0
    assert flags(mount) - {"noatime"} == before - {"relatime"}


@root_only
def test_what_was_written_before_a_mount_became_read_only_is_committed(process, mount):
    process(mount.backing, mount.path, "-o", "remount,ro")
    assert mount.stop() == 0
    assert mount.stored("x").stat().st_size > 72


@root_only
def test_a_mount_with_a_file_open_for_writing_stays_writable(process, mount):
    with (mount.path / "y").open("wb"):
        result = process(mount.backing, mount.path, "-o", "remount,ro")
    assert result.status == 2 and "files are open for writing" in result.error
    assert "rw" in flags(mount)


@root_only
def test_a_mount_that_was_made_read_only_is_not_made_writable(process, tmp_path):
    with mounted(tmp_path, "--read-only") as mount:
        result = process(mount.backing, mount.path, "-o", "remount,rw")
        assert result.status == 2 and "was mounted read-only" in result.error
        assert "ro" in flags(mount)
        assert process(mount.backing, mount.path, "-o", "remount,noexec").status == 0
        assert {"ro", "noexec"} <= flags(mount)


@pytest.mark.parametrize("which", ["no mount", "another store"])
def test_a_remount_of_what_is_not_there_is_refused(process, mount, tmp_path, which):
    (tmp_path / "other").mkdir()
    places = {"no mount": (mount.backing, tmp_path / "other"), "another store": (tmp_path / "other", mount.path)}
    result = process(*places[which], "-o", "remount,ro")
    assert result.status == 2
    assert ("no qatqfs mount at" if which == "no mount" else "not " + repr(str(tmp_path / "other"))) in result.error
    assert "rw" in flags(mount)


@pytest.fixture
def helper(tmp_path):
    """Run mount.fuse3(8), which is what mount(8) runs, with a qatqfs in PATH."""
    program = shutil.which("mount.fuse3", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if program is None:
        pytest.skip("mount.fuse3 is not installed")
    script = tmp_path / "bin" / "qatqfs"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m qatqfs.cli "$@"\n')
    script.chmod(0o755)

    def call(backing, mountpoint, words):
        environment = os.environ | {"PATH": f"{script.parent}:{os.environ['PATH']}"}
        command = [program, backing, mountpoint, "-o", words, "-t", "fuse.qatqfs"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return call


@root_only
def test_mount_8_remounts_what_is_up(helper, mount):
    """It hands on everything that it knows of the mount, from fstab and /proc/mounts."""
    shown = "noatime,remount,user_id=0,group_id=0,default_permissions,user=root,exec,suid,dev,level=fast"
    for word in ("ro", "rw"):
        result = helper(mount.backing, mount.path, f"{word},{shown}")
        assert (result.returncode, result.stderr) == (0, "")
        assert word in flags(mount)


@root_only
def test_a_line_of_fstab_with_everything_in_it_mounts(helper, tmp_path):
    backing, mountpoint = tmp_path / "the store", tmp_path / "the mount"
    backing.mkdir()
    mountpoint.mkdir()
    words = "rw,nofail,_netdev,x-systemd.automount,allow_root,level=fast,nonempty,noatime,user=root,exec,suid,dev"
    result = helper(backing, mountpoint, words)
    try:
        assert (result.returncode, result.stderr) == (0, "")
        (found,) = [one for one in mountinfo.mounts() if one.mountpoint == str(mountpoint)]
        assert found.source == str(backing)
        (mountpoint / "x").write_bytes(b"content")
        control.request_sync(mountpoint)
        assert (backing / "x.qatc").exists()
    finally:
        if mountinfo.mounted_at(str(mountpoint)) is not None:
            mountinfo.unmount(str(mountpoint))


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("fsname=kv", "always its backing directory"),
        ("umask=022", "files keep the modes"),
        ("fmask=133", "files keep the modes"),
        ("uid=1000", "files keep the owners"),
        ("gid=1000", "files keep the owners"),
        ("kernel_cache", "unknown mount option 'kernel_cache'"),
        ("max_read=65536", "as large as the kernel makes them"),
        ("nonempty=1", "unknown mount option 'nonempty'"),
    ],
)
def test_options_of_other_fuse_filesystems_are_refused_with_the_reason(process, tmp_path, word, reason):
    (tmp_path / "backing").mkdir()
    (tmp_path / "mnt").mkdir()
    result = process(tmp_path / "backing", tmp_path / "mnt", "-o", word)
    assert result.status == 2 and reason in result.error
    assert mountinfo.mounted_at(str(tmp_path / "mnt")) is None
