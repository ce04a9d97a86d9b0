"""How another process sees a daemon end, and with which result.

A daemon holds a lock in its BACKING as long as it lives. The lock works across pid namespaces, and no other process can
be mistaken for the daemon. The last text in the lock file is the daemon's result. If there is no lock to look at, as
for a read-only mount, the process id has to do.
"""

import contextlib
import fcntl
import os
import select

from qatqfs.mount.asking import Daemon
from qatqfs.mount.mountinfo import Mount
from qatqfs.store.errors import StoreError
from qatqfs.store.holder import Holder, State, read_holder
from qatqfs.store.paths import PRIVATE_DIR
from qatqfs.store.private import LOCK, open_backing, waiting_files
from qatqfs.store.system.fd import Fd


class DaemonWatch:
    """Watches the daemon of one mount. It opens what it needs at once, because names may go away.

    Args:
        mount: the mount.
        daemon: what the daemon says of itself, ``None`` if it does not answer.

    Attributes:
        backing: path of the backing directory.
        read_only: whether the daemon has nothing to commit.
    """

    def __init__(self, mount: Mount, daemon: Daemon | None) -> None:
        self._device = mount.device
        self._pid = daemon.pid if daemon is not None else None
        self.backing = daemon.backing if daemon is not None else mount.source
        self.read_only = daemon is not None and daemon.read_only
        self._root: Fd | None = None
        self._lock: Fd | None = None
        self._process = _process_of(daemon) if daemon is not None else None
        if not self.read_only:
            with contextlib.suppress(OSError, StoreError):
                self._root = open_backing(self.backing)
                lock = Fd(os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
                if self._is_it(read_holder(lock.number)):
                    self._lock = lock

    @property
    def lock_path(self) -> str:
        """Path of the file that the daemon has locked."""
        return os.path.join(self.backing, os.fsdecode(PRIVATE_DIR), os.fsdecode(LOCK))

    @property
    def sees_anything(self) -> bool:
        """Whether this process can see the daemon end."""
        return self._lock is not None or self._process is not None

    def has_ended(self) -> bool:
        """Whether the daemon is gone; ``True`` also if this process cannot see that."""
        if self._lock is not None and _is_locked(self._lock):
            holder = read_holder(self._lock.number)
            if holder is None or self._is_it(holder):
                return False  # otherwise it is gone, and another daemon has the lock
        return self._process is None or bool(select.select([self._process.number], [], [], 0)[0])

    def is_stopping(self) -> bool:
        """Whether the daemon has left its mount and only commits what is left."""
        holder = read_holder(self._lock.number) if self._lock is not None else None
        return self._is_it(holder) and holder is not None and holder.state is not State.SERVING

    def outcome(self) -> str | None:
        """Return what went wrong when the daemon ended, ``None`` if everything is committed."""
        if self.read_only:
            return None
        holder = read_holder(self._lock.number) if self._lock is not None else None
        if holder is None:
            return f"whether everything was committed cannot be seen: {self.lock_path!r} cannot be read"
        if not self._is_it(holder):
            return f"whether everything was committed cannot be seen: {holder} has taken over"
        if holder.state is not State.ENDED:
            return f"the daemon ended before it had committed everything; {self._whereabouts(1)}"
        if holder.left:
            reason = f" ({holder.error})" if holder.error is not None else ""
            return f"{holder.left} file(s) could not be committed{reason}; {self._whereabouts(holder.left)}"
        return f"everything is committed, but then: {holder.error}" if holder.error is not None else None

    def files_left(self) -> int | None:
        """Return how many files are in staging, ``None`` if that is unknown or another daemon has them."""
        with contextlib.suppress(OSError, StoreError):
            if self._root is not None and self._lock is not None and not _is_locked(self._lock):
                return waiting_files(self._root)
        return None

    def _is_it(self, holder: Holder | None) -> bool:
        """Whether what a lock file says is about the daemon of this mount."""
        if holder is None:
            return False
        return holder.pid == self._pid if self._pid is not None else holder.device == self._device

    def _whereabouts(self, files: int) -> str:
        """Look where uncommitted files are, and say it."""
        with contextlib.suppress(OSError, StoreError):
            if self._root is not None and waiting_files(self._root) >= files:
                return "they are in staging for the next mount"
        return f"they are not in {self.backing!r} any more"


def _is_locked(lock: Fd) -> bool:
    try:
        fcntl.flock(lock.number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock.number, fcntl.LOCK_UN)
    return False


def _process_of(daemon: Daemon) -> Fd | None:
    """Return a pidfd of a daemon that has just answered, if this process is in the same pid namespace."""
    with contextlib.suppress(OSError):
        if os.stat("/proc/self/ns/pid").st_ino == daemon.pid_namespace:
            return Fd(os.pidfd_open(daemon.pid))
    return None
