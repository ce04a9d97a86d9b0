"""Logical names (what the mount shows) and stored names (what is in BACKING).

A container is a regular file whose stored name ends in ``.qatc``; its logical name is the rest.
Everything else keeps its name. All names are ``bytes``, as in the kernel: any byte except ``/`` and NUL.
This module has pure functions only. Whether a stored name is a regular file is for the caller to find out.
"""

import errno

from qatqfs.store.errors import os_error

SUFFIX = b".qatc"
"""Ends the stored name of every container, and no other stored name of a regular file."""

PRIVATE_DIR = b".qatqfs"
"""The one name at the top of BACKING that belongs to the store and is never shown."""


def is_container_name(stored: bytes) -> bool:
    """Whether a regular file of this stored name is a container (a lone ``.qatc`` has no logical name)."""
    return len(stored) > len(SUFFIX) and stored.endswith(SUFFIX)


def container_name(logical: bytes) -> bytes:
    """Return the stored name of the container that holds the logical file."""
    return logical + SUFFIX


def logical_name(stored: bytes, *, regular: bool) -> bytes:
    """Return the logical name of a directory entry; only regular files lose the suffix."""
    return stored[: -len(SUFFIX)] if regular and is_container_name(stored) else stored


def plain_name_allowed(logical: bytes) -> bool:
    """Whether a raw file, directory, symlink or special file may be stored under its own name."""
    return not is_container_name(logical)


def is_private(directory: bytes, name: bytes) -> bool:
    """Whether ``name`` in ``directory`` (logical, ``b""`` is the top) is the store's own."""
    return not directory and name == PRIVATE_DIR


def join(directory: bytes, name: bytes) -> bytes:
    """Join a logical directory path (``b""`` is the top) and a name."""
    return directory + b"/" + name if directory else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """Split a logical path into its directory and its last name."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether ``path`` is ``directory`` itself or lies under it; everything lies under ``b""``."""
    return not directory or path == directory or path.startswith(directory + b"/")


def components(path: bytes) -> list[bytes]:
    """Split a logical path into names.

    Raises:
        OSError: EINVAL for an empty name, ``.``, ``..`` or a NUL byte, because a logical path is already resolved.
    """
    if not path:
        return []
    parts = path.split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise os_error(errno.EINVAL, path)
    return parts
