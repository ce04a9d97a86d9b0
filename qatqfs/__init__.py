"""qatqfs: a FUSE filesystem for LLM tensor dumps, stored as losslessly compressed QATC v2 containers.

Three layers, each importing only those before it in this list:

* :mod:`qatqfs.codec` turns bytes into payloads and containers and back.
* :mod:`qatqfs.store` shows a backing directory as logical files.
* :mod:`qatqfs.mount` adapts a store to FUSE; :mod:`qatqfs.cli` is the command line.
"""

from typing import TYPE_CHECKING

__version__: str

if not TYPE_CHECKING:

    def __getattr__(name):
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version  # takes a fifth of the time that a quick command has

        return version("qatqfs")
