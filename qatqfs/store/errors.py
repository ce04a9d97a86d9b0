"""What the store raises, and how it makes an :class:`OSError`."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qatqfs.store.holder import Holder


def os_error(number: int, path: bytes | None = None) -> OSError:
    """Return the OSError of an errno, with the system's text for it, naming a logical path if there is one."""
    return OSError(number, os.strerror(number), os.fsdecode(path) if path is not None else None)


class StoreError(Exception):
    """A backing directory cannot be used as asked; the text is one sentence for the user."""


class StoreInUse(StoreError):
    """Another process has the backing directory open for writing.

    Args:
        holder: what that process says of itself, ``None`` if that cannot be read.

    Attributes:
        holder: as given.
    """

    def __init__(self, holder: "Holder | None") -> None:
        self.holder = holder
        by = f" by {holder}" if holder is not None else ""
        super().__init__(f"BACKING is already in use for writing{by} (a second mount may be --read-only)")


class NotCommitted(OSError):
    """Files could not be committed; their content stays in staging and is served from there.

    Errno, reason and file name are those of the first file.

    Args:
        failures: logical path and reason of each, at least one.
        number: errno of the first.

    Attributes:
        failures: as given.
    """

    def __init__(self, failures: "list[tuple[str, str]]", number: int) -> None:
        path, reason = failures[0]
        super().__init__(number, reason, path)
        self.failures = failures
