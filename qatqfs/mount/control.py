"""Extended attributes that exist only in the daemon, by which commands talk to a running mount.

* ``setxattr(PATH, "user.qatqfs.sync")`` returns when what was written at or below PATH is in containers, or fails.
* ``getxattr(PATH, "user.qatqfs.sync")`` begins to do the same and returns a number N. It also works in a read-only
  mount, and in one that was remounted read-only.
* ``getxattr(MOUNTPOINT, "user.qatqfs.sync.N")`` is a JSON object that says how far that is: whether it is done, what
  could not be committed, and what is left to do. It waits for the end, but only for a moment. A process that waits in a
  request to a FUSE daemon cannot be interrupted, not even by SIGKILL.
* ``getxattr(MOUNTPOINT, "user.qatqfs.daemon")`` is a JSON object with what a process needs to see the daemon end.
* ``getxattr(MOUNTPOINT, "user.qatqfs.stats")`` is a JSON object of counters.
* ``getxattr(MOUNTPOINT, "user.qatqfs.pid")`` is the daemon's process id.
* ``getxattr(MOUNTPOINT, "user.qatqfs.backing")`` is the backing directory.
* ``getxattr(MOUNTPOINT, "user.qatqfs.read_only")`` is 1 if the daemon cannot write, else 0.

They are not listed. They work wherever the mount is visible, without a socket or a file of their own. Only root and
the user of the daemon may use them; other users get EPERM. ``user.qatqfs.dtype`` is an ordinary, stored attribute.
"""

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qatqfs.store.facade import FileStore  # only the daemon imports it

PREFIX = b"user.qatqfs."
SYNC = PREFIX + b"sync"
STATS = PREFIX + b"stats"
PID = PREFIX + b"pid"
BACKING = PREFIX + b"backing"
DAEMON = PREFIX + b"daemon"

_STORED = PREFIX + b"dtype"
_SYNC_STATE = SYNC + b"."
_WAIT_S = 0.25
_MOST_FAILURES = 20
_LONGEST_TEXT = 400  # of a path or a reason: an attribute has at most 64 KiB


def is_denied(name: bytes, uid: int) -> bool:
    """Whether an attribute is reserved for these, and a user is neither root nor the user of the daemon."""
    return name.startswith(PREFIX) and name != _STORED and uid not in (0, os.geteuid())


def answer(store: "FileStore", name: bytes) -> bytes | None:
    """Return the value of a control attribute, ``None`` if it is none."""
    if name == STATS:
        return json.dumps(store.stats()).encode()
    if name == PID:
        return b"%d" % os.getpid()
    if name == BACKING:
        return store.backing_path()
    if name == DAEMON:
        namespace = os.stat("/proc/self/ns/pid").st_ino
        found = {"pid": os.getpid(), "pid_namespace": namespace, "read_only": store.options.read_only}
        return json.dumps(found).encode()
    if name.startswith(_SYNC_STATE):
        return _sync_state(store, name.removeprefix(_SYNC_STATE))
    return None


def _sync_state(store: "FileStore", number: bytes) -> bytes | None:
    try:
        below, state = store.sync_state(int(number), _WAIT_S)
    except (KeyError, ValueError):
        return None
    pending = store.pending(below)
    failed = [[text[:_LONGEST_TEXT] for text in failure] for failure in state.failures[:_MOST_FAILURES]]
    found = {"done": state.done, "failed": failed, "error": state.error, "files": pending.files, "bytes": pending.bytes}
    return json.dumps(found).encode()


def start_sync(store: "FileStore", path: bytes) -> bytes:
    """Begin to commit what was written at or below a logical path; returns the number N."""
    return b"%d" % store.start_sync(path)


def request_sync(path: str | os.PathLike[str]) -> None:
    """Ask the mount that a path is in to commit what was written at or below it; raises OSError."""
    os.setxattr(path, SYNC, b"1", follow_symlinks=True)


def sync_state(number: bytes) -> bytes:
    """Return the name of the attribute that says how far a sync is, given its number N."""
    return _SYNC_STATE + number


def query(mountpoint: str | os.PathLike[str], name: bytes) -> bytes:
    """Return a control attribute of a mount; raises OSError (ENODATA, EOPNOTSUPP: not a qatqfs mount)."""
    return os.getxattr(mountpoint, name)
