"""Progress: what somebody at a terminal sees while something takes long."""

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from mounted import QATQFS, mounted

BAR = """
import sys
from qatqfs.cli import progress

with progress.Progress(4096, "encoding", files=7) as bar:
    bar.begin("/some/where/first")
    bar.begin("/some/where/a-name-that-is-much-too-long-to-stand-beside-a-bar")
    bar.advance(1024)
    sys.stdin.read()  # one step that takes long
print("done")
"""


THREADS = """
import threading
from qatqfs.cli import progress

with progress.Progress(4096, "encoding"), progress.waiting("committing"):
    print([thread.name for thread in threading.enumerate()])
"""


def at_a_terminal(*command: str, until: Callable[[str], object] | None = None) -> str:
    """Return what a command writes to a terminal. Its standard input ends once that satisfies ``until``."""
    try:
        ours, theirs = pty.openpty()
    except OSError as err:
        pytest.skip(f"no pseudo-terminals here: {err}")
    termios.tcsetwinsize(theirs, (24, 120))
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stdin is not None
        seen = b""
        try:
            while chunk := os.read(ours, 65536):
                seen += chunk
                if until is None or until(seen.decode(errors="replace")):
                    process.stdin.close()
        except OSError:  # EIO: the other end is closed
            pass
        finally:
            os.close(ours)
        process.wait()
    return seen.decode()


def test_a_bar_shows_the_file_and_is_drawn_again_while_nothing_gets_done() -> None:
    drawn = re.compile(r"encoding 2 of 7 \(a-name-that-is-much-too-long-[^)]*\):\s+25%")
    clock = re.compile(r"\[(\d\d:\d\d)<")

    def redrawn(seen: str) -> bool:
        return len(drawn.findall(seen)) >= 3 and len(set(clock.findall(seen))) >= 2

    seen = at_a_terminal(sys.executable, "-c", BAR, until=redrawn)
    assert redrawn(seen)
    assert re.search(r"\r +\r(?:done)", seen), "the bar is gone at the end"


def test_in_a_pipe_nothing_is_drawn_and_no_thread_would_draw_later() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("['MainThread']\n", "")


SLOW = """
import os, sys, time
from qatqfs.store.commit.engine import CommitEngine

commit = CommitEngine.commit

def slow(self, node, *, exclusive=False):
    latest = time.monotonic() + 30
    while not os.path.exists(f"{os.environ['SHOWN']}/{os.fsdecode(node.path)}") and time.monotonic() < latest:
        time.sleep(0.01)
    return commit(self, node, exclusive=exclusive)

CommitEngine.commit = slow
from qatqfs.cli.main import main
sys.exit(main())
"""


@pytest.mark.fuse
def test_sync_and_umount_show_the_files_and_bytes_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    monkeypatch.setenv("SHOWN", str(shown))
    left = re.compile(r"committing: 1 file, 97\.7 KiB left \d\d:\d\d")
    with mounted(tmp_path, program=[sys.executable, "-c", SLOW]) as mount:
        for verb in ("sync", "umount"):

            def let_go(seen: str, verb: str = verb) -> bool:
                if left.search(seen):
                    (shown / verb).touch()
                return (shown / verb).exists()

            (mount.path / verb).write_bytes(os.urandom(100_000))
            seen = at_a_terminal(*QATQFS, verb, str(mount.path), until=let_go)
            assert left.search(seen), seen
