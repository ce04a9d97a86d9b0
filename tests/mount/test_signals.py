"""Signals: none leaves a mount behind that nobody answers, unless it is a crash."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounted import START_TIMEOUT_S, mounted, qatqfs_mountpoints

from qatqfs.mount import control

pytestmark = pytest.mark.fuse

END = ["TERM", "INT", "QUIT", "HUP", "PWR", "ALRM", "VTALRM", "PROF", "XCPU"]
WITHOUT_EFFECT = ["USR1", "USR2", "POLL", "STKFLT", "PIPE", "XFSZ", "RTMIN", "RTMAX"]
CRASHES = {"ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "SYS", "KILL"}
HARMLESS_BY_DEFAULT = {"CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH"}

MAIN = "import sys; from qatqfs.cli.main import main; sys.argv[0] = 'qatqfs'; main()"
SIGNAL_BEFORE_THE_MOUNT = """
import os, pyfuse3, signal
real = pyfuse3.init
def init(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    real(*args)
pyfuse3.init = init
"""
SIGNAL_RIGHT_AFTER_THE_MOUNT = SIGNAL_BEFORE_THE_MOUNT.replace(
    "    os.kill(os.getpid(), signal.SIGTERM)\n    real(*args)\n",
    "    real(*args)\n    os.kill(os.getpid(), signal.SIGTERM)\n",
)
SIGNAL_BEFORE_THE_ANSWER = """
import os, signal
from qatqfs.mount import readahead
readahead.widen = lambda device: os.kill(os.getpid(), signal.SIGTERM)
"""


def number_of(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name}"]


@pytest.mark.parametrize("name", END)
def test_a_signal_that_ends_a_mount_unmounts_and_commits(tmp_path: Path, name: str) -> None:
    with mounted(tmp_path) as mount:
        file = (mount.path / "x").open("wb", buffering=0)
        file.write(b"data" * 1000)
        assert mount.process is not None
        mount.process.send_signal(number_of(name))
        assert mount.process.wait(timeout=60) == 0, mount.log_text()
        with contextlib.suppress(OSError):  # the connection is gone
            file.close()
        assert qatqfs_mountpoints(mount.path) == []
        assert f"stopping on SIG{name}" in mount.log_text()
    assert (tmp_path / "backing/x.qatc").stat().st_size > 72
    assert list((tmp_path / "backing/.qatqfs/staging").iterdir()) == []


def test_signals_without_a_meaning_have_no_effect(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        for name in WITHOUT_EFFECT:
            os.kill(mount.pid, number_of(name))
            assert control.query(mount.path, control.PID) == b"%d" % mount.pid


def signal_sets(pid: int, *fields: str) -> set[str]:
    """The names of the signals that a process catches or ignores; SigCgt and SigIgn of proc_pid_status(5)."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    mask = 0
    for field in fields:
        mask |= int(lines[field], 16)
    return {str(number) for number in signal.valid_signals() if mask >> (number - 1) & 1}


def test_no_signal_but_those_of_a_crash_has_its_default_effect(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        handled = signal_sets(mount.pid, "SigCgt", "SigIgn")
    everything = {str(number) for number in signal.valid_signals()}
    expected = {str(number_of(name)) for name in CRASHES | HARMLESS_BY_DEFAULT}
    assert everything - handled <= expected


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT"])
def test_a_signal_that_was_ignored_when_the_mount_began_stays_so(tmp_path: Path, name: str) -> None:
    """As under nohup(1), or for jobs that a shell puts in the background."""
    begin = f"import signal; signal.signal(signal.SIG{name}, signal.SIG_IGN); " + MAIN
    with mounted(tmp_path, program=[sys.executable, "-c", begin]) as mount:
        os.kill(mount.pid, number_of(name))
        assert control.query(mount.path, control.PID) == b"%d" % mount.pid


@pytest.mark.parametrize(
    "change", [SIGNAL_BEFORE_THE_MOUNT, SIGNAL_RIGHT_AFTER_THE_MOUNT, SIGNAL_BEFORE_THE_ANSWER],
    ids=["before the mount", "right after the mount", "before the answer"],
)  # fmt: skip
@pytest.mark.parametrize("foreground", [True, False], ids=["in front", "daemon"])
def test_an_early_signal_leaves_nothing_mounted(tmp_path: Path, change: str, foreground: bool) -> None:
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    command = [sys.executable, "-c", change + MAIN, "mount", *(["-f"] if foreground else []), backing, mountpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert qatqfs_mountpoints(tmp_path) == []
    if foreground and change == SIGNAL_BEFORE_THE_ANSWER:  # nobody waits for the answer, so that is an ordinary end
        assert done.returncode == 0
    else:
        assert done.returncode == 2
        assert "stopped by SIGTERM before the mount answered" in done.stderr


@pytest.mark.parametrize("foreground", [True, False], ids=["in front", "daemon"])
def test_what_was_written_before_the_announcement_is_committed_when_a_signal_comes_then(
    tmp_path: Path, foreground: bool
) -> None:
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    # The first answer to os.stat of the mountpoint is held back until a file has been written.
    change = """
import os, signal, sys
from qatqfs.mount import daemon
real = os.stat
def stat(path, **more):
    if path == sys.argv[-1] and os.path.ismount(path):
        os.write(os.open(path + "/x", os.O_WRONLY | os.O_CREAT), b"data" * 1000)  # and not closed
        os.kill(os.getpid(), signal.SIGTERM)
    return real(path, **more)
class Os:
    def __getattr__(self, name):
        return stat if name == "stat" else getattr(os, name)
daemon.os = Os()
"""
    command = [sys.executable, "-c", change + MAIN, "mount", *(["-f"] if foreground else []), backing, mountpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (0 if foreground else 2), done.stderr
    assert qatqfs_mountpoints(tmp_path) == []
    assert list((backing / ".qatqfs/staging").iterdir()) == []
    assert (backing / "x.qatc").stat().st_size > 72


def wait_until_unmounted(backing: Path) -> None:
    """Wait for a daemon whose process id nobody has."""
    log = backing / ".qatqfs/log"
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (log.exists() and "unmounted" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_mount_whose_caller_went_away_without_waiting_ends(tmp_path: Path) -> None:
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    # The daemon reports to whoever started it; here that process is gone by then.
    change = """
import os, signal, time
from qatqfs.mount import daemon
real = daemon._serve
def serve(options, ready):
    caller = os.getppid()
    os.kill(caller, signal.SIGKILL)
    while os.getppid() == caller:
        time.sleep(0.01)
    real(options, ready)
daemon._serve = serve
"""
    command = [sys.executable, "-c", change + MAIN, "mount", backing, mountpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    wait_until_unmounted(backing)
    assert qatqfs_mountpoints(tmp_path) == []


def test_ctrl_c_while_the_mount_is_made_makes_none(tmp_path: Path) -> None:
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    change = """
import os, signal
from qatqfs.mount import readahead
def interrupt(device):
    caller = os.getppid()
    os.kill(caller, signal.SIGINT)
    while os.getppid() == caller:
        pass
readahead.widen = interrupt
"""
    begin = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + change + MAIN
    command = [sys.executable, "-c", begin, "mount", backing, mountpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 128 + signal.SIGINT
    wait_until_unmounted(backing)
    assert qatqfs_mountpoints(tmp_path) == []
