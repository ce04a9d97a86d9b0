"""A store as a FUSE filesystem (pyfuse3 and trio): inodes, handles, requests, and the daemon's life.

:func:`mount` makes one; :mod:`~qatqfs.mount.control` talks to one that is running; :mod:`~qatqfs.mount.operations`
are the request handlers. Importing this package imports neither these nor the store, and the store does not import
pyfuse3: only the daemon does.
"""

from typing import TYPE_CHECKING

from qatqfs.mount.errors import MountError

if TYPE_CHECKING:
    from qatqfs.mount.daemon import MountOptions, mount
    from qatqfs.mount.unmounting import unmount_and_wait
else:
    from qatqfs._lazy import names_from

    __getattr__ = names_from(
        __name__,
        {
            "MountOptions": "qatqfs.mount.daemon",
            "mount": "qatqfs.mount.daemon",
            "unmount_and_wait": "qatqfs.mount.unmounting",
        },
    )

__all__ = ["MountError", "MountOptions", "mount", "unmount_and_wait"]
