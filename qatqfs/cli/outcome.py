"""The exit status of a command that continues with the next input after a bad one."""

import contextlib
from collections.abc import Iterator

from qatqfs.cli.exits import BAD_DATA, DONE, REFUSED, Refusal, complain, describe, shown
from qatqfs.codec import QatcError
from qatqfs.store import StoreError


class Outcome:
    """The result of all inputs together.

    Attributes:
        status: the exit status. Bad data outweighs other failures, because that is what scripts test for.
        failed: number of inputs that failed. Every total must show it too.
    """

    def __init__(self) -> None:
        self.status = DONE
        self.failed = 0

    def bad_data(self) -> None:
        """Note that something is wrong with the data."""
        self.status = BAD_DATA

    def refused(self) -> None:
        """Note that something was refused or failed."""
        self.status = self.status or REFUSED

    @contextlib.contextmanager
    def of(self, path: str) -> Iterator[None]:
        """Turn an error about one input into a line and a status, and continue."""
        try:
            yield
        except QatcError as err:
            self.failed += 1
            self.bad_data()
            complain(f"{shown(path)}: {describe(err)}")
        except Refusal as err:
            self.failed += 1
            self.refused()
            complain(describe(err))
        except StoreError as err:
            self.failed += 1
            self.refused()
            complain(f"{shown(path)}: {describe(err)}")
        except OSError as err:
            self.failed += 1
            self.refused()
            text = describe(err)
            complain(text if err.filename is not None else f"{shown(path)}: {text}")
