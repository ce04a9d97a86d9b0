"""A mount that is up, as the verbs find it that talk to one."""

import os

from qatqfs.cli.exits import Refusal, shown
from qatqfs.mount import mountinfo


def mount_at(mountpoint: str) -> str:
    """Return the absolute path of a mountpoint at which a qatqfs mount answers.

    Raises:
        Refusal: there is none.
        OSError: it does not exist.
    """
    if mountinfo.is_dead(mountpoint):
        raise Refusal(f"{shown(mountpoint)}: the daemon of this mount is gone (qatqfs umount removes the mount)")
    path = os.path.realpath(mountpoint, strict=True)
    if mountinfo.mounted_at(path) is not None:
        return path
    around = mountinfo.containing(path)
    hint = f", but in the one at {shown(around.mountpoint)}" if around is not None else ""
    raise Refusal(f"{shown(mountpoint)}: is not a qatqfs mount{hint}")
