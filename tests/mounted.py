"""Real mounts for tests: a daemon in a process of its own, which a test may kill."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from qatqfs.mount import control, mountinfo

QATQFS = [sys.executable, "-m", "qatqfs.cli"]
START_TIMEOUT_S = 30


def fuse_obstacle() -> str | None:
    """Return why this process cannot mount and unmount, ``None`` if it can."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError:
        return "/dev/fuse cannot be used here"
    if os.geteuid() != 0 and not os.path.exists("/etc/mtab"):
        return "fusermount3 needs /etc/mtab to unmount, which is missing here"
    return None


def qatqfs_mountpoints(base: Path) -> list[str]:
    """Our mounts below a directory; elsewhere others may have theirs."""
    ours = [Path(mount.mountpoint) for mount in mountinfo.mounts() if mount.filesystem == mountinfo.FILESYSTEM]
    return [str(path) for path in ours if path.is_relative_to(base)]


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended counts as gone although nobody has waited for it yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Mounted:
    """A mount that is running, or was killed."""

    def __init__(
        self, backing: Path, mountpoint: Path, options: Sequence[str] = (), program: Sequence[str] = QATQFS
    ) -> None:
        self.program = list(program)
        self.backing = backing
        self.path = mountpoint
        self.options = list(options)
        self.log = backing.parent / f"{mountpoint.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*self.program, "mount", "-f", "--log-file", str(self.log), *self.options]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen([*command, str(self.backing), str(self.path)], stdout=output, stderr=output)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the mount did not start: {self.log_text()}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return control.query(self.path, control.PID) == b"%d" % self.pid
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def sync(self) -> None:
        control.request_sync(self.path)

    def kill(self) -> None:
        """SIGKILL the daemon and clear its dead mount away."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self._clear()

    def _clear(self) -> None:
        if mountinfo.mounted_at(str(self.path)) is not None:
            mountinfo.unmount(str(self.path), lazy=True)

    def stop(self) -> int:
        """Unmount, wait for the daemon and return its exit status."""
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.process.poll() is None:
            try:
                mountinfo.unmount(str(self.path))
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        return self.process.wait(timeout=120)

    def remount(self) -> None:
        assert self.stop() == 0, self.log_text()
        self.start()

    def stored(self, name: str) -> Path:
        """The container of a logical file."""
        return self.backing / f"{name}.qatc"


@contextlib.contextmanager
def mounted(
    base: Path, *options: str, backing: Path | None = None, program: Sequence[str] = QATQFS
) -> Iterator[Mounted]:
    """Mount a (new) backing directory below ``base``; nothing is left mounted whatever happens.

    ``program`` is what to run instead of the qatqfs command, for tests that change something in it first.
    """
    backing = backing if backing is not None else base / "backing"
    backing.mkdir(exist_ok=True)
    index = 0
    while (mountpoint := base / f"mnt{index}").exists():
        index += 1
    mountpoint.mkdir()
    mount = Mounted(backing, mountpoint, options, program)
    mount.start()
    try:
        yield mount
        if mount.process is not None and mount.process.poll() is None:
            assert mount.stop() == 0, mount.log_text()
    finally:
        mount.kill()


def drop_page_cache() -> None:
    """Empty the kernel's caches where that is allowed."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def errno_of(function, *args, **kwargs) -> str | None:
    """Name of the errno that a call fails with, ``None`` if it does not fail."""
    try:
        function(*args, **kwargs)
    except OSError as err:
        return errno.errorcode[err.errno]
    return None
