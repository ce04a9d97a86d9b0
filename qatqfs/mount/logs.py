"""Where a mount logs, and what a line of the log looks like.

A mount in the foreground logs to standard error, if that is open. A daemon logs to the file that it was given, else to
``.qatqfs/log`` in BACKING (a megabyte, and the megabyte before). A read-only mount writes nothing in BACKING. It logs
to the system log. If there is none, it logs to a file in the user's state directory, ``~/.local/state/qatqfs``.

Every record is one line of printable characters, so that a file name cannot forge another record. Only the traceback of
an exception has further lines, which are indented.
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
"""The system log adds time and level itself, and takes the name and the process id in front for the sender."""
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
        directory: the open directory, if ``path`` names it by this descriptor; symlinks are not followed then.
        max_bytes: beyond this size the file is renamed and a new one begun; 0 for never.
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
    """Open a directory, never through a symlink, and make it with mode 0700 if it is missing; raises OSError."""
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
    """Return the handler of a daemon that may not write to BACKING, ``None`` if there is nowhere to log to."""
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
                above.mkdir(0o700)  # one by one with a mode: makedirs would use 0777, and a daemon has no umask
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
    if foreground and sys.stderr is not None:  # it may have been closed before this process started
        return logging.StreamHandler()
    if read_only:
        return _outside(backing, mountpoint)
    return _in_directory(_private_directory(os.path.join(backing, os.fsdecode(PRIVATE_DIR))), "log")


def set_up_logging(
    backing: str, mountpoint: str, log_file: str | None, *, foreground: bool, debug: bool, read_only: bool
) -> list[str]:
    """Send the log records of this process to the place that the module's text says.

    Returns:
        What the user should know: whether there is nowhere to log to.

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
    logging.raiseExceptions = False  # a line that cannot be written is lost, not reported on standard error
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pyfuse3").setLevel(logging.INFO)
    return notes
