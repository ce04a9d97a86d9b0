"""The life of a demo: its exit status, and a temporary backing directory and mountpoint that are always removed."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COMMAND_SECONDS = 300
_UMOUNT_SECONDS = 60
_RELEASE_SECONDS = 10
"""How long a daemon that was detached by force may still hold files in its backing directory."""


class DemoError(Exception):
    """The demo found something wrong; the message is one line for the user."""


def qatqfs(*arguments: str | Path, timeout: float = _COMMAND_SECONDS) -> str:
    """Run the installed qatqfs command and return its stdout; DemoError unless it exits 0.

    Output goes to files instead of pipes, because a daemon that keeps a pipe open would delay the demo. The command
    gets its own session, so that Ctrl-C reaches only the demo, which then decides what to do.
    """
    program = Path(sys.executable).with_name("qatqfs")
    shown = "qatqfs " + " ".join(map(str, arguments[:3])) + (" ..." if len(arguments) > 3 else "")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            status = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                timeout=timeout,
            ).returncode
        except subprocess.TimeoutExpired:
            raise DemoError(f"{shown}: no answer within {timeout:.0f} s") from None
        except OSError as error:
            raise DemoError(f"{program}: {error.strerror}") from None
        out.seek(0)
        err.seek(0)
        if status != 0:
            said = (err.read().strip() or out.read().strip()).decode(errors="replace") or "no message"
            raise DemoError(f"{shown}: exit status {status}: {said.splitlines()[-1]}")
        return out.read().decode()


def exit_status(name: str, work: Callable[[], object]) -> int:
    """Do the work of a demo and return its exit status; an error is one line on standard error.

    SIGTERM and SIGHUP end it as Ctrl-C does: with an exception, so that it cleans up.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        work()
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        print(f"{name}: FAILED: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delay signals until the end of a step that must not be cut in half; then raise KeyboardInterrupt if one came."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda got, _frame: came.append(got)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if any(before[signal.Signals(number)] is not signal.SIG_IGN for number in came):
        raise KeyboardInterrupt


def is_mounted(path: Path) -> bool:
    """Look a mount point up in the kernel's table; unlike os.path.ismount it sees a dead mount too."""
    wanted = os.fsencode(os.path.abspath(path))
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        target = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4])
        if target == wanted:
            return True
    return False


class Places:
    """Directories below a new temporary one, and mounts among them. Use with ``with``: nothing of them stays."""

    def __init__(self, parent: Path | None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="qatqfs-demo-", dir=parent)).resolve()
        self._mountpoints: set[Path] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with signals_held():
            for mountpoint in self._mountpoints:
                self._unmount_by_any_means(mountpoint)
            self._remove()

    def directory(self, name: str) -> Path:
        """Make a directory, if it is not there yet."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def mount_at(self, mountpoint: Path, backing: Path, *options: str) -> None:
        """Mount, not to be interrupted: a mount that appears after the clean-up would stay."""
        with signals_held():
            self._mountpoints.add(mountpoint)
            qatqfs("mount", *options, backing, mountpoint, timeout=60)
        if not is_mounted(mountpoint):
            raise DemoError("qatqfs mount reported success, but nothing is mounted")

    def unmount_from(self, mountpoint: Path) -> None:
        """Unmount; everything written is committed when this returns."""
        qatqfs("umount", mountpoint)
        if is_mounted(mountpoint):
            raise DemoError("qatqfs umount reported success, but the mount is still there")

    def _unmount_by_any_means(self, mountpoint: Path) -> None:
        if not is_mounted(mountpoint):
            return
        with contextlib.suppress(DemoError):
            qatqfs("umount", mountpoint, timeout=_UMOUNT_SECONDS)
        if is_mounted(mountpoint):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    ["fusermount3", "-u", "-z", mountpoint],
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    timeout=_UMOUNT_SECONDS,
                )

    def _remove(self) -> None:
        deadline = time.monotonic() + _RELEASE_SECONDS
        while not any(map(is_mounted, self._mountpoints)):
            shutil.rmtree(self.root, ignore_errors=True)
            if not self.root.exists():
                return
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        print(f"demo: {self.root} could not be removed", file=sys.stderr)


class Session(Places):
    """The places of the demo: ``backing``, ``mountpoint``, ``scratch``."""

    def __init__(self, parent: Path | None) -> None:
        super().__init__(parent)
        self.backing = self.directory("backing")
        self.mountpoint = self.directory("mnt")
        self.scratch = self.directory("scratch")

    def mount(self) -> None:
        """Mount the backing directory."""
        self.mount_at(self.mountpoint, self.backing)

    def unmount(self) -> None:
        """Unmount; everything written is committed when this returns."""
        self.unmount_from(self.mountpoint)
