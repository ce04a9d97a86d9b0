"""The verbs that make, end or talk to a mount."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounted import is_running, mounted
from samples import bf16_bytes
from strict_decoder import decode_container

from qatqfs.mount import control, mountinfo

pytestmark = pytest.mark.fuse


@pytest.fixture
def places(tmp_path):
    """A backing directory and a mountpoint; nothing stays mounted."""
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    yield backing, mountpoint
    while mountinfo.mounted_at(str(mountpoint)) is not None:
        pid = int(control.query(mountpoint, control.PID)) if not mountinfo.is_dead(str(mountpoint)) else None
        mountinfo.unmount(str(mountpoint), lazy=True)
        _wait_for_end(pid)


def _wait_for_end(pid):
    while pid is not None and is_running(pid):
        time.sleep(0.02)


def flags(mountpoint) -> set[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    (line,) = [line.split() for line in lines if line.split()[1] == str(mountpoint).replace(" ", r"\040")]
    return set(line[3].split(","))


def test_mount_returns_when_it_answers_and_umount_when_all_is_committed(process, places):
    backing, mountpoint = places
    result = process("mount", backing, mountpoint)
    assert (result.status, result.out, result.err) == (0, "", "")
    pid = int(control.query(mountpoint, control.PID))
    content = bf16_bytes(3_000_001)
    (mountpoint / "x.bf16").write_bytes(content)
    result = process("umount", mountpoint)
    assert (result.status, result.out, result.err) == (0, "", "")
    assert not is_running(pid)
    assert decode_container((backing / "x.bf16.qatc").read_bytes()).raw == content + b"\0"
    assert list((backing / ".qatqfs" / "staging").iterdir()) == []


def test_what_talks_to_a_mount_imports_nothing_that_takes_long(process, heavy_imports, places):
    backing, mountpoint = places
    process("mount", backing, mountpoint)
    content = bf16_bytes(1000)
    (mountpoint / "x.bf16").write_bytes(content)
    assert heavy_imports("sync", mountpoint, "x.bf16") == set()
    assert decode_container((backing / "x.bf16.qatc").read_bytes()).raw == content
    assert heavy_imports("stats", mountpoint) == set()
    assert heavy_imports("umount", mountpoint) == set()
    assert mountinfo.mounted_at(str(mountpoint)) is None


def test_the_command_of_fstab_mounts(places, tmp_path):
    """mount.fuse3(8) is what mount(8) runs; it finds us in PATH."""
    helper = shutil.which("mount.fuse3", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if helper is None:
        pytest.skip("mount.fuse3 is not installed")
    backing, mountpoint = places
    script = tmp_path / "bin" / "qatqfs"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m qatqfs.cli "$@"\n')
    script.chmod(0o755)
    words = "ro,nofail,noexec,x-systemd.automount,cache_size=1M"
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}"}
    subprocess.run([helper, f"qatqfs#{backing}", mountpoint, "-o", words], check=True, env=environment, timeout=60)
    assert {"ro", "noexec"} <= flags(mountpoint)


def test_the_form_without_verb_mounts(process, places):
    backing, mountpoint = places
    assert process(backing, mountpoint, "-o", "rw,noatime,dtype=*.bin=f16,auto").status == 0
    assert {"rw", "noatime"} <= flags(mountpoint)
    (mountpoint / "x.bin").write_bytes(bf16_bytes(64))
    assert process("sync", mountpoint).status == 0
    assert decode_container((backing / "x.bin.qatc").read_bytes()).dtype == "f16"


@pytest.mark.parametrize("word", ["nodev", "dev", "nosuid", "suid", "noexec", "exec", "noatime", "sync", "dirsync"])
def test_options_of_the_kernel_are_accepted(process, places, word):
    if os.geteuid() != 0 and word in ("dev", "suid"):
        pytest.skip("for root only")
    backing, mountpoint = places
    result = process(backing, mountpoint, "-o", word)
    assert (result.status, result.err) == (0, "")
    expected = {"dev": "nodev", "suid": "nosuid", "exec": "noexec"}.get(word)
    assert (word in flags(mountpoint)) if expected is None else (expected not in flags(mountpoint))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("missing", "mnt"), "backing directory '{}/missing' does not exist"),
        (("backing", "missing"), "mountpoint '{}/missing' does not exist"),
        (("backing", "backing"), "'{}/backing' cannot be its own mountpoint"),
        (("backing", "backing/sub"), "must not contain each other"),
        (("backing", "mnt", "--log-file", "mnt/log"), "must not be below the mountpoint"),
        (("backing", "mnt", "-o", "context=nonsense"), "cannot mount at '{}/mnt': fuse"),  # or fusermount3
    ],
)
def test_a_refused_mount_is_one_line_and_leaves_nothing_mounted(process, places, tmp_path, arguments, text):
    (tmp_path / "backing" / "sub").mkdir()
    result = process("mount", *arguments, cwd=tmp_path)
    assert result.status == 2 and result.out == ""
    assert text.format(tmp_path) in result.error
    assert mountinfo.mounted_at(str(places[1])) is None


def test_a_second_mount_for_writing_says_who_has_it(process, places, tmp_path):
    with mounted(tmp_path, backing=places[0]) as first:
        result = process("mount", places[0], places[1])
        assert result.status == 2
        assert f"already in use for writing by process {first.pid}" in result.error


def test_a_mount_in_front_ends_with_status_0_on_ctrl_c(places):
    backing, mountpoint = places
    command = [sys.executable, "-m", "qatqfs.cli", "mount", "-f", backing, mountpoint]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        while mountinfo.mounted_at(str(mountpoint)) is None:
            time.sleep(0.02)
        (mountpoint / "x").write_bytes(b"abcd")
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    assert decode_container((backing / "x.qatc").read_bytes()).raw == b"abcd"


def test_umount_of_a_mount_in_use_is_refused(process, tmp_path):
    with mounted(tmp_path) as mount, (mount.path / "x").open("wb"):
        result = process("umount", mount.path)
        assert result.status == 2 and "busy" in result.error


def test_umount_removes_a_dead_mount_and_says_so(process, tmp_path):
    with mounted(tmp_path) as mount:
        os.kill(mount.pid, signal.SIGKILL)
        mount.process.wait()
        assert "daemon of this mount is gone" in process("stats", mount.path).error
        result = process("umount", mount.path)
        assert result.status == 0 and "daemon of" in result.error
        assert mountinfo.mounted_at(str(mount.path)) is None


def stored(mount, name) -> bytes:
    return decode_container(mount.stored(name).read_bytes()).raw


@pytest.fixture
def busy(tmp_path):
    """A mount with four files that stay open, so that only a barrier commits them at once."""
    with mounted(tmp_path) as mount:
        (mount.path / "sub").mkdir()
        names = ("x", "y", "sub/x", "sub/z")
        files = [(mount.path / name).open("wb", buffering=0) for name in names]
        try:
            for file, name in zip(files, names, strict=True):
                file.write(name.encode().ljust(8))
            yield mount
        finally:
            for file in files:
                file.close()


def test_sync_without_paths_commits_everything(process, busy):
    result = process("sync", busy.path)
    assert (result.status, result.out, result.err) == (0, "", "")
    for name in ("x", "y", "sub/x", "sub/z"):
        assert stored(busy, name) == name.encode().ljust(8)


def test_sync_takes_absolute_paths(process, busy):
    assert process("sync", busy.path, busy.path / "sub" / "z").status == 0
    assert stored(busy, "sub/z") == b"sub/z   "


def test_sync_takes_paths_from_the_mountpoint(process, busy):
    assert process("sync", busy.path, "sub", "y").status == 0
    for name in ("sub/x", "sub/z", "y"):
        assert stored(busy, name) == name.encode().ljust(8)


def test_sync_takes_paths_from_the_current_directory_first(process, busy):
    assert process("sync", busy.path, "x", cwd=busy.path / "sub").status == 0
    assert stored(busy, "sub/x") == b"sub/x   "


def test_sync_refuses_what_is_not_in_the_mount(process, busy, tmp_path):
    (tmp_path / "outside").write_bytes(b"")
    result = process("sync", busy.path, tmp_path / "outside")
    assert (result.status, result.error) == (2, f"{tmp_path / 'outside'}: is not in the mount at {busy.path}")
    assert process("sync", busy.path, "nowhere").error == "nowhere: No such file or directory"
    assert process("sync", tmp_path).error == f"{tmp_path}: is not a qatqfs mount"


def test_sync_takes_anything_in_a_mount_in_place_of_the_mountpoint(process, busy):
    assert process("sync", ".", cwd=busy.path / "sub").status == 0
    for name in ("sub/x", "sub/z"):
        assert stored(busy, name) == name.encode().ljust(8)
    assert stored(busy, "x") == b""  # only what was asked for
    assert process("sync", busy.path / "x", "y").status == 0
    for name in ("x", "y"):
        assert stored(busy, name) == name.encode().ljust(8)


def test_stats_takes_a_mountpoint_only(process, busy):
    result = process("stats", busy.path / "sub")
    assert (result.status, result.error) == (
        2,
        f"{busy.path / 'sub'}: is not a qatqfs mount, but in the one at {busy.path}",
    )


def test_sync_of_a_read_only_mount_has_nothing_to_do(process, tmp_path):
    with mounted(tmp_path, "--read-only") as mount:
        result = process("sync", mount.path)
        assert (result.status, result.err) == (0, "")


NO_COMMITS = """
import errno, os, sys
from qatqfs.store.commit.engine import CommitEngine

