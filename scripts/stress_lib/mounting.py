"""A mount for stress runs: started, killed, started again, and gone at the end whatever happened."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from qatqfs.mount import control, mountinfo

_START_SECONDS = 60
_STOP_SECONDS = 600
_OPTIONS = ("--chunk-size", "16K", "--cache-size", "8M")
"""Small chunks and a small cache: their edges are met often."""


class StressMount:
    """A mount of ``base/backing`` at ``base/mnt``.

    Args:
        base: an empty directory.
    """

    def __init__(self, base: Path) -> None:
        self.backing, self.path = base / "backing", base / "mnt"
        self.log = base / "log"
        self.backing.mkdir()
        self.path.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Mount; returns once the mount answers."""
        command = [sys.executable, "-m", "qatqfs.cli", "mount", "-f", "--log-file", str(self.log), *_OPTIONS]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([*command, str(self.backing), str(self.path)], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the mount did not start; its log ends:\n{self.log_end()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        assert self._process is not None
        try:
            return control.query(self.path, control.PID) == b"%d" % self._process.pid
        except OSError:
            return False

    def died(self) -> bool:
        """Whether the daemon is gone although nobody killed it."""
        return self._process is not None and self._process.poll() is not None

    def log_end(self) -> str:
        """Return the last lines of the daemon's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""

    def sync(self) -> None:
        """Commit everything written so far."""
        control.request_sync(self.path)

    def kill(self) -> None:
        """SIGKILL the daemon and clear its dead mount away."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        if mountinfo.mounted_at(os.fspath(self.path)) is not None:
            mountinfo.unmount(os.fspath(self.path), lazy=True)

    def remount(self) -> None:
        """Unmount, wait until everything is committed, and mount again."""
        assert self._process is not None
        mountinfo.unmount(os.fspath(self.path))
        status = self._process.wait(_STOP_SECONDS)
        if status:
            raise SystemExit(f"the daemon ended with status {status}; its log ends:\n{self.log_end()}")
        self.start()


@contextlib.contextmanager
def stress_mount(base: Path) -> Iterator[StressMount]:
    """Mount below a directory; nothing is left mounted whatever happens."""
    mount = StressMount(base)
    try:
        mount.start()
        yield mount
    finally:
        mount.kill()
