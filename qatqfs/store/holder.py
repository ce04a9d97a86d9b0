"""What the process that has a BACKING open for writing says of itself in ``.qatqfs/lock``.

Other processes learn from it where the directory is mounted. It is the last thing that a process writes there, so it
also says how the process ended. The text outlives its writer: only the lock on the file says whether the process still
runs.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum

_MAX_BYTES = 65536


class State(StrEnum):
    """How far a process is that has a BACKING open for writing."""

    SERVING = "serving"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Holder:
    """One process.

    Attributes:
        pid: its number, in its own pid namespace.
        state: how far it is.
        mountpoint: where it shows the directory, ``None`` if nowhere (yet).
        device: ``major:minor`` of that mount.
        left: at the end, files that are still in staging.
        error: at the end, what went wrong last, ``None`` if nothing did.
    """

    pid: int
    state: State = State.SERVING
    mountpoint: str | None = None
    device: str | None = None
    left: int = 0
    error: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid}" + (f", mounted at {self.mountpoint!r}" if self.mountpoint is not None else "")

    def to_bytes(self) -> bytes:
        """Return it as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read_holder(fd: int) -> Holder | None:
    """Return what an open lock file says, ``None`` if it says nothing, or nothing that this version understands."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        fields = json.loads(os.pread(fd, _MAX_BYTES, 0).partition(b"\n")[0])
        return Holder(**fields | {"pid": int(fields["pid"]), "state": State(fields["state"])})
    return None
