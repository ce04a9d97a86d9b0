"""How commands talk to a running mount: extended attributes that exist only in the daemon.

* ``setxattr(PATH, "user.qatqfs.sync")`` returns when what was written at or below PATH is in containers.
* ``getxattr(MOUNTPOINT, "user.qatqfs.stats")`` is a JSON object of counters.
* ``getxattr(MOUNTPOINT, "user.qatqfs.pid")`` is the daemon's process id.
* ``getxattr(MOUNTPOINT, "user.qatqfs.backing")`` is the backing directory.
* ``getxattr(MOUNTPOINT, "user.qatqfs.read_only")`` is 1 if the daemon cannot write, else 0.

They are not listed, and work wherever the mount is visible, without a socket or a file of their own. Only root and
the user who mounted may use them: others get EPERM. ``user.qatqfs.dtype`` is an ordinary attribute and stored.
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
_STORED = PREFIX + b"dtype"
READ_ONLY = PREFIX + b"read_only"


def is_denied(name: bytes, uid: int) -> bool:
    """Whether an attribute is one of these, or may be in another version, and a user neither root nor who mounted."""
    return name.startswith(PREFIX) and name != _STORED and uid not in (0, os.geteuid())


def answer(store: "Store", name: bytes) -> bytes | None:
    """Return the value of a control attribute, ``None`` if it is none."""
    if name == STATS:
        return json.dumps(store.snapshot()).encode()
    if name == PID:
        return b"%d" % os.getpid()
    if name == BACKING:
        return os.readlink(os.fsencode(store.tree.root.proc_path))
    if name == READ_ONLY:
        return b"%d" % store.options.read_only
    return None


def request_sync(path: str | os.PathLike[str]) -> None:
    """Ask the mount that a path is in to commit what was written at or below it; raises OSError."""
    os.setxattr(path, SYNC, b"1", follow_symlinks=True)


def query(mountpoint: str | os.PathLike[str], name: bytes) -> bytes:
    """Return a control attribute of a mount; raises OSError (ENODATA, EOPNOTSUPP: not a qatqfs mount)."""
    return os.getxattr(mountpoint, name)
