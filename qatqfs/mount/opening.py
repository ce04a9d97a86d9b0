"""Opening the store of a mount, which an earlier daemon may still have open.

umount(8) returns before the daemon has committed everything. So a user who mounts again at once finds the backing
directory in use. In most cases the daemon ends within a moment, and the new mount waits for that.
"""

import time

from qatqfs.mount.errors import MountError
from qatqfs.mount.sightings import Sighting, sightings
from qatqfs.store import Store, StoreError, StoreOptions
from qatqfs.store.errors import StoreInUse
from qatqfs.store.facade import FileStore
from qatqfs.store.holder import Holder, State

_MOST_WAIT_S = 10.0
_LOOK_AGAIN_S = 0.05


def open_store(backing: str, options: StoreOptions) -> FileStore:
    """Open a store; waits some seconds for a daemon that is about to end.

    Raises:
        MountError: it cannot be opened, with the reason.
    """
    deadline = time.monotonic() + _MOST_WAIT_S
    while True:
        try:
            return Store(backing, options)
        except StoreInUse as err:
            places = _places(err.holder)
            if not _is_leaving(err.holder, places) or time.monotonic() > deadline:
                raise MountError(_refusal(err, places)) from err
        except StoreError as err:
            raise MountError(str(err)) from err
        except OSError as err:
            raise MountError(f"cannot open backing directory {backing!r}: {err.strerror}") from err
        time.sleep(_LOOK_AGAIN_S)


def _places(holder: Holder | None) -> list[Sighting]:
    if holder is None or holder.device is None or holder.state is not State.SERVING:
        return []
    return sightings(holder.device)


def _is_leaving(holder: Holder | None, places: list[Sighting]) -> bool:
    """Whether the process that has the lock ends soon: it says so, or its mount is mounted nowhere any more."""
    if holder is None or holder.state is not State.SERVING:
        return True
    return holder.device is not None and not places


def _refusal(error: StoreInUse, places: list[Sighting]) -> str:
    holder = error.holder
    if holder is None or holder.device is None:
        return str(error)
    if holder.state is not State.SERVING:
        return (
            f"BACKING was unmounted from {holder.mountpoint!r}, and process {holder.pid} is still committing what was"
            " written there; mount it again when that is done"
        )
    others = [str(place) for place in places if place != Sighting(holder.mountpoint or "")]
    if not others:
        return str(error)
    return f"{error}; the mount is also held by " + " and by ".join(others)
