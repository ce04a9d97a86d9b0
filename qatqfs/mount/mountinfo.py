"""What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

import errno
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qatqfs.mount.errors import MountError

FILESYSTEM = "fuse.qatqfs"
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    Attributes:
        mountpoint: absolute path.
        device: ``major:minor``.
        filesystem: type, ``fuse.qatqfs`` for ours.
        source: for ours the backing directory.
    """

    mountpoint: str
    device: str
    filesystem: str
    source: str


def _unescape(text: str) -> str:
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    return os.fsdecode(raw.encode("latin-1", "surrogateescape"))


def parse(text: str) -> list[Mount]:
    """Read the text of a mountinfo file (latin-1 decoded) into mounts, the topmost of a mountpoint last."""
    mounts = []
    for line in text.split("\n"):  # not at what else may end a line: the kernel escapes no other in a path
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) >= 5 and len(rest) >= 2:
            mounts.append(Mount(_unescape(fields[4]), fields[2], rest[0], _unescape(rest[1])))
    return mounts


def mounts() -> list[Mount]:
    """Return everything that this process sees mounted."""
    return parse(Path("/proc/self/mountinfo").read_bytes().decode("latin-1"))


def mounted_at(path: str) -> Mount | None:
    """Return the qatqfs mount whose mountpoint is this absolute path, also a dead one."""
    found = [mount for mount in mounts() if mount.mountpoint == path]
    return found[-1] if found and found[-1].filesystem == FILESYSTEM else None


def containing(path: str) -> Mount | None:
    """Return the qatqfs mount that an existing path lies in, if it lies in one."""
    st = os.stat(path)
    device = f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}"
    return next((m for m in mounts() if m.device == device and m.filesystem == FILESYSTEM), None)


def resolve(path: str) -> str:
    """Return the absolute path, without symlinks, of a mountpoint that may be dead and then has no stat."""
    path = os.path.abspath(path)
    return path if is_dead(path) else os.path.realpath(path)


def is_automount(path: str) -> bool:
    """Whether an absolute path is where an automounter waits: who looks into it waits until something is mounted."""
    found = [mount for mount in mounts() if mount.mountpoint == path]
    return bool(found) and found[-1].filesystem == "autofs"


def is_dead(path: str) -> bool:
    """Whether a mountpoint's daemon is gone."""
    if is_automount(os.path.abspath(path)):
        return False
    try:
        os.statvfs(path)  # always asks the daemon, where stat may be answered from the kernel's cache
    except OSError as err:
        return err.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def unmount(path: str, *, lazy: bool = False) -> None:
    """Take a mount out of the tree with fusermount3.

    Args:
        path: absolute mountpoint.
        lazy: detach it even while it is in use.

    Raises:
        MountError: it could not be unmounted, with the reason.
    """
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MountError("fusermount3 is not installed (Debian package fuse3)") from None
    if done.returncode:
        reason = done.stderr.strip().rpartition(": ")[2] or f"fusermount3 failed with status {done.returncode}"
        raise MountError(f"cannot unmount {path!r}: {reason}")
