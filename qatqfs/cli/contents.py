"""What is at the paths that a user gives: containers, bare payloads, raw files, whole backing directories.

In a directory only the name tells them apart, as in a mount. A file that the user gives itself may have any name, so
its first four bytes count too.
"""

import contextlib
import enum
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from qatqfs.cli.exits import Refusal, naming, shown
from qatqfs.cli.outcome import Outcome
from qatqfs.codec import CONTAINER_MAGIC, MAX_PAYLOAD_BYTES, PAYLOAD_HEADER_SIZE, PAYLOAD_MAGIC, LimitExceeded
from qatqfs.codec.payload import read_bare_header
from qatqfs.mount import mountinfo
from qatqfs.store import paths as names
from qatqfs.store.private import LOST_AND_FOUND
from qatqfs.store.system.fd import Fd, pread_exact

CONTAINER_SUFFIX = os.fsdecode(names.SUFFIX)
PAYLOAD_SUFFIX = ".qatq"
_PRIVATE_DIR = os.fsdecode(names.PRIVATE_DIR)


class Storage(enum.Enum):
    """How a file's content is stored."""

    CONTAINER = "container"
    PAYLOAD = "payload"
    RAW = "raw"


def storage_of_name(name: str) -> Storage:
    """Return what a regular file with this name is."""
    if names.is_container_name(os.fsencode(name)):
        return Storage.CONTAINER
    return Storage.PAYLOAD if name.endswith(PAYLOAD_SUFFIX) and name != PAYLOAD_SUFFIX else Storage.RAW


class Source:
    """A regular file, open for reading; use with ``with``.

    Args:
        path: of the file; symlinks are followed.

    Attributes:
        stat: its attributes when it was opened.

    Raises:
        Refusal: it is not a regular file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # opening a fifo must not wait
        self._fd: Fd | None = Fd(os.open(path, flags))
        self.stat = os.fstat(self._fd.number)
        if stat.S_ISDIR(self.stat.st_mode):
            raise Refusal(f"{shown(path)}: is a directory")
        if not stat.S_ISREG(self.stat.st_mode):
            raise Refusal(f"{shown(path)}: is not a regular file")

    @property
    def size(self) -> int:
        """Size in bytes when it was opened."""
        return self.stat.st_size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return a part of the file, shorter only at its end; raises OSError that names the path."""
        assert self._fd is not None
        with naming(self.path):
            return pread_exact(self._fd.number, size, offset)

    def read_payload(self) -> bytes:
        """Check the header of a bare payload, and return all of the payload.

        Raises:
            QatcError: it is not a payload, or the file is longer than any payload.
            OSError: it cannot be read.
        """
        read_bare_header(self.read_at(0, PAYLOAD_HEADER_SIZE))
        if self.size > MAX_PAYLOAD_BYTES:
            raise LimitExceeded("bytes in a payload", self.size, MAX_PAYLOAD_BYTES)
        return self.read_at(0, self.size)

    def changed(self) -> bool:
        """Whether the file was written to since it was opened."""
        assert self._fd is not None
        now = os.fstat(self._fd.number)
        return (now.st_size, now.st_mtime_ns) != (self.stat.st_size, self.stat.st_mtime_ns)

    def storage(self) -> Storage:
        """Return what the file is: by the suffix .qatc, else by its first bytes, else by .qatq; raises OSError."""
        by_name = storage_of_name(os.path.basename(self.path))
        if by_name is Storage.CONTAINER:
            return by_name
        magics = {CONTAINER_MAGIC: Storage.CONTAINER, PAYLOAD_MAGIC: Storage.PAYLOAD}
        return magics.get(self.read_at(0, len(CONTAINER_MAGIC)), by_name)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._fd = None  # closes it


@dataclass(frozen=True, slots=True)
class Found:
    """A file to look into.

    Attributes:
        path: as given, or joined to the directory that was given.
        storage: how its content is stored.
        size: stored bytes.
        lost: whether it is in lost+found, and therefore not in a mount.
    """

    path: str
    storage: Storage
    size: int
    lost: bool = False


