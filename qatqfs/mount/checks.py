"""What is checked before anything is mounted, so that a refusal is one clear line."""

import errno
import os
import resource
import stat
from pathlib import Path

from qatqfs.mount import mountinfo
from qatqfs.mount.errors import MountError
from qatqfs.store.paths import PRIVATE_DIR

_DEVICE = "/dev/fuse"
_LEAST_DESCRIPTORS = 128
"""Some 20 for the daemon itself, some for its threads, and three for each open file with uncommitted content."""


def check_file_limit() -> None:
    """Make sure that a daemon may open as many files as it needs; raises MountError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _LEAST_DESCRIPTORS:
        raise MountError(
            f"only {hard} files may be open here (ulimit -Hn), and a mount needs {_LEAST_DESCRIPTORS} at least"
        )


def check_device() -> None:
    """Make sure that FUSE can be used here; raises MountError."""
    try:
        os.close(os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise MountError(
                f"{_DEVICE} is missing: this machine has no FUSE (load the kernel module with 'modprobe fuse',"
                " or give the container the device)"
            ) from None
        raise MountError(f"cannot open {_DEVICE}: {err.strerror}") from None


def check_backing(backing: str) -> None:
    """Make sure that BACKING is a directory that is not itself in a qatqfs mount; raises MountError."""
    try:
        if not stat.S_ISDIR(os.stat(backing).st_mode):
            raise MountError(f"{backing!r} is not a directory")
        inside = mountinfo.containing(backing)
    except FileNotFoundError:
        raise MountError(f"backing directory {backing!r} does not exist") from None
    except OSError as err:
        raise MountError(f"cannot use backing directory {backing!r}: {err.strerror}") from None
    if inside is not None:
        raise MountError(f"backing directory {backing!r} is in the qatqfs mount at {inside.mountpoint!r}")


def check_mountpoint(mountpoint: str, backing: str, *, nonempty: bool = False) -> None:
    """Make sure that MOUNTPOINT can be mounted over, and remove a dead qatqfs mount from it.

    Args:
        mountpoint: MOUNTPOINT, absolute.
        backing: BACKING, absolute.
        nonempty: it may contain something, as long as that is no store.

    Raises:
        MountError: it cannot, or the mount would hide what is there.
    """
    if mountinfo.is_dead(mountpoint):
        if mountinfo.mounted_at(mountpoint) is None:
            raise MountError(f"a dead mount that is not qatqfs's is at {mountpoint!r}")
        mountinfo.unmount(mountpoint, lazy=True)
    try:
        if not stat.S_ISDIR(os.stat(mountpoint).st_mode):
            raise MountError(f"mountpoint {mountpoint!r} is not a directory")
    except FileNotFoundError:
        raise MountError(f"mountpoint {mountpoint!r} does not exist") from None
    except OSError as err:
        raise MountError(f"cannot use mountpoint {mountpoint!r}: {err.strerror}") from None
    if mountinfo.mounted_at(mountpoint) is not None:
        raise MountError(f"a qatqfs mount is already at {mountpoint!r}")
    if mountpoint == backing:
        raise MountError(f"{backing!r} cannot be its own mountpoint: give another directory, an empty one")
    if Path(mountpoint).is_relative_to(backing) or Path(backing).is_relative_to(mountpoint):
        raise MountError(f"backing directory {backing!r} and mountpoint {mountpoint!r} must not contain each other")
    _check_content(mountpoint, nonempty=nonempty)


def _check_content(mountpoint: str, *, nonempty: bool) -> None:
    """Refuse to hide what is in the mountpoint; raises MountError."""
    if mountinfo.is_automount(mountpoint):
        return  # listing it would wait for this very mount
    try:
        found = os.listdir(mountpoint)
    except OSError:  # the kernel decides whether it can be mounted over
        return
    if os.fsdecode(PRIVATE_DIR) in found:
        raise MountError(
            f"mountpoint {mountpoint!r} is itself a backing directory: it has a {os.fsdecode(PRIVATE_DIR)} (BACKING"
            " comes first, then MOUNTPOINT)"
        )
    if found and not nonempty:
        raise MountError(
            f"mountpoint {mountpoint!r} is not empty; what is in it would be hidden (-o nonempty mounts all the same)"
        )


def check_log_file(log_file: str, mountpoint: str) -> None:
    """Make sure that the log is not written through its own mount; raises MountError."""
    if Path(log_file).is_relative_to(mountpoint):
        raise MountError(f"log file {log_file!r} must not be below the mountpoint")


def check_allow_other(allow_other: bool) -> None:
    """Refuse allow_other to a daemon that is not root, because it could not act as the users that it serves."""
    if allow_other and os.geteuid() != 0:
        raise MountError("--allow-other needs a daemon run by root")
