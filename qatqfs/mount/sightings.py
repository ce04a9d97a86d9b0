"""Where a mount is still mounted, as far as this process can see: each such place keeps its daemon alive.

A mount lives as long as it is mounted anywhere. That may be a second place in this mount namespace, a bind mount. It
may also be another mount namespace, such as that of a container, which got a copy of all mounts when it was made.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qatqfs.mount import mountinfo


@dataclass(frozen=True, slots=True)
class Sighting:
    """A place at which a mount is still mounted.

    Attributes:
        mountpoint: absolute path, as that process sees it.
        pid: a process in whose mount namespace it is, ``None`` for the own namespace.
        command: that process's name.
    """

    mountpoint: str
    pid: int | None = None
    command: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return f"the mount at {self.mountpoint!r}"
        return f"process {self.pid} ({self.command}) in another mount namespace, at {self.mountpoint!r}"


def sightings(device: str) -> list[Sighting]:
    """Return where a qatqfs mount is mounted, with one process for each other mount namespace.

    Only root sees processes of other users. No user sees processes in other pid namespaces.

    Args:
        device: its ``major:minor``.
    """
    found = [Sighting(mountpoint) for mountpoint in _mountpoints(None, device)]
    known = {os.stat("/proc/self/ns/mnt").st_ino}
    for pid in _processes():
        with contextlib.suppress(OSError):  # it has ended, or this process may not look at it
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in known:
                mountpoints = _mountpoints(pid, device)
                known.add(namespace)
                command = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
                found.extend(Sighting(mountpoint, pid, command) for mountpoint in mountpoints)
    return found


def _mountpoints(pid: int | None, device: str) -> list[str]:
    return [
        mount.mountpoint
        for mount in mountinfo.mounts(pid)
        if mount.device == device and mount.filesystem == mountinfo.FILESYSTEM
    ]


def _processes() -> Iterator[int]:
    return iter(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
