"""Progress: what somebody at a terminal sees while something takes long."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from mounted import QATQFS, mounted

BAR = """
import sys, time
from qatqfs.cli import progress

with progress.Progress(4096, "encoding", files=7) as bar:
    bar.begin("/some/where/first")
    bar.begin("/some/where/a-name-that-is-much-too-long-to-stand-beside-a-bar")
    bar.advance(1024)
    time.sleep(2.2)  # one step that takes long
print("done")
"""


def at_a_terminal(*command: str) -> str:
    """What a command writes to a terminal; it is over when the command is."""
    try:
        ours, theirs = pty.openpty()
    except OSError as err:
        pytest.skip(f"no pseudo-terminals here: {err}")
    termios.tcsetwinsize(theirs, (24, 120))
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
        except OSError:  # EIO: the other end is closed
            pass
        finally:
            os.close(ours)
        process.wait()
    return seen.decode()


def test_a_bar_shows_the_file_and_is_drawn_again_while_nothing_gets_done() -> None:
    seen = at_a_terminal(sys.executable, "-c", BAR)
    drawn = re.findall(r"encoding 2 of 7 \(a-name-that-is-much-too-long-(?:[^)]*)\):\s+25%", seen)
    assert len(drawn) >= 3
    assert len(set(re.findall(r"\[(\d\d:\d\d)<", seen))) >= 2  # the clock goes on
    assert re.search(r"\r +\r(?:done)", seen), "the bar is gone at the end"


def test_in_a_pipe_there_is_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


SLOW = """
import sys, time
from qatqfs.store.commit.engine import CommitEngine

commit = CommitEngine.commit

def slow(self, node, *, exclusive=False):
    time.sleep(2)
    return commit(self, node, exclusive=exclusive)

CommitEngine.commit = slow
from qatqfs.cli.main import main
sys.exit(main())
"""


@pytest.mark.fuse
def test_sync_and_umount_show_the_files_and_bytes_that_are_left(tmp_path: Path) -> None:
    with mounted(tmp_path, program=[sys.executable, "-c", SLOW]) as mount:
        for verb in ("sync", "umount"):
            (mount.path / verb).write_bytes(os.urandom(100_000))
            seen = at_a_terminal(*QATQFS, verb, str(mount.path))
            assert re.search(r"committing: 1 file, 97\.7 KiB left \d\d:\d\d", seen), seen
