"""Unmounting as a user wants it: it is over when everything is committed."""

import os
import select
from collections.abc import Callable

from qatqfs.mount import control, mountinfo
from qatqfs.mount.errors import MountError
from qatqfs.store.area import open_backing, waiting_files
from qatqfs.store.errors import StoreError


def unmount_and_wait(mountpoint: str, tell: Callable[[str], None]) -> None:
    """Unmount, and return when everything is committed and the daemon is gone.

    Args:
        mountpoint: where it is mounted; a dead mount is just removed.
        tell: shows the user a line that is no error.

    Raises:
        MountError: nothing of ours is mounted there, it is in use, or a commit failed.
    """
    path = mountinfo.resolve(mountpoint)
    if mountinfo.mounted_at(path) is None:
        raise MountError(f"no qatqfs mount at {mountpoint!r}")
    if mountinfo.is_dead(path):
        mountinfo.unmount(path, lazy=True)
        tell(f"the daemon of {path} was gone; what it had not committed is recovered by the next mount")
        return
    try:
        daemon = os.pidfd_open(int(control.query(path, control.PID)))
    except (OSError, ValueError) as err:
        raise MountError(f"cannot ask the daemon of {mountpoint!r}: {err}") from err
    try:
        backing = control.query(path, control.BACKING)
        mountinfo.unmount(path)
        select.select([daemon], [], [])
    finally:
        os.close(daemon)
    _check_nothing_left(backing)


def _check_nothing_left(backing: bytes) -> None:
    """Raise MountError if the daemon left uncommitted content behind."""
    try:
        left = waiting_files(open_backing(os.fsdecode(backing)))
    except StoreError:
        return
    if left:
        raise MountError(f"{left} file(s) could not be committed; they are safe in staging for the next mount")