def commit(self, node, *, exclusive=False):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

CommitEngine.commit = commit
from qatqfs.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def stuck(tmp_path):
    """A mount with two closed files, x and sub/y, that cannot be committed."""
    with mounted(tmp_path, program=[sys.executable, "-c", NO_COMMITS]) as mount:
        (mount.path / "sub").mkdir()
        for name in ("x", "sub/y"):
            (mount.path / name).write_bytes(b"content!")
        yield mount
        mount.kill()


def test_sync_names_what_could_not_be_committed_and_why(process, stuck):
    result = process("sync", stuck.path)
    text = "could not be committed and stays in staging: Disk quota exceeded"
    assert (result.status, sorted(result.err.splitlines())) == (
        2,
        [f"qatqfs: {name}: {text}" for name in ("sub/y", "x")],
    )
    assert process("sync", stuck.path, "sub").error == f"sub/y: {text}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to remount")
def test_sync_of_a_mount_that_was_made_read_only_is_no_success_when_files_wait(process, stuck):
    subprocess.run(["mount", "-i", "-o", "remount,ro", stuck.path], check=True)
    assert "ro" in flags(stuck.path)
    result = process("sync", stuck.path, "x")
    assert result.status == 2 and "Disk quota exceeded" in result.error


def test_sync_of_what_may_not_be_read_syncs_the_whole_mount(process, busy):
    os.mkfifo(busy.path / "fifo")
    assert process("sync", busy.path, "fifo").status == 0
    assert stored(busy, "x") == b"x       "


