"""What commands ask of a running mount: the client's side of :mod:`qatqfs.mount.control`."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from qatqfs.mount import control, mountinfo

Pending = tuple[int, int]
"""Files and bytes that are in no container yet."""
Failure = tuple[str, str]
"""Logical path of a file that could not be committed, and why."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """What a daemon says of itself.

    Attributes:
        pid: its process id.
        pid_namespace: inode number of the pid namespace of that id.
        read_only: whether it never has anything to commit.
        backing: its backing directory, as it sees it.
    """

    pid: int
    pid_namespace: int
    read_only: bool
    backing: str


def ask(path: str, name: bytes) -> bytes:
    """Return a control attribute of a path in a mount.

    Even root cannot enter the FUSE mount of another user, so root asks as that user.

    Raises:
        OSError: ENODATA or EOPNOTSUPP if the path is in no qatqfs mount, and what the daemon answered.
    """
    try:
        return os.getxattr(path, name)
    except PermissionError:
        mount = mountinfo.mounted_at(path)
        if os.geteuid() != 0 or mount is None or mount.owner in (None, (0, 0)):
            raise
        assert mount.owner is not None
        return _ask_as(*mount.owner, path, name)


def _ask_as(uid: int, gid: int, path: str, name: bytes) -> bytes:
    """Ask in a child process that has become another user; raises OSError."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.write(writable, b"=" + os.getxattr(path, name))
        except OSError as err:
            os.write(writable, b"%d" % (err.errno or 0))
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if answer.startswith(b"="):
        return answer[1:]
    raise OSError(int(answer or 0), os.strerror(int(answer or 0)), path)


def daemon_of(mountpoint: str) -> Daemon:
    """Return what the daemon of a mount says of itself; raises OSError as :func:`ask`, ValueError."""
    fields = json.loads(ask(mountpoint, control.DAEMON))
    return Daemon(backing=os.fsdecode(ask(mountpoint, control.BACKING)), **fields)


def commit(path: str, top: str, progress: Callable[[Pending], None]) -> list[Failure]:
    """Return once what was written so far at or below a path is in containers, or cannot be committed.

    This can be interrupted; the daemon goes on.

    Args:
        path: in a mount.
        top: the mountpoint.
        progress: told now and then what is left.

    Returns:
        What could not be committed; the daemon tries that again.

    Raises:
        OSError: as :func:`ask`, or what else went wrong.
    """
    state = control.sync_state(ask(path, control.SYNC))
    while not (found := json.loads(ask(top, state)))["done"]:
        progress((found["files"], found["bytes"]))
    if found["error"] is not None:
        raise OSError(errno.EIO, found["error"])
    return [(name, reason) for name, reason in found["failed"]]
