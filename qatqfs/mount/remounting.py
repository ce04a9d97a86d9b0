"""``-o remount``: what of a live mount the kernel can change without its daemon, above all ``ro`` and ``rw``.

The daemon goes on as it was: it keeps BACKING locked, and commits what had been written before.
"""

import ctypes
import errno
import json
import os
from collections.abc import Iterable

from qatqfs.mount import control, mountinfo
from qatqfs.mount.errors import MountError
from qatqfs.store.system.calls import libc

_REMOUNT = 32  # mount(2), as the numbers below; statvfs(2) tells them by the same ones
_SET = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "noatime": 1024, "nodiratime": 2048}
_CLEARED_BY = {"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync", "atime": "noatime"}


def remount(backing: str, mountpoint: str, words: Iterable[str]) -> None:
    """Change the flags of a live mount; flags that are not named stay as they are.

    Args:
        backing: BACKING, as a check.
        mountpoint: where it is mounted.
        words: ``ro``, ``rw``, ``nosuid`` and so on; of contrary words the last counts. Other words are ignored, because
            mount(8) passes on all options of the mount.

    Raises:
        MountError: there is no such mount, or it cannot be changed like that.
    """
    path = mountinfo.resolve(mountpoint)
    mount = mountinfo.mounted_at(path)
    if mount is None:
        raise MountError(f"no qatqfs mount at {mountpoint!r} to remount")
    if mountinfo.is_dead(path):
        raise MountError(f"the daemon of {mountpoint!r} is gone; unmount it, and mount it again")
    if os.path.realpath(backing) != mount.source:
        raise MountError(f"what is mounted at {mountpoint!r} is {mount.source!r}, not {backing!r}")
    flags = os.statvfs(path).f_flag & sum(_SET.values())
    for word in words:
        flags |= _SET.get(word, 0)
        flags &= ~_SET.get(_CLEARED_BY.get(word, ""), 0)
    if not flags & _SET["ro"] and _daemon_is_read_only(path):
        raise MountError(f"{mountpoint!r} was mounted read-only; to write, unmount it, and mount it without that")
    _change(mount.source, path, flags)


def _daemon_is_read_only(path: str) -> bool:
    try:
        return bool(json.loads(control.query(path, control.DAEMON))["read_only"])
    except (OSError, ValueError, KeyError):  # a daemon of an earlier version
        return False


def _change(source: str, path: str, flags: int) -> None:
    kind = mountinfo.FILESYSTEM.encode()
    if libc.mount(os.fsencode(source), os.fsencode(path), kind, ctypes.c_ulong(_REMOUNT | flags), None) == 0:
        return
    number = ctypes.get_errno()
    reason = {
        errno.EPERM: "only root may remount",
        errno.EBUSY: "files are open for writing",
    }.get(number, os.strerror(number))
    raise MountError(f"cannot remount {path!r}: {reason}")
