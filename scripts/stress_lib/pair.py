"""The same operations in a directory of a mount and in a plain one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stress_lib.world import MountedWorld, Operation, Outcome, World

Trace = list[Operation]


@dataclass(frozen=True)
class Difference:
    """What was not the same: of an operation, or of everything at the end if that is ``None``."""

    operation: Operation | None
    here: Any
    plain: Any

    def __str__(self) -> str:
        what = "at the end" if self.operation is None else f"{self.operation}"
        return f"{what}: {self.here} in the mount, {self.plain} in the plain directory"


class Pair:
    """Two directories, made empty, and what was done in both.

    Args:
        here: a path in a mount.
        plain: a path elsewhere.
    """

    def __init__(self, here: Path, plain: Path) -> None:
        here.mkdir()
        plain.mkdir()
        self.here = MountedWorld(here)
        self.plain = World(plain)
        self.trace: Trace = []

    def apply(self, operation: Operation) -> Difference | None:
        """Do an operation in both."""
        self.trace.append(operation)
        return self.compare(operation, self.here.apply(operation))

    def compare(self, operation: Operation, here: Outcome) -> Difference | None:
        """Do an operation in the plain directory only, given its outcome in the mount."""
        plain = self.plain.apply(operation)
        return Difference(operation, here, plain) if here != plain else None

    def compare_all(self) -> Difference | None:
        """Compare everything in both directories."""
        here, plain = self.here.snapshot(), self.plain.snapshot()
        if here == plain:
            return None
        paths = {path for path in here.keys() | plain.keys() if here.get(path) != plain.get(path)}
        return Difference(None, {p: here.get(p) for p in sorted(paths)}, {p: plain.get(p) for p in sorted(paths)})

    def close(self) -> None:
        """Close every open file."""
        self.here.close_all()
        self.plain.close_all()


def replay(trace: Trace, here: Path, plain: Path) -> Difference | None:
    """Do a trace in two new directories; returns the first difference."""
    pair = Pair(here, plain)
    try:
        for operation in trace:
            found = pair.apply(operation)
            if found is not None:
                return found
        return pair.compare_all()
    finally:
        pair.close()