@dataclass(slots=True)
class Contents:
    """What :func:`look` found.

    Attributes:
        files: in the order of the paths, sorted by name within a directory.
        pairs: paths ``x`` of raw files that have a container ``x.qatc`` beside them.
        backings: those of the given paths that are backing directories.
    """

    files: list[Found] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    backings: list[str] = field(default_factory=list)


def total_size(paths: Iterable[str]) -> int:
    """Return the size in bytes of the regular files among some paths."""
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def refuse_mounted(path: str) -> None:
    """Refuse a path in a qatqfs mount, because files are shown decoded there.

    Raises:
        Refusal: it is in one.
        OSError: it does not exist.
    """
    mount = mountinfo.containing(path)
    if mount is not None:
        raise Refusal(
            f"{shown(path)}: is in the qatqfs mount at {shown(mount.mountpoint)}, where containers are shown"
            f" decoded; give its backing directory, {shown(mount.source)}, or a file there"
        )


def refuse_mounted_output(path: str) -> None:
    """Refuse to write a container into a qatqfs mount, because the mount would encode it again.

    Args:
        path: of the container, or of its directory; it need not exist.

    Raises:
        Refusal: it is in one.
    """
    real = os.path.realpath(path)
    there = real if os.path.isdir(real) else os.path.dirname(real)
    mount = mountinfo.containing(there) if os.path.isdir(there) else None
    if mount is not None:
        raise Refusal(
            f"{shown(path)}: is in the qatqfs mount at {shown(mount.mountpoint)}, which encodes what is written there;"
            f" copy the file into it as it is, or write the container to its backing directory, {shown(mount.source)}"
        )


def look(paths: tuple[str, ...], outcome: Outcome, *, mounted: bool = False) -> Contents:
    """Find the files at and below some paths, and report to ``outcome`` what cannot be read.

    Args:
        paths: files and directories.
        outcome: of the command.
        mounted: accept paths in a qatqfs mount too, where files are shown decoded.
    """
    contents = Contents()
    for path in paths:
        with outcome.of(path):
            if not mounted:
                refuse_mounted(path)
            if os.path.isdir(path):
                if is_backing(path):
                    contents.backings.append(path)
                _look_below(path, contents, outcome)
                continue
            with Source(path) as source:
                contents.files.append(Found(path, source.storage(), source.size))
    return contents


def is_backing(path: str) -> bool:
    """Whether a directory has the private directory of a store."""
    return os.path.isfile(os.path.join(path, _PRIVATE_DIR, "format"))


def _look_below(top: str, contents: Contents, outcome: Outcome) -> None:
    """Collect what is below a directory. Follows no symlink and enters no qatqfs mount."""
    mounted = {mount.mountpoint for mount in mountinfo.mounts() if mount.filesystem == mountinfo.FILESYSTEM}
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        below = []
        with outcome.of(directory):
            for entry in _entries(directory, contents, outcome):
                if entry.name == _PRIVATE_DIR and is_backing(directory):
                    _collect_lost(os.path.join(entry.path, os.fsdecode(LOST_AND_FOUND)), contents, outcome)
                elif not mounted or os.path.realpath(entry.path) not in mounted:
                    below.append(entry.path)
        waiting.extend(reversed(below))


def _collect_lost(directory: str, contents: Contents, outcome: Outcome) -> None:
    """Collect the files in lost+found, if it exists."""
    lost = Contents()
    with outcome.of(directory), contextlib.suppress(FileNotFoundError):
        for _ in _entries(directory, lost, outcome):
            pass
    contents.files.extend(replace(found, lost=True) for found in lost.files)


def _entries(directory: str, contents: Contents, outcome: Outcome) -> Iterator[os.DirEntry[str]]:
    """Collect the regular files of a directory and yield the directories in it."""
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    regular = set()
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield entry
        elif entry.is_file(follow_symlinks=False):
            regular.add(entry.name)
            with outcome.of(entry.path), contextlib.suppress(FileNotFoundError):  # removed meanwhile, which is no error
                size = entry.stat(follow_symlinks=False).st_size
                contents.files.append(Found(entry.path, storage_of_name(entry.name), size))
    contents.pairs.extend(
        os.path.join(directory, name)
        for name in sorted(regular)
        if storage_of_name(name) is not Storage.CONTAINER and name + CONTAINER_SUFFIX in regular
    )
