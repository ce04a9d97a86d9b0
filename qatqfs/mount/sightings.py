"""Who holds a mount: everything that keeps its daemon alive and can be seen from here.

A mount lives as long as it is mounted anywhere: at a second place in this mount namespace (a bind mount), or in
another namespace, which a container has, for example, and which got a copy of all mounts when it was made.
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
        mountpoint: absolute path, as the process sees it.
        pid: of a process in whose mount namespace it is, ``None`` if that is our own.
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

    Processes of other users are seen by root only, those in other pid namespaces by nobody.

    Args:
        device: its ``major:minor``.
    """
    found = [Sighting(mountpoint) for mountpoint in _mountpoints(None, device)]
    known = {os.stat("/proc/self/ns/mnt").st_ino}
    for pid in _processes():
        with contextlib.suppress(OSError):  # it is gone, or none of our business
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
