"""qatqfs: a FUSE filesystem for LLM tensor dumps, stored as losslessly compressed QATC v2 containers.

Three layers, each importing only those before it in this list:

* :mod:`qatqfs.codec` turns bytes into payloads and containers and back.
* :mod:`qatqfs.store` shows a backing directory as logical files.
* :mod:`qatqfs.mount` adapts a store to FUSE; :mod:`qatqfs.cli` is the command line.
"""

from importlib.metadata import version as _version

__version__ = _version("qatqfs")
