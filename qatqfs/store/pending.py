"""What waits to be committed, for people who wait for it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from qatqfs.store.node import Node


@dataclass(frozen=True, slots=True)
class Pending:
    """Uncommitted content of some files.

    Attributes:
        files: how many have some.
        bytes: what of it is not encoded yet; roughly, for they are being written and committed meanwhile.
        failed: logical path and reason of those whose last commit failed.
    """

    files: int
    bytes: int
    failed: list[tuple[str, str]]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Pending":
        """Count what some nodes have to commit."""
        files, size = 0, 0
        failed = []
        for node in nodes:
            entry, path, error = node.staging, node.path, node.commit_error
            if entry is None or path is None:  # committed or removed a moment ago
                continue
            files += 1
            draft = entry.draft
            encoded = draft.count * draft.unit if draft is not None else 0
            size += max(0, entry.view.chunks.held_bytes(entry.size) - encoded)
            if error is not None:
                failed.append((os.fsdecode(path), error))
        return cls(files, size, failed)
