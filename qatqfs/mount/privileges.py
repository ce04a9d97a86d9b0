"""Set-ID bits and capabilities of files, which go when somebody changes the content.

The kernel takes them away at write(2) and truncate(2), but leaves it to us when O_TRUNC comes with an open, and
forgets at truncate(2) the set-group-ID bits of files that their group may not execute.
"""

import errno
import stat
from pathlib import Path

import pyfuse3

from qatqfs.store.facade import FileStore, Target

CAPABILITY = b"security.capability"


def in_group(ctx: pyfuse3.RequestContext, gid: int) -> bool:
    """Whether who makes a request is in a group; of one that has ended only the first group is known."""
    if gid == ctx.gid:
        return True
    try:
        lines = Path(f"/proc/{ctx.pid}/status").read_text().splitlines()
        return gid in {int(group) for line in lines if line.startswith("Groups:") for group in line.split()[1:]}
    except (OSError, ValueError):
        return False


def drop_at_truncation(store: FileStore, target: Target, ctx: pyfuse3.RequestContext) -> None:
    """Take away what a file loses when somebody empties it; namespace lock held. Raises OSError.

    As in the kernel: a capability always, set-ID bits unless it is root who empties it, of these set-group-ID only if
    the group may execute the file, or whoever it is is not in that group.
    """
    try:
        store.removexattr(target, CAPABILITY)
    except OSError as err:
        if err.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):  # EPERM: we are not root, there or not
            raise
    if ctx.uid == 0:
        return
    attributes = store.stat(target)
    gone = attributes.mode & stat.S_ISUID
    if attributes.mode & stat.S_ISGID and (attributes.mode & stat.S_IXGRP or not in_group(ctx, attributes.gid)):
        gone |= stat.S_ISGID
    if gone:
        store.chmod(target, stat.S_IMODE(attributes.mode) & ~gone)
