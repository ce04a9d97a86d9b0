"""Opening the store of a mount, for which an earlier daemon may still have to leave.

umount(8) returns before the daemon has committed everything, so who mounts again at once finds the backing directory
in use. It takes a moment in most cases, and that moment is waited for.
"""

import time

from qatqfs.mount.errors import MountError
from qatqfs.mount.sightings import Sighting, sightings
from qatqfs.store import Store, StoreError, StoreOptions
from qatqfs.store.errors import StoreInUse
from qatqfs.store.facade import FileStore
from qatqfs.store.holder import Holder, State

_PATIENCE_S = 10.0
_LOOK_AGAIN_S = 0.05


def open_store(backing: str, options: StoreOptions) -> FileStore:
    """Open a store; waits some seconds for a daemon that is on its way out.

    Raises:
        MountError: it cannot be opened, with the reason.
    """
    deadline = time.monotonic() + _PATIENCE_S
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
    """Whether whoever has the lock gives it back soon: its mount is nowhere any more, or it says so itself."""
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
