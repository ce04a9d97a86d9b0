"""Where a mount logs.

In the foreground: standard error. A daemon: the file it was given, else ``.qatqfs/log`` in BACKING (a megabyte,
and the one before), or for a read-only mount, which writes nothing there, the system log if there is one.
"""

import logging
import logging.handlers
import os
from io import TextIOWrapper

from qatqfs.mount.errors import MountError
from qatqfs.store.names import PRIVATE_DIR

_MAX_LOG_BYTES = 1 << 20
_SYSLOG = "/dev/log"


class _PrivateLog(logging.handlers.RotatingFileHandler):
    """A log file that only its owner and group can read, whatever the umask."""

    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags, 0o640)

        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=opener)


def _handler(backing: str, log_file: str | None, *, foreground: bool, read_only: bool) -> logging.Handler:
    if log_file is not None:
        return _PrivateLog(log_file)
    if foreground:
        return logging.StreamHandler()
    if not read_only:
        private = os.path.join(backing, os.fsdecode(PRIVATE_DIR))
        os.makedirs(private, mode=0o700, exist_ok=True)
        path = os.path.join(private, "log")
        return _PrivateLog(path, maxBytes=_MAX_LOG_BYTES, backupCount=1)
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
        raise MountError(f"cannot write the log file: {err.strerror}: {err.filename!r}") from err
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s qatqfs[%(process)d]: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("pyfuse3").setLevel(logging.INFO)
