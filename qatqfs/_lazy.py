"""Imports the names of a package when they are first used.

A verb that only talks to a running mount needs neither numpy nor the encoder. So a package whose modules import these
does not import its modules itself. It looks a name up in the defining module when the name is first used (PEP 562).
"""

import importlib
import sys
from collections.abc import Callable, Mapping


def names_from(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package.

    Args:
        package: its ``__name__``.
        modules: full name of the defining module, by the name to find there.
    """

    def find(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find
