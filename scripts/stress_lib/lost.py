"""The files that a store has put into lost+found, and what a directory may look like after a reboot.

What was written shortly before the daemon was killed may then be in lost+found instead of under its name. Names,
modes, owners and attributes are as before.
"""

import os
from pathlib import Path
from typing import Any

from qatqfs.codec import decode_container
from stress_lib.world import digest

Snapshot = dict[str, Any]


class LostAndFound:
    """The contents in lost+found of a backing directory. Each is read once, because none is ever replaced."""

    def __init__(self, backing: Path) -> None:
        self._directory = backing / ".qatqfs" / "lost+found"
        self._known: dict[str, bytes] = {}

    def contents(self) -> dict[str, bytes]:
        """Return the contents by file name; raises QatcError for a file that is not a whole container."""
        for name in os.listdir(self._directory):
            if name not in self._known:
                self._known[name] = bytes(decode_container((self._directory / name).read_bytes()))
        return self._known

    def digests(self) -> set[str]:
        """Return the digests of the contents, and that of an empty content, which cannot be lost."""
        return {digest(content) for content in self.contents().values()} | {digest(b"")}


def accounted_for(found: Snapshot, expected: Snapshot, lost: set[str]) -> bool:
    """Whether every expected content is in the directory after a reboot, or else in lost+found."""
    if found.keys() != expected.keys():
        return False
    return all(_is_accounted_for(found[path], about, lost) for path, about in expected.items())


def _is_accounted_for(found: Any, expected: Any, lost: set[str]) -> bool:
    if isinstance(found, str) or isinstance(expected, str):
        return bool(found == expected)
    content = expected.get("content")
    return but_content(found) == but_content(expected) and (found.get("content") == content or content in lost)


def but_content(about: dict[str, Any] | str) -> tuple[Any, ...]:
    """Return what a snapshot says of a file without content, size and time; if it may not be read, only the errno."""
    if isinstance(about, str):
        return (about,)
    return about["stat"][:4], about.get("xattrs"), about.get("target")
