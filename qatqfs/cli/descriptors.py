"""Standard input, output and error, which whoever calls may have closed."""

import contextlib
import os

_STANDARD = (0, 1, 2)


def fill_standard_descriptors() -> None:
    """Open /dev/null in place of each that is closed.

    Otherwise a file that is opened later gets its number, and whatever the C library or a child prints goes into that.
    """
    with contextlib.suppress(OSError):  # no /dev/null: nothing to be done
        while (number := os.open(os.devnull, os.O_RDWR)) in _STANDARD:
            os.set_inheritable(number, True)
        os.close(number)
