"""A backing directory as logical files, usable without FUSE.

:class:`Store` opens a backing directory; :class:`Handle` is an open file in it. Below them, in the order a
byte passes: :mod:`~qatqfs.store.files` and :mod:`~qatqfs.store.nameops` find and create names over
:mod:`~qatqfs.store.tree`; :mod:`~qatqfs.store.node` reads through :mod:`~qatqfs.store.containerfile` and
:mod:`~qatqfs.store.chunkcache` and writes to :mod:`~qatqfs.store.staging`; :mod:`~qatqfs.store.commit` turns
staging into containers; :mod:`~qatqfs.store.recovery` picks up what a killed process left.
"""

from qatqfs.store.attributes import Attributes
from qatqfs.store.errors import StoreError
from qatqfs.store.node import Handle, Kind, Node
from qatqfs.store.options import OnCorrupt, StoreOptions
from qatqfs.store.store import Store

__all__ = ["Attributes", "Handle", "Kind", "Node", "OnCorrupt", "Store", "StoreError", "StoreOptions"]
