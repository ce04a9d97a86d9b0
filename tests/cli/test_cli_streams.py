"""Standard streams that fail, are closed, or go away: one line at most, and the status says what happened."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from samples import CHUNK, bf16_bytes

PRINTS_RESULTS = [("info", __file__), ("--help",), ("--version",), ("encode", "--help")]
BUFFERING = [{}, {"PYTHONUNBUFFERED": "1"}]


def environment(**more: str) -> dict[str, str]:
    """Ours, but for what changes how Python writes to its streams."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | more


def refused(process, *arguments: str, **settings) -> None:
    with open("/dev/full", "w") as full:
        result = process(*arguments, stdout=full, **settings)
    assert (result.status, result.error) == (2, "standard output: No space left on device")


@pytest.mark.parametrize("buffering", BUFFERING, ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", PRINTS_RESULTS, ids=" ".join)
def test_a_full_output_is_one_line_and_status_2(process, arguments, buffering):
    refused(process, *arguments, env=environment(**buffering))


@pytest.mark.parametrize("buffering", BUFFERING, ids=["buffered", "unbuffered"])
def test_a_full_output_of_a_completion_is_one_line_and_status_2(process, buffering):
    words = {"_QATQFS_COMPLETE": "bash_complete", "COMP_WORDS": "qatqfs u", "COMP_CWORD": "1"}
    refused(process, env=environment(**buffering, **words))


def test_a_full_output_ends_verify_at_the_first_result(tmp_path, process):
    for number in range(20):
        (tmp_path / f"{number}.qatc").write_bytes(b"damaged")
    refused(process, "verify", tmp_path, env=environment(PYTHONUNBUFFERED="1"))


@pytest.mark.parametrize("arguments", [*PRINTS_RESULTS, ("info", "/nonexistent"), ("nonsense",)], ids=" ".join)
@pytest.mark.parametrize("buffering", BUFFERING, ids=["buffered", "unbuffered"])
def test_a_full_standard_error_does_not_change_the_status(process, arguments, buffering):
    normal = process(*arguments, env=environment(**buffering))
    with open("/dev/full", "w") as full:
        result = process(*arguments, stderr=full, env=environment(**buffering))
    assert (result.status, result.out) == (normal.status, normal.out)


@pytest.mark.parametrize("arguments", PRINTS_RESULTS, ids=" ".join)
def test_with_both_streams_full_the_status_says_so(process, arguments):
    with open("/dev/full", "w") as full:
        assert process(*arguments, stdout=full, stderr=full, env=environment()).status == 2


def test_a_reader_that_leaves_is_no_error(tmp_path):
    for number in range(300):
        (tmp_path / f"a-file-with-a-rather-long-name-{number}").write_bytes(b"")
    command = subprocess.Popen(
        [sys.executable, "-m", "qatqfs.cli", "info", *sorted(tmp_path.iterdir())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_may_be_closed(tmp_path, closed):
    script = f'"$0" -m qatqfs.cli info "$1" {closed}'
    assert subprocess.run(["sh", "-c", script, sys.executable, tmp_path], timeout=60).returncode == 0


def encoding_on_a_terminal(tmp_path: Path) -> tuple[int, subprocess.Popen[bytes]]:
    """Start to encode with standard error on a terminal; returns our end of that, and the process."""
    pty = pytest.importorskip("pty")
    import termios

    source = tmp_path / "source"
    source.write_bytes(bf16_bytes(40 << 20))
    arguments = ["encode", source, "--dtype", "bf16", "--chunk-size", str(CHUNK), "--workers", "1"]
    command = [sys.executable, "-m", "qatqfs.cli", *arguments, "-o", tmp_path / "out.qatc"]
    try:
        master, slave = pty.openpty()
    except OSError as err:
        pytest.skip(f"no pseudo-terminal to be had (/dev/ptmx): {err}")
    termios.tcsetwinsize(slave, (24, 80))
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    return master, running


def test_progress_shows_on_a_terminal_only(tmp_path):
    master, running = encoding_on_a_terminal(tmp_path)
    with running:
        seen = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # Linux says EIO when the other side is closed
                break
            if not part:
                break
            seen += part
        assert running.stdout.read() == b""
    os.close(master)
    assert running.returncode == 0
    assert b"encoding 1 of 1 (source):" in seen and b"%" in seen
    quiet = subprocess.run(running.args, capture_output=True, timeout=120)
    assert (quiet.stdout, quiet.stderr) == (b"", b"")


def test_a_terminal_that_goes_away_does_not_stop_the_work(tmp_path):
    master, running = encoding_on_a_terminal(tmp_path)
    with running:
        assert os.read(master, 1)  # the bar is on the screen
        os.close(master)
        assert running.stdout.read() == b""
    assert running.returncode == 0
    assert (tmp_path / "out.qatc").exists()
