"""Finds a running mount, for the verbs that talk to one."""

import os
from typing import Any

import click

from qatqfs.cli.exits import Refusal, shown
from qatqfs.mount import mountinfo


class Untouched(click.Path):
    """A path that is not looked at. Click's own type calls stat(2), which a hanging daemon does not answer."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path unchanged."""
        return value


def mount_at(mountpoint: str) -> str:
    """Return the absolute path of a mountpoint with a running qatqfs mount.

    Raises:
        Refusal: there is no mount.
        OSError: it does not exist.
    """
    top, path = mount_around(mountpoint)
    if path != top:
        raise Refusal(f"{shown(mountpoint)}: is not a qatqfs mount, but in the one at {shown(top)}")
    return top


def mount_around(path: str) -> tuple[str, str]:
    """Return the absolute paths of the mountpoint of the qatqfs mount that a path is in, and of the path itself.

    Raises:
        Refusal: it is in no mount, or the daemon is gone.
        OSError: it does not exist.
    """
    if mountinfo.is_dead(path):
        raise Refusal(f"{shown(path)}: the daemon of this mount is gone (qatqfs umount removes the mount)")
    real = os.path.realpath(path, strict=True)
    mount = mountinfo.mounted_at(real) or mountinfo.containing(real)
    if mount is None:
        raise Refusal(f"{shown(path)}: is not a qatqfs mount")
    return mount.mountpoint, real
