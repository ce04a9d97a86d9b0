"""What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5))."""

import ctypes
import errno
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qatqfs.mount.errors import MountError
from qatqfs.store.system.calls import libc

FILESYSTEM = "fuse.qatqfs"
_MNT_FORCE, _MNT_DETACH, _UMOUNT_NOFOLLOW = 1, 2, 8  # umount(2)
_CONNECTIONS = "/sys/fs/fuse/connections"  # fusectl: the owner of a mount may cut it there
_OWNER = re.compile(r"(?:^|,)(user|group)_id=(\d+)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    Attributes:
        mountpoint: absolute path.
        device: ``major:minor``.
        filesystem: its type, ``fuse.qatqfs`` for qatqfs mounts.
        source: for qatqfs mounts the backing directory.
        root: the part of the filesystem that is mounted: ``/``, or for a bind mount perhaps a directory in it.
        owner: uid and gid of the user whose FUSE mount it is, ``None`` for other filesystems.
    """

    mountpoint: str
    device: str
    filesystem: str
    source: str
    root: str = "/"
    owner: tuple[int, int] | None = None


def _unescape(text: str) -> str:
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    return os.fsdecode(raw.encode("latin-1", "surrogateescape"))


def parse(text: str) -> list[Mount]:
    """Read the text of a mountinfo file (latin-1 decoded) into mounts, the topmost of a mountpoint last."""
    # Not splitlines(): in a path the kernel escapes the newline, but none of the other line ends.
    parsed = map(_parse_line, text.split("\n"))
    return [mount for mount in parsed if mount is not None]


def _parse_line(line: str) -> Mount | None:
    before, _, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if len(fields) < 5 or len(rest) < 2:
        return None
    options = dict(_OWNER.findall(rest[2])) if len(rest) > 2 else {}
    return Mount(
        mountpoint=_unescape(fields[4]),
        device=fields[2],
        filesystem=rest[0],
        source=_unescape(rest[1]),
        root=_unescape(fields[3]),
        owner=(int(options["user"]), int(options["group"])) if len(options) == 2 else None,
    )


def mounts(pid: int | None = None) -> list[Mount]:
    """Return all mounts in the mount namespace of this process, or of another one; raises OSError."""
    return parse(Path(f"/proc/{'self' if pid is None else pid}/mountinfo").read_bytes().decode("latin-1"))


def mounted_at(path: str) -> Mount | None:
    """Return the qatqfs mount whose mountpoint is this absolute path, also a dead one."""
    found = [mount for mount in mounts() if mount.mountpoint == path]
    return found[-1] if found and found[-1].filesystem == FILESYSTEM else None


def containing(path: str) -> Mount | None:
    """Return the qatqfs mount that an existing path lies in, if it lies in one; raises OSError."""
    device = device_text(os.stat(path).st_dev)
    found = [m for m in mounts() if m.device == device and m.filesystem == FILESYSTEM]
    real = Path(os.path.realpath(path))
    around = [m for m in found if real.is_relative_to(m.mountpoint)]  # the innermost has the longest path
    return max(around or found[:1], key=lambda m: len(m.mountpoint), default=None)


def device_text(device: int) -> str:
    """Return a device number as mountinfo writes it: ``major:minor``."""
    return f"{os.major(device)}:{os.minor(device)}"


def resolve(path: str) -> str:
    """Return the absolute path of a mountpoint, without symlinks; a dead mount, which has no stat, is fine."""
    path = os.path.abspath(path)
    return path if is_dead(path) else os.path.realpath(path)


def is_automount(path: str) -> bool:
    """Whether an automounter waits at an absolute path, so that listing it waits until something is mounted."""
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
    """Unmount with fusermount3.

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


def force_unmount(path: str, mount: Mount, *, lazy: bool = False) -> None:
    """Cut the connection between a FUSE mount and its daemon, which need not answer, and unmount it.

    Args:
        path: absolute mountpoint.
        mount: what is there.
        lazy: detach it even while it is in use.

    Raises:
        MountError: it failed, with the reason; the connection may be cut nevertheless.
    """
    if os.geteuid() == 0:
        flags = _MNT_FORCE | _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
        if libc.umount2(os.fsencode(path), flags) != 0:
            raise MountError(f"cannot unmount {path!r}: {os.strerror(ctypes.get_errno())}")
        return
    major, minor = map(int, mount.device.split(":"))
    abort = Path(_CONNECTIONS, str(os.makedev(major, minor)), "abort")
    try:
        abort.write_text("1")
    except OSError as err:
        raise MountError(f"cannot cut the connection of {path!r}: {err.strerror}: {str(abort)!r}") from err
    unmount(path, lazy=lazy)
