"""What a daemon that ends without having committed everything leaves, and what the next mount says."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mounted import QATQFS, Mounted, mounted

from qatqfs.store.staging import records as staginglog

pytestmark = pytest.mark.fuse

BOOT = Path(__file__).parent.parent.parent / "scripts/stress_lib/boot.py"
NEVER_COMMITS = """
import threading
from qatqfs.cli.main import main
from qatqfs.store.commit.engine import CommitEngine
CommitEngine.commit = lambda *args, **options: threading.Event().wait()
main()
"""
ANOTHER_BOOT = b"another boot id!"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=60)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def durable_sizes(mount: Mounted) -> list[int | None]:
    """How much of each file in staging is sure after a loss of power."""
    logs = (mount.backing / ".qatqfs/staging").glob("*.log")
    return [staginglog.replay(log.read_bytes(), ANOTHER_BOOT).durable_size for log in logs]


def test_a_second_signal_leaves_staging_durable_and_says_what_is_in_it(tmp_path: Path) -> None:
    program = [sys.executable, "-c", NEVER_COMMITS]
    with mounted(tmp_path, "--durable-after", "0", program=program) as mount:
        (mount.path / "x").write_bytes(b"data")
        assert mount.process is not None
        mount.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "unmounted" in mount.log_text())
        assert durable_sizes(mount) == [None]

        def ended() -> bool:  # the handler stands a moment after that line
            mount.process.send_signal(signal.SIGTERM)
            return mount.process.poll() is not None

        wait_for(ended)
        assert mount.process.returncode == 1
        assert "left in staging for the next mount, durable: x" in mount.log_text()
        assert durable_sizes(mount) == [4]


def test_what_is_written_is_durable_without_fsync_after_the_seconds_that_the_mount_was_told(tmp_path: Path) -> None:
    with (
        mounted(tmp_path, "-o", "durable_after=0.05") as mount,
        (mount.path / "x").open("wb", buffering=0) as file,
    ):
        file.write(b"data")
        wait_for(lambda: durable_sizes(mount) in ([4], []))  # or it is in a container already


def test_a_mount_after_a_reboot_says_what_is_in_doubt_and_info_where_it_is(tmp_path: Path) -> None:
    with mounted(tmp_path, "--durable-after", "0") as mount:
        file = (mount.path / "x").open("wb", buffering=0)
        file.write(b"data")
        mount.kill()
        with contextlib.suppress(OSError):  # the connection is gone
            file.close()
        result = run(sys.executable, BOOT, 1, "mount", mount.backing, mount.path)
        try:
            assert result.returncode == 0
            assert "the newest content of 1 file may be torn" in result.stderr
            assert (mount.path / "x").read_bytes() == b""
        finally:
            run(*QATQFS, "umount", mount.path)
        told = run(*QATQFS, "info", mount.backing)
    (lost,) = (mount.backing / ".qatqfs/lost+found").iterdir()
    assert f"1 file in lost+found\n  {lost.name}" in told.stdout
    assert lost.name in (mount.backing / ".qatqfs/log").read_text()
