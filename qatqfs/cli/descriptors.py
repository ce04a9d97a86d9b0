"""Standard input, output and error, which the caller may have closed."""

import contextlib
import os

_STANDARD = (0, 1, 2)


def fill_standard_descriptors() -> None:
    """Open /dev/null in place of each closed one.

    Otherwise a file that is opened later gets its number, and what the C library or a child prints goes into that file.
    """
    with contextlib.suppress(OSError):  # no /dev/null: nothing to be done
        while (number := os.open(os.devnull, os.O_RDWR)) in _STANDARD:
            os.set_inheritable(number, True)
        os.close(number)
