"""How many files may be open at once, and how many descriptors are kept free.

An open file takes one descriptor, an open dirty file takes three. The system limits the descriptors of a process, and
commits, which free descriptors, need some themselves. So a file that would stay open is refused while a few descriptors
are left, before anything is done. The caller may commit a file and try again.
"""

import errno
import os
import resource

from qatqfs.store.system.fd import Fd

_UNLIMITED = 1 << 20
_MOST_KEPT_FREE = 512


class DescriptorShortage(OSError):
    """ENFILE: too many files are open; nothing was done."""

    def __init__(self) -> None:
        super().__init__(errno.ENFILE, os.strerror(errno.ENFILE))


def most_descriptors() -> int:
    """Return how many descriptors this process may have (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else _UNLIMITED


def fitting_threads(wanted: int) -> int:
    """Return how many of the wanted threads may work at once. Each may need some descriptors for a moment."""
    return max(1, min(wanted, most_descriptors() // 32))


def to_stay_open(opened: Fd) -> Fd:
    """Return a descriptor that was opened just now and is to stay open.

    The kernel gives out the lowest free number, so the number tells how many are in use.

    Raises:
        DescriptorShortage: only as many are left as commits need.
    """
    most = most_descriptors()
    if opened.number >= most - min(most // 4, _MOST_KEPT_FREE):
        raise DescriptorShortage
    return opened


def is_want(error: OSError) -> bool:
    """Whether an error is a lack of descriptors or memory, which says nothing about the file."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
