"""The log: every record one line whatever names are in it, and a place for it that is not in a read-only BACKING."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mounted import QATQFS, errno_of, mounted

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) qatqfs\[\d+\]: .")
FORGED = "x\n2026-01-01 00:00:00,000 ERROR qatqfs[1]: forged \x1b[2J\u2028\x85\r"

SET_UP = """
import logging, os, sys
from qatqfs.mount import logs
backing, mountpoint, log_file, foreground, read_only, syslog, code = sys.argv[1:]
logs._SYSLOG = syslog
notes = logs.set_up_logging(
    backing, mountpoint, log_file or None, foreground=bool(foreground), debug=False, read_only=bool(read_only)
)
log = logging.getLogger("qatqfs.test")
exec(code)
print(*notes, sep="\\n", end="")
"""


def log_in_a_process(
    base: Path, code: str, *, read_only: bool = False, foreground: bool = False, log_file: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Set logging up as a mount of base/backing at base/mnt does, and run code that uses ``log``."""
    (base / "backing").mkdir(exist_ok=True)
    flags = ["yes" if wanted else "" for wanted in (foreground, read_only)]
    arguments = [str(base / "backing"), str(base / "mnt"), log_file, *flags, "syslog", code]
    return subprocess.run(
        [sys.executable, "-c", SET_UP, *arguments],
        cwd=base,  # the path of a socket is short
        env={"HOME": str(base / "home"), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    done = log_in_a_process(tmp_path, f"log.error('%s: is bad', {FORGED!r})", foreground=True)
    (line,) = done.stderr.split("\n")[:-1]
    assert LINE.match(line) and line.isprintable()
    assert "forged \\x1b[2J\\u2028\\x85\\r: is bad" in line


def test_a_name_in_an_exception_cannot_forge_a_line(tmp_path: Path) -> None:
    code = f"try:\n    raise ValueError({FORGED!r})\nexcept ValueError:\n    log.exception('%s failed', {FORGED!r})"
    done = log_in_a_process(tmp_path, code, foreground=True)
    first, *rest = done.stderr.split("\n")[:-1]
    assert LINE.match(first) and rest
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_byte_that_is_no_text_is_shown_as_a_number(tmp_path: Path) -> None:
    done = log_in_a_process(tmp_path, "log.error('%s', os.fsdecode(b'a\\xff'))", foreground=True)
    assert done.stderr.endswith("]: a\\xff\n")


def test_a_full_log_disturbs_nobody(tmp_path: Path) -> None:
    done = log_in_a_process(tmp_path, "log.error('x')", log_file="/dev/full")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_read_only_mount_logs_to_the_system_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("syslog")
        log_in_a_process(tmp_path, "log.error('a line')", read_only=True)
        assert re.fullmatch(rb"<11>qatqfs\[\d+\]: ERROR a line\0?", receiver.recv(4096))


def test_a_read_only_mount_without_a_system_log_logs_to_the_users_state_directory(tmp_path: Path) -> None:
    log_in_a_process(tmp_path, "os.umask(0); log.error('a line')", read_only=True)
    state = tmp_path / "home/.local/state/qatqfs"
    (file,) = state.iterdir()
    assert file.name == f"{tmp_path}/mnt.log".strip("/").replace("/", "-")
    assert LINE.match(file.read_text())
    assert all(place.stat().st_mode & 0o077 == 0 for place in (state, state.parent, state.parent.parent))
    assert not any((tmp_path / "backing").iterdir())


@pytest.mark.parametrize("place", ["backing/state", "mnt/state"])
def test_a_read_only_mount_logs_neither_to_backing_nor_through_itself_and_says_that_nothing_is_logged(
    tmp_path: Path, place: str
) -> None:
    done = log_in_a_process(tmp_path, "log.error('x')", read_only=True, XDG_STATE_HOME=str(tmp_path / place))
    assert done.stdout.startswith("nothing is logged: ") and done.stdout.endswith(" with --log-file")
    assert not any((tmp_path / "backing").iterdir())


@pytest.mark.fuse
def test_a_log_file_in_the_backing_of_a_read_only_mount_is_refused(tmp_path: Path) -> None:
    for name in ("backing", "mnt"):
        (tmp_path / name).mkdir()
    command = [*QATQFS, "mount", "--read-only", "--log-file", "backing/log", "backing", "mnt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and "must not be in the backing directory of a read-only mount" in done.stderr
    assert not any((tmp_path / "backing").iterdir())


@pytest.mark.fuse
def test_every_line_of_a_mount_begins_as_a_line_of_the_log_whatever_the_names(tmp_path: Path) -> None:
    with mounted(tmp_path, "--debug") as mount:
        name = FORGED.replace("/", "")
        (mount.path / name).write_bytes(b"content")
        mount.sync()
        mount.stop()
        mount.stored(name).write_bytes(b"damaged")
        mount.start()
        assert errno_of((mount.path / name).read_bytes) == "EIO"
        lines = mount.log_text().split("\n")[:-1]
    assert any("not a readable QATC container" in line for line in lines)
    assert all(LINE.match(line) and line.isprintable() for line in lines)
