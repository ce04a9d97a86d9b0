"""umount: it is over when everything is committed and the daemon is gone, or it says why not."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounted import QATQFS, Mounted, is_running, mounted
from ordinary import NOBODY, can_run_programs
from strict_decoder import decode_container

from qatqfs.mount import mountinfo

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make mount namespaces and bind mounts")
STILL_MOUNTED = 3


def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [*QATQFS, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **settings)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raw(mount: Mounted, name: str) -> bytes:
    return decode_container(mount.stored(name).read_bytes()).raw


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    with mounted(tmp_path) as found:
        yield found


@contextlib.contextmanager
def another_namespace() -> Iterator[subprocess.Popen[str]]:
    """A process in a mount namespace of its own, which has a copy of every mount until it is told to end."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.communicate("end\n")


@contextlib.contextmanager
def bind_mount(source: Path, target: Path) -> Iterator[Path]:
    target.mkdir()
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)


# -- who holds the mount -----------------------------------------------------------------------------------


@root_only
def test_a_mount_held_by_another_mount_namespace_is_left_and_the_holder_named(mount: Mounted) -> None:
    (mount.path / "x").write_bytes(b"content!")
    with another_namespace() as holder:
        result = run("umount", mount.path)
        assert result.returncode == STILL_MOUNTED
        assert f"process {holder.pid} (sh) in another mount namespace, at '{mount.path}'" in result.stderr
        assert result.stderr.count("\n") == 1
        assert mountinfo.mounted_at(str(mount.path)) is None
        assert raw(mount, "x") == b"content!"
        assert is_running(mount.pid)
    assert mount.process is not None and mount.process.wait(60) == 0


@root_only
def test_a_mount_for_reading_held_by_another_mount_namespace_is_left_too(tmp_path: Path) -> None:
    with mounted(tmp_path, "--read-only") as mount:
        with another_namespace() as holder:
            result = run("umount", mount.path)
            assert result.returncode == STILL_MOUNTED and f"process {holder.pid} (sh)" in result.stderr
        assert mount.process is not None and mount.process.wait(60) == 0


@root_only
def test_the_next_mount_says_where_the_last_one_is_still_mounted(mount: Mounted) -> None:
    with another_namespace() as holder:
        assert run("umount", mount.path).returncode == STILL_MOUNTED
        result = run("mount", mount.backing, mount.path)
        assert result.returncode == 2
        assert f"already in use for writing by process {mount.pid}, mounted at '{mount.path}'" in result.stderr
        assert f"process {holder.pid} (sh) in another mount namespace" in result.stderr
    assert mount.process is not None and mount.process.wait(60) == 0


@root_only
def test_a_mount_held_by_a_bind_mount_says_where_that_is(mount: Mounted, tmp_path: Path) -> None:
    (mount.path / "d").mkdir()
    with bind_mount(mount.path / "d", tmp_path / "bound") as bound:
        result = run("umount", mount.path)
        assert result.returncode == STILL_MOUNTED
        assert f"the mount at '{bound}'" in result.stderr
        (bound / "x").write_bytes(b"goes on!")
        assert run("umount", bound).returncode == 0  # the last place, so now it is over
        assert raw(mount, "d/x") == b"goes on!"
    assert mount.process is not None and mount.process.wait(60) == 0


@root_only
def test_a_bind_mount_of_a_directory_is_unmounted_and_the_mount_goes_on(mount: Mounted, tmp_path: Path) -> None:
    (mount.path / "d").mkdir()
    with (
        bind_mount(mount.path / "d", tmp_path / "bound") as bound,
        (mount.path / "d/x").open("wb", buffering=0) as file,
    ):
        file.write(b"content!")
        result = run("umount", bound)
        assert result.returncode == STILL_MOUNTED
        assert f"the mount at '{mount.path}'" in result.stderr
        assert mountinfo.mounted_at(str(bound)) is None
        assert raw(mount, "d/x") == b"content!"  # committed first
        assert file.write(b"more") == 4


