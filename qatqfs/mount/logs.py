"""Where a mount logs.

In the foreground: standard error, if that is open. A daemon: the file it was given, else ``.qatqfs/log`` in BACKING (a
megabyte, and the one before), or for a read-only mount, which writes nothing there, the system log if there is one.
"""

import contextlib
import logging
import logging.handlers
import os
import sys
from io import TextIOWrapper

from qatqfs.mount.errors import MountError
from qatqfs.store.names import PRIVATE_DIR
from qatqfs.store.sysfile import Fd

_MAX_LOG_BYTES = 1 << 20
_SYSLOG = "/dev/log"


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


def _private_directory(backing: str) -> Fd:
    """Open ``.qatqfs``, made if it is not there and never through a symlink; raises OSError."""
    path = os.path.join(backing, os.fsdecode(PRIVATE_DIR))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def _handler(backing: str, log_file: str | None, *, foreground: bool, read_only: bool) -> logging.Handler:
    if log_file is not None:
        return _LogFile(log_file)
    if foreground and sys.stderr is not None:  # else it was closed before we started
        return logging.StreamHandler()
    if not read_only:
        directory = _private_directory(backing)
        return _LogFile(f"{directory.proc_path}/log", directory, _MAX_LOG_BYTES)
    if os.path.exists(_SYSLOG):
        return logging.handlers.SysLogHandler(_SYSLOG)
    return logging.NullHandler()


def set_up_logging(backing: str, log_file: str | None, *, foreground: bool, debug: bool, read_only: bool) -> None:
    """Send the log records of this process where they belong.

    Raises:
        MountError: the log file cannot be written.
    """
    try:
        handler = _handler(backing, log_file, foreground=foreground, read_only=read_only)
    except OSError as err:
        path = log_file or os.path.join(backing, os.fsdecode(PRIVATE_DIR), "log")
        raise MountError(f"cannot write the log file: {err.strerror}: {path!r}") from err
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s qatqfs[%(process)d]: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pyfuse3").setLevel(logging.INFO)
