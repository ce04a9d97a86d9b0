"""How far the kernel reads ahead of a sequential reader of a mount.

The default is 128 KiB, half a chunk, so that each trip to the daemon brings little. A FUSE filesystem cannot ask for
more, but root can, through sysfs, once the mount exists.
"""

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

READ_AHEAD_KIB = 512


def widen(device: int) -> None:
    """Let the kernel read further ahead on the mount with this st_dev; does nothing if that is not allowed."""
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        if int(path.read_text()) < READ_AHEAD_KIB:
            path.write_text(f"{READ_AHEAD_KIB}\n")
    except (OSError, ValueError) as err:
        log.debug("read-ahead stays as it is: %s", err)
