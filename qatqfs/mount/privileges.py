"""Set-ID bits and capabilities of files, which a change of content removes.

The kernel removes them at write(2) and truncate(2). It leaves that to the daemon at an open with O_TRUNC. At
truncate(2) it forgets the set-group-ID bit of a file that its group may not execute.
"""

import errno
import stat
from pathlib import Path

import pyfuse3

from qatqfs.store.facade import FileStore, Target
from qatqfs.store.locks import assert_held

CAPABILITY = b"security.capability"


def in_group(ctx: pyfuse3.RequestContext, gid: int) -> bool:
    """Whether the process that makes a request is in a group; if it has ended, only its first group is known."""
    if gid == ctx.gid:
        return True
    try:
        lines = Path(f"/proc/{ctx.pid}/status").read_text().splitlines()
        return gid in {int(group) for line in lines if line.startswith("Groups:") for group in line.split()[1:]}
    except (OSError, ValueError):
        return False


def drop_at_truncation(store: FileStore, target: Target, ctx: pyfuse3.RequestContext) -> None:
    """Remove what a file loses when a process truncates it; namespace lock held. Raises OSError.

    As in the kernel, it always loses a capability. It loses set-ID bits unless the process is root. The set-group-ID
    bit stays if the group may not execute the file and the process is in that group.
    """
    assert_held(store.namespace_lock)
    try:
        store.removexattr(target, CAPABILITY)
    except OSError as err:
        if err.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM):  # EPERM: this process is not root
            raise
    if ctx.uid == 0:
        return
    attributes = store.stat(target)
    gone = attributes.mode & stat.S_ISUID
    if attributes.mode & stat.S_ISGID and (attributes.mode & stat.S_IXGRP or not in_group(ctx, attributes.gid)):
        gone |= stat.S_ISGID
    if gone:
        store.chmod(target, stat.S_IMODE(attributes.mode) & ~gone)
