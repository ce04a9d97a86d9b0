"""How commands talk to a running mount: extended attributes that exist only in the daemon.

* ``setxattr(PATH, "user.qatqfs.sync")`` returns when what was written at or below PATH is in containers.
* ``getxattr(MOUNTPOINT, "user.qatqfs.stats")`` is a JSON object of counters.
* ``getxattr(MOUNTPOINT, "user.qatqfs.pid")`` is the daemon's process id.
* ``getxattr(MOUNTPOINT, "user.qatqfs.backing")`` is the backing directory.

They are not listed, and work wherever the mount is visible, without a socket or a file of their own.
``user.qatqfs.dtype`` is an ordinary attribute and stored.
"""

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qatqfs.store import Store  # which only the daemon has

PREFIX = b"user.qatqfs."
SYNC = PREFIX + b"sync"
STATS = PREFIX + b"stats"
PID = PREFIX + b"pid"
BACKING = PREFIX + b"backing"


def answer(store: "Store", name: bytes) -> bytes | None:
    """Return the value of a control attribute, ``None`` if it is none."""
    if name == STATS:
        return json.dumps(store.snapshot()).encode()
    if name == PID:
        return b"%d" % os.getpid()
    if name == BACKING:
        return os.readlink(os.fsencode(store.tree.root.proc_path))
    return None


def request_sync(path: str | os.PathLike[str]) -> None:
    """Ask the mount that a path is in to commit what was written at or below it; raises OSError."""
    os.setxattr(path, SYNC, b"1", follow_symlinks=True)


def query(mountpoint: str | os.PathLike[str], name: bytes) -> bytes:
    """Return a control attribute of a mount; raises OSError (ENODATA, EOPNOTSUPP: not a qatqfs mount)."""
    return os.getxattr(mountpoint, name)
