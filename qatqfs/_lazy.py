"""Names of a package that are imported when somebody asks for them.

A verb that only talks to a running mount needs no numpy and no encoder. So packages whose modules import them do not
import these modules themselves, but look a name up where it is defined, the first time it is used (PEP 562).
"""

import importlib
import sys
from collections.abc import Callable, Mapping


def names_from(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package.

    Args:
        package: its ``__name__``.
        modules: name of the defining module, full, by the name to find there.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find
