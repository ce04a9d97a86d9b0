"""How commands talk to a running mount: extended attributes that exist only in the daemon.

* ``setxattr(PATH, "user.qatqfs.sync")`` returns when what was written at or below PATH is in containers, or fails.
* ``getxattr(PATH, "user.qatqfs.sync")`` does the same and returns how many files could not be committed, which
  works where the mount has been made read-only meanwhile, and where it always was.
* ``getxattr(PATH, "user.qatqfs.pending")`` is a JSON object of what waits to be committed at or below PATH.
* ``getxattr(MOUNTPOINT, "user.qatqfs.daemon")`` is a JSON object of what one needs to see the daemon end.
* ``getxattr(MOUNTPOINT, "user.qatqfs.stats")`` is a JSON object of counters.
* ``getxattr(MOUNTPOINT, "user.qatqfs.pid")`` is the daemon's process id.
* ``getxattr(MOUNTPOINT, "user.qatqfs.backing")`` is the backing directory.

They are not listed, and work wherever the mount is visible, without a socket or a file of their own.
``user.qatqfs.dtype`` is an ordinary attribute and stored.
"""

import json
import os
from typing import TYPE_CHECKING

from qatqfs.store.errors import NotCommitted

if TYPE_CHECKING:
    from qatqfs.store import Store  # which only the daemon has

PREFIX = b"user.qatqfs."
SYNC = PREFIX + b"sync"
STATS = PREFIX + b"stats"
PID = PREFIX + b"pid"
BACKING = PREFIX + b"backing"
PENDING = PREFIX + b"pending"
DAEMON = PREFIX + b"daemon"
ABOUT_A_PATH = frozenset({SYNC, PENDING})
"""Those that are answered by :func:`answer_about`."""

_MOST_FAILURES = 20
_LONGEST_TEXT = 400  # of a path or a reason: an attribute has at most 64 KiB


def answer(store: "Store", name: bytes) -> bytes | None:
    """Return the value of a control attribute, ``None`` if it is none."""
    if name == STATS:
        return json.dumps(store.snapshot()).encode()
    if name == PID:
        return b"%d" % os.getpid()
    if name == BACKING:
        return os.readlink(os.fsencode(store.tree.root.proc_path))
    if name == DAEMON:
        namespace = os.stat("/proc/self/ns/pid").st_ino
        return json.dumps(
            {"pid": os.getpid(), "pid_namespace": namespace, "read_only": store.options.read_only}
        ).encode()
    return None


def answer_about(store: "Store", name: bytes, path: bytes) -> bytes:
    """Return the value of a control attribute that is about what is at or below a logical path.

    Raises:
        OSError: everything was committed, but the store could not clear up.
    """
    if name == SYNC:
        # Short: os.getxattr() asks again, with more space, for what takes more than 128 bytes.
        try:
            store.sync(path)
        except NotCommitted as err:
            return b"%d" % len(err.failures)
        return b"0"
    pending = store.pending(path)
    failed = [[text[:_LONGEST_TEXT] for text in failure] for failure in pending.failed[:_MOST_FAILURES]]
    return json.dumps({"files": pending.files, "bytes": pending.bytes, "failed": failed}).encode()


def request_sync(path: str | os.PathLike[str]) -> None:
    """Ask the mount that a path is in to commit what was written at or below it; raises OSError."""
    os.setxattr(path, SYNC, b"1", follow_symlinks=True)


def query(mountpoint: str | os.PathLike[str], name: bytes) -> bytes:
    """Return a control attribute of a mount; raises OSError (ENODATA, EOPNOTSUPP: not a qatqfs mount)."""
    return os.getxattr(mountpoint, name)
