"""How many files may be open at once, and what of that is kept free.

An open file takes a descriptor, an open file with uncommitted content takes three. A process may have so many and no
more, and its commits, which give descriptors back, need some themselves. So what is to stay open is refused while
there are still some left, before anything is done; whoever gets the refusal may commit a file and try again.
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
    """Return how many threads of those wanted may work at once: each may need some descriptors for a moment."""
    return max(1, min(wanted, most_descriptors() // 32))


def to_stay_open(opened: Fd) -> Fd:
    """Return a descriptor that was opened just now and is to stay open.

    The kernel gives the lowest number that is free, so the number tells how many are taken.

    Raises:
        DescriptorShortage: hardly more than commits need are left.
    """
    most = most_descriptors()
    if opened.number >= most - min(most // 4, _MOST_KEPT_FREE):
        raise DescriptorShortage
    return opened


def is_want(error: OSError) -> bool:
    """Whether an error is for want of descriptors or memory, and so says nothing about the file."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
