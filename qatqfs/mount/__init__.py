"""A store as a FUSE filesystem (pyfuse3 and trio): inodes, handles, requests, and the daemon's life.

:func:`mount` makes one; :mod:`~qatqfs.mount.control` talks to one that is running; :mod:`~qatqfs.mount.operations`
are the request handlers. Importing this package does not import pyfuse3: only the daemon does.
"""

from qatqfs.mount.daemon import MountOptions, mount, unmount_and_wait
from qatqfs.mount.errors import MountError

__all__ = ["MountError", "MountOptions", "mount", "unmount_and_wait"]
