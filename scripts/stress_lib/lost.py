"""What a store has put into lost+found, and what a directory may look like after a reboot.

What was written shortly before the daemon was killed may be in lost+found then instead of under its name; names,
modes, owners and attributes are as before.
"""

import os
from pathlib import Path
from typing import Any

from qatqfs.codec import decode_container
from stress_lib.world import digest

Snapshot = dict[str, Any]


class LostAndFound:
    """The contents in lost+found of a backing directory; each is read once, for none is ever replaced."""

    def __init__(self, backing: Path) -> None:
        self._directory = backing / ".qatqfs" / "lost+found"
        self._known: dict[str, bytes] = {}

    def contents(self) -> dict[str, bytes]:
        """Return the contents by file name; raises QatcError for what is no whole container."""
        for name in os.listdir(self._directory):
            if name not in self._known:
                self._known[name] = bytes(decode_container((self._directory / name).read_bytes()))
        return self._known

    def digests(self) -> set[str]:
        """Return the digests of the contents, with that of nothing: no byte of nothing can be missing."""
        return {digest(content) for content in self.contents().values()} | {digest(b"")}


def settled(found: Snapshot, expected: Snapshot, lost: set[str]) -> bool:
    """Whether a directory has after a reboot what is expected, or lost+found has the content where it has not."""
    if found.keys() != expected.keys():
        return False
    return all(_is_settled(found[path], about, lost) for path, about in expected.items())


def _is_settled(found: Any, expected: Any, lost: set[str]) -> bool:
    if isinstance(found, str) or isinstance(expected, str):
        return bool(found == expected)
    content = expected.get("content")
    return but_content(found) == but_content(expected) and (found.get("content") == content or content in lost)


def but_content(about: dict[str, Any] | str) -> tuple[Any, ...]:
    """Return what a snapshot says of a file without content, size and time; only the errno where we may not look."""
    if isinstance(about, str):
        return (about,)
    return about["stat"][:4], about.get("xattrs"), about.get("target")
