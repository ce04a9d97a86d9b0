"""Makes glibc keep freed memory instead of returning it to the kernel at once.

By default glibc takes every block of 128 KiB and more from the kernel, and returns it when it is freed. A chunk is
about that large, so each chunk would fault in all of its pages again. Unmapping also stops all threads for a moment.
With two threads this halves the speed of encoding.
"""

import contextlib
import ctypes

# mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_KEPT_BYTES = 8 << 20
_KEPT_FREE_BYTES = 8 << 20
_ARENAS = 4


def keep_freed_memory() -> None:
    """Reuse freed blocks of up to 8 MiB. At most 8 MiB stay free at the top of each of four arenas."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)
