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
from qatqfs.store.system.backing import BackingIO
from qatqfs.store.system.fd import Fd

_START_SECONDS = 60
_STOP_SECONDS = 600
_OPTIONS = ("--chunk-size", "16K", "--cache-size", "8M", "--durable-after", "0.5")
"""Small chunks, a small cache, and little time until everything is durable: their edges are met often."""
_COMMAND = Path(__file__).with_name("boot.py")


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
        self._boots = 0

    def start(self) -> None:
        """Mount; returns once the mount answers."""
        command = [
            sys.executable,
            str(_COMMAND),
            str(self._boots),
            "mount",
            "-f",
            "--log-file",
            str(self.log),
            *_OPTIONS,
        ]
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
        """Whether the daemon has ended although it was not killed."""
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

    def write_to_disk(self) -> None:
        """Do what sync(1) does, for the filesystem of the backing directory."""
        BackingIO().syncfs(Fd(os.open(self.backing, os.O_RDONLY)))

    def reboot(self) -> None:
        """Let the next mount believe that the machine was started again since the last."""
        self._boots += 1

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
