"""What the machine allows: mounts, and an empty page cache."""

import os
import subprocess
import sys
from pathlib import Path

_FUSE_CHECK = Path(__file__).resolve().parent.parent / "fuse_check.py"


def fuse_obstacle() -> str | None:
    """Return why nothing can be mounted here; asked in a process of its own, which mounts for a moment."""
    result = subprocess.run(
        [sys.executable, _FUSE_CHECK],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
    )
    return None if result.returncode == 0 else result.stdout.strip() or "the FUSE check failed"


def drop_caches() -> bool:
    """Empty the kernel's page cache, which only root may do; return whether it worked."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True