@root_only
def test_umount_works_from_another_pid_namespace(mount: Mounted) -> None:
    """Where the daemon's process number is nobody's, or somebody else's."""
    (mount.path / "x").write_bytes(b"content!")
    command = ["unshare", "--pid", "--fork", *QATQFS, "umount", str(mount.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert raw(mount, "x") == b"content!"
    assert mount.process is not None and mount.process.wait(60) == 0


# -- in use, and not answering -----------------------------------------------------------------------------


def test_a_mount_in_use_is_refused_unless_lazy(mount: Mounted) -> None:
    with (mount.path / "x").open("wb", buffering=0) as file:
        file.write(b"before")
        result = run("umount", mount.path)
        assert result.returncode == 2 and "busy" in result.stderr
        assert mountinfo.mounted_at(str(mount.path)) is not None
        result = run("umount", "--lazy", mount.path)
        assert result.returncode == STILL_MOUNTED and "its daemon goes on" in result.stderr
        assert mountinfo.mounted_at(str(mount.path)) is None
        file.write(b" and after")
    assert mount.process is not None and mount.process.wait(60) == 0
    assert raw(mount, "x") == b"before and after"


def test_a_lazy_umount_of_a_mount_that_is_not_in_use_is_like_any_other(mount: Mounted) -> None:
    (mount.path / "x").write_bytes(b"content!")
    result = run("umount", "-l", mount.path)
    assert (result.returncode, result.stderr) == (0, "")
    assert raw(mount, "x") == b"content!"


@root_only
def test_a_daemon_that_does_not_answer_is_left_with_force(mount: Mounted) -> None:
    (mount.path / "x").write_bytes(b"content!")
    mount.sync()
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        result = run("umount", "--force", mount.path)
        assert mountinfo.mounted_at(str(mount.path)) is None
        assert result.returncode == 2 and "its daemon has not ended" in result.stderr
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert mount.process is not None and mount.process.wait(60) == 0
    assert raw(mount, "x") == b"content!"


@root_only
def test_what_was_acknowledged_is_committed_after_force(mount: Mounted) -> None:
    with (mount.path / "x").open("wb", buffering=0) as file:
        file.write(b"content!")
        result = run("umount", "--force", "--lazy", mount.path)
        assert (result.returncode, result.stderr) == (0, "")
        assert raw(mount, "x") == b"content!"
        with pytest.raises(OSError, match="not connected"):
            file.write(b"more")
        with contextlib.suppress(OSError):
            file.close()


def test_several_mounts_are_unmounted_in_one_call(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        mounts = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            mounts.append(stack.enter_context(mounted(tmp_path / name)))
        for mount in mounts:
            (mount.path / "x").write_bytes(b"content!")
        result = run("umount", mounts[0].path, tmp_path, mounts[1].path)
        assert (result.returncode, result.stderr) == (2, f"qatqfs: no qatqfs mount at '{tmp_path}'\n")
        assert [raw(mount, "x") for mount in mounts] == [b"content!"] * 2
        assert not any(is_running(mount.pid) for mount in mounts)


# -- what became of everything -----------------------------------------------------------------------------


def test_umount_fails_when_backing_was_removed(mount: Mounted) -> None:
    with (mount.path / "x").open("wb", buffering=0) as file:
        file.write(b"content!")
        shutil.rmtree(mount.backing)
    result = run("umount", mount.path)
    assert result.returncode == 2
    assert mountinfo.mounted_at(str(mount.path)) is None
    assert mount.process is not None and mount.process.wait(60) == 2


FAILS = """
import errno, os, sys
from qatqfs.store.commit.engine import CommitEngine

def commit(self, node, *, exclusive=False):
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

CommitEngine.commit = commit
from qatqfs.cli.main import main
sys.exit(main())
"""


def test_umount_says_what_could_not_be_committed_and_where_it_is(tmp_path: Path) -> None:
    with mounted(tmp_path, program=[sys.executable, "-c", FAILS]) as mount:
        (mount.path / "x").write_bytes(b"content!")
        result = run("umount", mount.path)
        assert result.returncode == 2
        before, after = result.stderr.splitlines()
        assert before == "qatqfs: x: could not be committed yet: Disk quota exceeded"
        assert "1 file(s) could not be committed (x: Disk quota exceeded)" in after
        assert "they are in staging for the next mount" in after
        assert mount.process is not None and mount.process.wait(60) == 2
        mount.process = None
    with mounted(tmp_path, backing=mount.backing) as again:
        assert (again.path / "x").read_bytes() == b"content!"


NEVER_ENDS = """
import sys, time
from qatqfs.store import Store

Store.sync = lambda *_: time.sleep(600)
from qatqfs.cli.main import main
sys.exit(main())
"""


@root_only
def test_a_daemon_that_is_killed_while_it_commits_is_no_success(tmp_path: Path) -> None:
    with mounted(tmp_path, program=[sys.executable, "-c", NEVER_ENDS]) as mount:
        (mount.path / "x").write_bytes(b"content!")
        with subprocess.Popen([*QATQFS, "umount", "-f", mount.path], stderr=subprocess.PIPE, text=True) as waiting:
            wait_for(lambda: json.loads((mount.backing / ".qatqfs/lock").read_text())["state"] == "stopping")
            mount.kill()
            _, stderr = waiting.communicate(timeout=60)
        assert waiting.returncode == 2
        assert "the daemon ended before it had committed everything" in stderr


# -- Ctrl-C ------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from qatqfs.store.commit.engine import CommitEngine
from qatqfs.store.commit.syncs import Syncs

commit, look = CommitEngine.commit, Syncs.look

def look_and_tell(self, number, wait_s):
    Path({asked!r}).touch()
    return look(self, number, wait_s)

Syncs.look = look_and_tell

def slow(self, node, *, exclusive=False):
    while not Path({go!r}).exists():
        time.sleep(0.01)
    return commit(self, node, exclusive=exclusive)

CommitEngine.commit = slow
from qatqfs.cli.main import main
sys.exit(main())
"""


@contextlib.contextmanager
def slow_mount(tmp_path: Path) -> Iterator[tuple[Mounted, Path]]:
    """A mount whose commits wait until a file is there; it makes one when somebody asks how far they are."""
    go = tmp_path / "go"
    try:
        with mounted(
            tmp_path, program=[sys.executable, "-c", SLOW.format(go=str(go), asked=str(tmp_path / "asked"))]
        ) as mount:
            try:
                yield mount, go
            finally:
                go.touch()
    finally:
        go.touch()


def test_ctrl_c_while_it_commits_says_that_the_daemon_goes_on(tmp_path: Path) -> None:
    with slow_mount(tmp_path) as (mount, go):
        (mount.path / "x").write_bytes(b"content!")
        with subprocess.Popen([*QATQFS, "umount", mount.path], stderr=subprocess.PIPE, text=True) as process:
            wait_for((tmp_path / "asked").exists)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        assert stderr == (
            f"qatqfs: {mount.path} is still mounted, and its daemon goes on committing;"
            f" to wait for it: qatqfs umount {shlex.quote(str(mount.path))}\n"
        )
        go.touch()
        assert run("umount", mount.path).returncode == 0
        assert raw(mount, "x") == b"content!"


@root_only
def test_ctrl_c_after_the_unmount_says_how_to_wait_for_the_daemon(tmp_path: Path) -> None:
    base = tmp_path / "it's a place"
    base.mkdir()
    with mounted(base, program=[sys.executable, "-c", NEVER_ENDS]) as mount:
        (mount.path / "x").write_bytes(b"content!")
        with subprocess.Popen([*QATQFS, "umount", "-f", mount.path], stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: json.loads((mount.backing / ".qatqfs/lock").read_text())["state"] == "stopping")
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130
        said, _, command = stderr.partition("to wait for it: ")
        assert said == f"qatqfs: {mount.path} is unmounted, and its daemon goes on committing; "
        with subprocess.Popen(command, shell=True) as waiting:
            assert waiting.poll() is None
            mount.kill()
            assert waiting.wait(60) == 0


# -- mounting again ----------------------------------------------------------------------------------------


def test_mount_right_after_umount_8_waits_for_the_daemon_on_its_way_out(tmp_path: Path) -> None:
    with slow_mount(tmp_path) as (mount, go):
        (mount.path / "x").write_bytes(b"content!")
        mountinfo.unmount(str(mount.path))
        with subprocess.Popen([*QATQFS, "mount", mount.backing, mount.path], stderr=subprocess.PIPE) as again:
            wait_for(lambda: "stopping" in (mount.backing / ".qatqfs/lock").read_text())
            go.touch()
            assert again.wait(60) == 0
        try:
            assert (mount.path / "x").read_bytes() == b"content!"
        finally:
            assert run("umount", mount.path).returncode == 0
        assert mount.process is not None and mount.process.wait(60) == 0


def test_mount_does_not_wait_for_ever_for_a_daemon_that_commits(tmp_path: Path) -> None:
    with slow_mount(tmp_path) as (mount, _):
        (mount.path / "x").write_bytes(b"content!")
        mountinfo.unmount(str(mount.path))
        result = run("mount", mount.backing, mount.path)
        assert result.returncode == 2
        assert f"was unmounted from '{mount.path}', and process {mount.pid} is still committing" in result.stderr


@root_only
def test_root_unmounts_the_mount_of_another_user(tmp_path: Path) -> None:
    if not can_run_programs():
        pytest.skip("no ordinary user can start programs of this checkout")
    nobody = NOBODY
    backing, path = tmp_path / "backing", tmp_path / "mnt"
    for directory in (backing, path):
        directory.mkdir()
        os.chown(directory, nobody, nobody)
    done = run("mount", backing, path, user=nobody, group=nobody, extra_groups=[])
    if done.returncode:
        pytest.skip(f"another user cannot mount here: {done.stderr}")
    write = f"open({str(path / 'x')!r}, 'wb').write(b'content!')"
    subprocess.run([sys.executable, "-c", write], check=True, user=nobody, group=nobody, extra_groups=[])
    result = run("umount", path)
    assert (result.returncode, result.stderr) == (0, "")
    assert decode_container((backing / "x.qatc").read_bytes()).raw == b"content!"
