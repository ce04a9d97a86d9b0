"""Where a mount logs, and what a line of the log looks like.

In the foreground: standard error, if that is open. A daemon: the file it was given, else ``.qatqfs/log`` in BACKING (a
megabyte, and the one before). A read-only mount writes nothing in BACKING: it logs to the system log, or where there is
none to a file of its own in the user's state directory, ``~/.local/state/qatqfs``.

Every record is one line in which nothing is unprintable, whoever logged it: a name that a user chose must not forge
another. Only what follows it of an exception has lines of its own, and these are indented.
"""

import contextlib
import logging
import logging.handlers
import os
import socket
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from qatqfs.mount.errors import MountError
from qatqfs.store.paths import PRIVATE_DIR
from qatqfs.store.system.fd import Fd
from qatqfs.wording import shown

_MAX_LOG_BYTES = 1 << 20
_SYSLOG = "/dev/log"
_LINE = "%(asctime)s %(levelname)s qatqfs[%(process)d]: %(message)s"
_SYSLOG_LINE = "qatqfs[%(process)d]: %(levelname)s %(message)s"
"""Time and level are the system log's own; a name and a process in front is what it takes for the sender."""
_LONGEST_NAME = 200


class _Formatter(logging.Formatter):
    """See the module's text."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return shown(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"    {shown(line)}" for line in text.splitlines())


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log file that only its owner and group can read, whatever the umask.

    Args:
        path: the file.
        directory: what keeps the descriptor open that ``path`` names the directory by; a symlink is not followed then.
        max_bytes: it is renamed and begun anew beyond that; 0 for never.
    """

    def __init__(self, path: str, directory: Fd | None = None, max_bytes: int = 0) -> None:
        self._directory = directory
        super().__init__(path, maxBytes=max_bytes, backupCount=1)

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | (os.O_NOFOLLOW if self._directory is not None else 0), 0o640)

        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=opener)


def _in_directory(directory: Fd, name: str) -> logging.Handler:
    return _LogFile(f"{directory.proc_path}/{name}", directory, _MAX_LOG_BYTES)


def _private_directory(path: str) -> Fd:
    """Open a directory, made for its owner alone if it is not there and never through a symlink; raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def _system_log_listens() -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as trial:
            trial.connect(_SYSLOG)
            return True
    return False


def _outside(backing: str, mountpoint: str) -> logging.Handler | None:
    """Return what a daemon logs to that may not write to BACKING, ``None`` if there is nothing here."""
    if _system_log_listens():
        return logging.handlers.SysLogHandler(_SYSLOG)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = Path(os.path.realpath(state), "qatqfs")
    if any(directory.is_relative_to(place) for place in (backing, mountpoint)) or not os.path.isabs(state):
        return None
    name = os.fsencode(mountpoint.strip("/").replace("/", "-"))[-_LONGEST_NAME:]
    try:
        for above in reversed(directory.parents):
            with contextlib.suppress(FileExistsError):
                above.mkdir(0o700)  # all of them at once would be open to anybody: a daemon has no umask
        return _in_directory(_private_directory(str(directory)), f"{os.fsdecode(name)}.log")
    except OSError:
        return None


def _handler(
    backing: str, mountpoint: str, log_file: str | None, *, foreground: bool, read_only: bool
) -> logging.Handler | None:
    if log_file is not None:
        if read_only and Path(log_file).is_relative_to(backing):
            raise MountError(f"log file {log_file!r} must not be in the backing directory of a read-only mount")
        return _LogFile(log_file)
    if foreground and sys.stderr is not None:  # else it was closed before we started
        return logging.StreamHandler()
    if read_only:
        return _outside(backing, mountpoint)
    return _in_directory(_private_directory(os.path.join(backing, os.fsdecode(PRIVATE_DIR))), "log")


def set_up_logging(
    backing: str, mountpoint: str, log_file: str | None, *, foreground: bool, debug: bool, read_only: bool
) -> list[str]:
    """Send the log records of this process where they belong.

    Returns:
        What the user should know: that there is nowhere to log to.

    Raises:
        MountError: the log file cannot be written.
    """
    try:
        handler = _handler(backing, mountpoint, log_file, foreground=foreground, read_only=read_only)
    except OSError as err:
        path = log_file or os.path.join(backing, os.fsdecode(PRIVATE_DIR), "log")
        raise MountError(f"cannot write the log file: {err.strerror}: {path!r}") from err
    notes = []
    if handler is None:
        notes.append("nothing is logged: there is neither a system log nor a home directory; give one with --log-file")
        handler = logging.NullHandler()
    to_system = isinstance(handler, logging.handlers.SysLogHandler)
    handler.setFormatter(_Formatter(_SYSLOG_LINE if to_system else _LINE))
    logging.raiseExceptions = False  # a line that cannot be written is lost; standard error is not for telling that
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pyfuse3").setLevel(logging.INFO)
    return notes
