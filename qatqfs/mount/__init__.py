"""A store as a FUSE filesystem (pyfuse3 and trio): inodes, handles, requests, and the daemon's life.

:func:`mount` makes a mount. :mod:`~qatqfs.mount.control` talks to a running one. :mod:`~qatqfs.mount.operations` has
the request handlers, which use a store through :mod:`qatqfs.store.facade` alone. Importing this package imports neither
of these nor the store. Only the daemon imports pyfuse3.
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
