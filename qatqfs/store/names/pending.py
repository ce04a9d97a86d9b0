"""How much is in no container yet, for progress lines."""

from collections.abc import Iterable
from dataclasses import dataclass

from qatqfs.store.names.node import Node


@dataclass(frozen=True, slots=True)
class Pending:
    """Uncommitted content of some files.

    Attributes:
        files: how many are dirty.
        bytes: how much of it is not encoded yet. This is rough, because files are written and committed meanwhile.
    """

    files: int
    bytes: int

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Pending":
        """Count what nodes have to commit."""
        files, size = 0, 0
        for node in nodes:
            entry = node.staging
            if entry is None:  # committed a moment ago
                continue
            files += 1
            draft = entry.draft
            encoded = draft.count * draft.chunk_size if draft is not None else 0
            size += max(0, entry.view.chunks.held_bytes(entry.size) - encoded)
        return cls(files, size)
