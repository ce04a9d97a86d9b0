"""Unmounting that returns once everything is committed."""

import errno
import os
import shlex
import time
from collections.abc import Callable

from qatqfs.mount import asking, mountinfo
from qatqfs.mount.asking import Pending
from qatqfs.mount.daemonwatch import DaemonWatch
from qatqfs.mount.errors import MountError
from qatqfs.mount.mountinfo import Mount
from qatqfs.mount.sightings import sightings

_SHORT_WAIT_S = 3.0
_LONG_WAIT_S = 10.0
_LOOK_AGAIN_S = 0.02
_GONE = (errno.ENOTCONN, errno.ECONNABORTED)

Tell = Callable[[str], None]


class StillMounted(MountError):
    """Unmounted here, with everything committed so far, but the daemon goes on serving other places."""


def unmount_and_wait(
    mountpoint: str,
    tell: Tell,
    *,
    lazy: bool = False,
    force: bool = False,
    progress: Callable[[Pending], None] = lambda pending: None,
) -> None:
    """Unmount, and return when everything is committed and the daemon is gone.

    Args:
        mountpoint: where it is mounted; a dead mount is just removed.
        tell: shows the user a line that is no error.
        lazy: also unmount what is in use; the daemon goes on while it is.
        force: do not ask the daemon, but cut the connection to it, so that all requests of programs fail from then on.
        progress: called now and then with how much there is to commit.

    Raises:
        StillMounted: the mount lives on, in another mount namespace or as a bind mount, or because it is in use.
        MountError: no qatqfs mount is there, it is in use, or not everything is committed.
    """
    path, mount = _find(mountpoint, asks=not force)
    daemon = None if force else _daemon_of(path)
    watch = DaemonWatch(mount, daemon)
    gone = daemon is None and watch.has_ended() and (watch.sees_anything or not force)
    try:
        committed = daemon is not None and _commit(path, tell, progress)
        if force:
            mountinfo.force_unmount(path, mount, lazy=lazy)
        else:
            mountinfo.unmount(path, lazy=lazy or daemon is None)
        ended = gone or _wait(watch, mount, lazy=lazy)
    except KeyboardInterrupt:
        tell(_what_goes_on(path, watch))
        raise
    if gone:
        _tell_of_the_dead(path, watch, tell)
        return
    if not ended or (not watch.sees_anything and sightings(mount.device)):
        raise _still_there(path, mount, committed=committed)
    fault = watch.outcome()
    if fault is not None:
        raise MountError(f"{path} is unmounted, but {fault}")


def _tell_of_the_dead(path: str, watch: DaemonWatch, tell: Tell) -> None:
    """Say what a dead daemon has left; raises MountError if that is uncommitted content."""
    left = watch.files_left()
    if left:
        raise MountError(
            f"{path} is unmounted; its daemon was gone, and {left} file(s) are in staging for the next mount"
        )
    rest = "everything was committed" if left == 0 else "what it had not committed is recovered by the next mount"
    tell(f"the daemon of {path} was gone; {rest}")


def _what_goes_on(path: str, watch: DaemonWatch) -> str:
    """Return what goes on after an interrupt, and how to wait for it."""
    if mountinfo.mounted_at(path) is not None:
        waits = f"qatqfs umount {shlex.quote(path)}"
        return f"{path} is still mounted, and its daemon goes on committing; to wait for it: {waits}"
    waits = f"flock {shlex.quote(watch.lock_path)} true"
    return f"{path} is unmounted, and its daemon goes on committing; to wait for it: {waits}"


def _find(mountpoint: str, *, asks: bool) -> tuple[str, Mount]:
    """Return the absolute path of a mountpoint and the mount there; raises MountError.

    Args:
        mountpoint: as the user names it.
        asks: whether to ask the mount, which a daemon that hangs does not answer.
    """
    above, name = os.path.split(os.path.abspath(mountpoint))
    path = os.path.join(os.path.realpath(above), name)  # the last component is the mount itself unless it is a symlink
    mount = mountinfo.mounted_at(path)
    if mount is None and asks:
        path = os.path.realpath(mountpoint)
        mount = mountinfo.mounted_at(path)
    if mount is None:
        around = mountinfo.containing(path) if asks and os.path.exists(path) else None
        hint = f", but it is in the one at {around.mountpoint!r}" if around is not None else ""
        raise MountError(f"no qatqfs mount at {mountpoint!r}{hint}")
    return path, mount


def _daemon_of(path: str) -> asking.Daemon | None:
    """Return what the daemon of a mount says of itself, ``None`` if it has ended; raises MountError."""
    if mountinfo.is_dead(path):
        return None
    try:
        return asking.daemon_of(path)
    except OSError as err:
        if err.errno in _GONE:
            return None
        if err.errno == errno.ENODATA:
            raise MountError(f"{path!r} was mounted by another user, or by another version of qatqfs") from err
        raise MountError(f"cannot ask the daemon of {path!r}: {err.strerror} (--force does not ask)") from err
    except ValueError as err:
        raise MountError(f"cannot understand the daemon of {path!r}: {err} (--force does not ask)") from err


def _commit(path: str, tell: Tell, progress: Callable[[Pending], None]) -> bool:
    """Let the daemon commit while it can still report progress. It tries again at its end what it cannot commit.

    Returns:
        Whether everything is committed that was written so far.
    """
    try:
        failures = asking.commit(path, path, progress)
    except OSError as err:
        tell(f"{path}: cannot be committed before it is unmounted: {err.strerror}")
        return False
    for name, reason in failures:
        tell(f"{name}: could not be committed yet: {reason}")
    return not failures


def _wait(watch: DaemonWatch, mount: Mount, *, lazy: bool) -> bool:
    """Return ``True`` once a daemon has ended, or ``False`` if something seems to hold its mount."""
    started = time.monotonic()
    while not watch.has_ended():
        waited = time.monotonic() - started
        if waited > _SHORT_WAIT_S and not watch.is_stopping():
            # With no other place in sight it may just be slow; but open files are not seen either.
            if lazy or waited > _LONG_WAIT_S or sightings(mount.device):
                return False
            time.sleep(_LOOK_AGAIN_S * 10)
        time.sleep(_LOOK_AGAIN_S)
    return True


def _still_there(path: str, mount: Mount, *, committed: bool) -> MountError:
    """Return the error that says that a daemon goes on, and why."""
    where = " and by ".join(map(str, sightings(mount.device)))
    why = f"the mount is still held by {where}" if where else "something is open in it, or it is held out of sight"
    if committed:
        return StillMounted(f"{path} is unmounted and committed, but its daemon goes on: {why}")
    return MountError(
        f"{path} is unmounted, but its daemon has not ended, and not everything is known to be committed: {why}"
    )
