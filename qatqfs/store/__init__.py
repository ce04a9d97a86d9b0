"""A backing directory as logical files, usable without FUSE.

:class:`Store` opens a backing directory; :class:`Handle` is an open file in it. Below them, in the order a
byte passes: :mod:`~qatqfs.store.files` and :mod:`~qatqfs.store.nameops` find and create names over
:mod:`~qatqfs.store.tree`; :mod:`~qatqfs.store.node` reads through :mod:`~qatqfs.store.containerfile` and
:mod:`~qatqfs.store.chunkcache` and writes to :mod:`~qatqfs.store.staging`; :mod:`~qatqfs.store.commit` turns
staging into containers; :mod:`~qatqfs.store.recovery` picks up what a killed process left.

Importing this package imports none of them: a command that asks a running mount something needs no encoder.
"""

from typing import TYPE_CHECKING

from qatqfs.store.errors import StoreError

if TYPE_CHECKING:
    from qatqfs.store.attributes import Attributes
    from qatqfs.store.handle import Handle
    from qatqfs.store.node import Kind, Node
    from qatqfs.store.options import OnCorrupt, StoreOptions
    from qatqfs.store.store import Store
else:
    from qatqfs._lazy import names_from

    __getattr__ = names_from(
        __name__,
        {
            "Attributes": "qatqfs.store.attributes",
            "Handle": "qatqfs.store.handle",
            "Kind": "qatqfs.store.node",
            "Node": "qatqfs.store.node",
            "OnCorrupt": "qatqfs.store.options",
            "Store": "qatqfs.store.store",
            "StoreOptions": "qatqfs.store.options",
        },
    )

__all__ = ["Attributes", "Handle", "Kind", "Node", "OnCorrupt", "Store", "StoreError", "StoreOptions"]