def test_a_mountpoint_may_be_given_by_a_symlink_or_relative(process, busy, tmp_path):
    (tmp_path / "link").symlink_to(busy.path)
    assert process("sync", tmp_path / "link").status == 0
    assert process("stats", busy.path.name, cwd=tmp_path).status == 0


def test_stats_counts_what_was_written(process, tmp_path):
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(bf16_bytes(1_000_000))
        mount.sync()
        counters = json.loads(process("stats", "--json", mount.path).out)
        assert counters["write_bytes"] == 1_000_000 and counters["dirty_files"] == 0
        shown = process("stats", mount.path)
        assert shown.status == 0
        lines = dict(line.rsplit("  ", 1) for line in shown.out.splitlines())
        assert {name.strip(): value.strip() for name, value in lines.items()}["write bytes"] == "976.6 KiB"


@pytest.mark.parametrize("verb", ["verify", "info"])
def test_paths_in_a_mount_are_refused_with_the_backing_directory_named(process, tmp_path, verb):
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(b"abcd")
        for path in (mount.path, mount.path / "x"):
            result = process(verb, path)
            assert result.status == 2
            assert f"{path}: is in the qatqfs mount at {mount.path}" in result.error
            assert str(mount.backing) in result.error


def test_a_container_is_not_encoded_into_a_mount(process, tmp_path):
    (tmp_path / "x").write_bytes(b"abcd")
    with mounted(tmp_path) as mount:
        for where in (("-o", mount.path / "y.qatc"), ("--output-dir", mount.path)):
            result = process("encode", tmp_path / "x", *where)
            assert result.status == 2
            assert f"{where[1]}: is in the qatqfs mount at {mount.path}" in result.error
            assert str(mount.backing) in result.error
        assert os.listdir(mount.path) == []


def test_verify_of_a_directory_does_not_enter_a_mount_below_it(process, tmp_path):
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(b"abcd")
        mount.sync()
        assert process("verify", tmp_path).out.startswith("1 file checked (")


def test_a_mounted_backing_directory_can_be_verified(process, tmp_path):
    with mounted(tmp_path) as mount:
        (mount.path / "x").write_bytes(bf16_bytes(1_000_000))
        mount.sync()
        result = process("verify", mount.backing)
        assert (result.status, result.err) == (0, "")
        assert result.out.startswith("1 file checked (")
