"""Random operations over a few names and a few open files, so that they meet each other often."""

import os
import random

from qatqfs.store.system.calls import RENAME_EXCHANGE, RENAME_NOREPLACE
from stress_lib.world import Operation

NAMES = ("a", "b", "c", "d", "p", "q", "p/a", "p/b", "q/a", "p/q")
SLOTS = 3
_KEYS = ("user.one", "user.two")
_ACCESS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR)
_LARGEST = 300_000
_WEIGHTS = {
    "open": 24, "close": 4, "read": 4, "pread": 8, "write": 8, "pwrite": 12, "lseek": 2, "ftruncate": 4, "fsync": 2,
    "fstat": 3, "fchmod": 1, "forget_pages": 3, "map_store": 3, "map_load": 2, "truncate": 2, "rename": 7,
    "rename2": 3, "link": 3, "unlink": 5, "mkdir": 4, "rmdir": 2, "symlink": 1, "readlink": 1, "readdir": 3,
    "stat": 5, "commit": 2, "chmod": 2, "utime": 2, "setxattr": 2, "getxattr": 2, "listxattr": 1, "removexattr": 1,
}  # fmt: skip


class Generator:
    """Makes one operation after another from a seed.

    Args:
        seed: the same seed makes the same operations.
        links: whether to make hard links of files.
    """

    def __init__(self, seed: str, *, links: bool) -> None:
        self._random = random.Random(seed)
        names = [name for name in _WEIGHTS if links or name != "link"]
        self._names = names
        self._weights = [_WEIGHTS[name] for name in names]

    def next(self) -> Operation:
        """Return an operation."""
        name = self._random.choices(self._names, self._weights)[0]
        if name == "commit":
            return [name]
        return [name, *self._arguments(name)]

    def _arguments(self, name: str) -> Operation:
        pick = self._random
        path, other, slot = pick.choice(NAMES), pick.choice(NAMES), pick.randrange(SLOTS)
        if name == "open":
            flags = pick.choice(_ACCESS)
            for flag, share in ((os.O_CREAT, 0.8), (os.O_TRUNC, 0.15), (os.O_EXCL, 0.1), (os.O_APPEND, 0.2)):
                flags |= flag if pick.random() < share else 0
            return [slot, path, flags, pick.choice((0o600, 0o644, 0o755))]
        if name in ("close", "fsync", "fstat", "forget_pages"):
            return [slot]
        if name == "read":
            return [slot, self._size()]
        if name in ("pread", "map_load"):
            return [slot, self._size(), self._offset()]
        if name == "write":
            return [slot, self._seed(), self._size()]
        if name == "pwrite":
            return [slot, self._seed(), self._size(), self._offset()]
        if name == "map_store":
            return [slot, self._seed(), self._size(), self._offset(), pick.random() < 0.5]
        if name == "lseek":
            return [slot, self._offset(), pick.choice((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))]
        if name == "ftruncate":
            return [slot, self._offset()]
        if name == "fchmod":
            return [slot, self._mode()]
        return self._name_arguments(name, path, other)

    def _name_arguments(self, name: str, path: str, other: str) -> Operation:
        pick = self._random
        if name == "truncate":
            return [path, self._offset()]
        if name in ("rename", "link"):
            return [path, other]
        if name == "rename2":
            return [path, other, pick.choice((RENAME_NOREPLACE, RENAME_EXCHANGE))]
        if name == "mkdir":
            return [path, 0o755]
        if name == "symlink":
            return [pick.choice(("nowhere", "x" * 50)), path]
        if name == "chmod":
            return [path, self._mode()]
        if name == "utime":
            return [path, pick.randrange(1_400_000_000), pick.randrange(1_400_000_000)]
        if name == "setxattr":
            flags = pick.choice((0, 0, os.XATTR_CREATE, os.XATTR_REPLACE))
            return [path, pick.choice(_KEYS), self._seed(), pick.choice((0, 5, 900)), flags]
        if name in ("getxattr", "removexattr"):
            return [path, pick.choice(_KEYS)]
        return [path]

    def _seed(self) -> int:
        return self._random.randrange(1 << 30)

    def _mode(self) -> int:
        return self._random.choice((0o600, 0o644, 0o755, 0o700, 0o4755, 0o640))

    def _size(self) -> int:
        pick = self._random
        return pick.choice((1, 5, 100, 4096, 4097, 10_000, 65_536, pick.randrange(1, 150_000)))

    def _offset(self) -> int:
        pick = self._random
        return pick.choice((0, 0, 1, 4095, 4096, 65_535, 65_536, 100_000, pick.randrange(_LARGEST)))
