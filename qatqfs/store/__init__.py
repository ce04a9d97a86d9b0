"""A backing directory as logical files, usable without FUSE.

:class:`Store` opens a backing directory; :class:`Handle` is an open file in it. Each folder is a room with one subject,
and its docstring is a map of it. Imports go from the last of this list to the first, which ``tests/test_layers.py``
keeps:

* ``system``: descriptors, system calls, every change of BACKING;
* base modules: ``errors``, ``locks``, ``holder``, ``options``, ``counters``, ``paths``, ``attributes``, ``private``;
* ``tensors``: what a file says about its tensors;
* ``reading``: containers to verified bytes;
* ``staging``: where written bytes live until they are in a container;
* ``encoding``: bytes to payloads;
* ``names``: logical names, and the files that are open or dirty;
* ``commit``: from staging to containers, and recovery;
* ``facade``: what a mount uses of a store, as a Protocol;
* ``background``: the threads of a store; ``store``: the public face.

A read goes through ``store``, ``names`` and ``reading``. A write goes through ``store``, ``names`` and ``staging``, and
later through ``commit`` and ``encoding``.

Importing this package imports none of them: a command that asks a running mount something needs no encoder.
"""

from typing import TYPE_CHECKING

from qatqfs.store.errors import StoreError

if TYPE_CHECKING:
    from qatqfs.store.attributes import Attributes
    from qatqfs.store.names.handle import Handle
    from qatqfs.store.names.node import Node
    from qatqfs.store.names.state import Storage
    from qatqfs.store.options import OnCorrupt, StoreOptions
    from qatqfs.store.store import Store
else:
    from qatqfs._lazy import names_from

    __getattr__ = names_from(
        __name__,
        {
            "Attributes": "qatqfs.store.attributes",
            "Handle": "qatqfs.store.names.handle",
            "Storage": "qatqfs.store.names.state",
            "Node": "qatqfs.store.names.node",
            "OnCorrupt": "qatqfs.store.options",
            "Store": "qatqfs.store.store",
            "StoreOptions": "qatqfs.store.options",
        },
    )

__all__ = ["Attributes", "Handle", "Node", "OnCorrupt", "Storage", "Store", "StoreError", "StoreOptions"]
