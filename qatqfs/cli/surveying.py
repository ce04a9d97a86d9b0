"""Finds the kinds of raw files below some paths: their suffix, and the dtype that a mount would give them.

For most files an attribute, a rule or the name gives the dtype. Of the others, as many are opened as time allows, from
all over the tree. The rest are assumed to be like their neighbours.
"""

import os
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qatqfs.cli.contents import Contents, Found, Source, Storage
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.progress import Progress
from qatqfs.codec import CONTAINER_MAGIC, DType
from qatqfs.store import StoreOptions
from qatqfs.store.tensors.dtype import choose_dtype, dtype_of_suffix, xattr_dtype
from qatqfs.store.tensors.header import read_header

_MOST_LOOKS = 256
"""Most files of one suffix that are opened to find their dtype; each takes some milliseconds."""
_MOST_SUFFIXES = 16
"""Most suffixes that are told apart. Names that contain decimal numbers would make any number of them."""
NO_SUFFIX, OTHER_SUFFIXES = "no suffix", "other"
_SEED = 1


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file that would become a container: its path, its size in bytes and its dtype."""

    path: str
    size: int
    dtype: DType


@dataclass(slots=True)
class Group:
    """Files of one kind.

    Attributes:
        suffix: in lower case and with its dot, or :data:`NO_SUFFIX`, or :data:`OTHER_SUFFIXES`.
        dtype: of their values.
        files: in the order they were found in.
    """

    suffix: str
    dtype: DType
    files: list[RawFile] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Raw bytes of all its files."""
        return sum(file.size for file in self.files)


@dataclass(slots=True)
class Tally:
    """A number of files, and their size in bytes."""

    files: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        """Count one more file."""
        self.files += 1
        self.size += size


@dataclass(slots=True)
class Survey:
    """What was found.

    Attributes:
        groups: of raw files, the largest first.
        containers: left out, because they are encoded already.
        payloads: bare QATQ payloads, left out for the same reason.
        unreadable: files that could not be read.
        guessed: number of files that got the dtype of a neighbour, for lack of time.
    """

    groups: list[Group] = field(default_factory=list)
    containers: Tally = field(default_factory=Tally)
    payloads: Tally = field(default_factory=Tally)
    unreadable: Tally = field(default_factory=Tally)
    guessed: int = 0


class Surveyor:
    """Finds the dtype of files.

    Args:
        tops: the given paths. Rules are compared with the path of a file relative to its top.
        options: those that a mount would have, with its rules.
        outcome: told what cannot be read.
        deadline: on the monotonic clock; after it no further file is opened.
    """

    def __init__(self, tops: Sequence[str], options: StoreOptions, outcome: Outcome, deadline: float) -> None:
        self._tops = [os.path.join(top, "") for top in tops]
        self._options = options
        self._outcome = outcome
        self._deadline = deadline
        self._directory_dtypes: dict[str, DType | None] = {}
        self._survey = Survey()

    def survey(self, contents: Contents) -> Survey:
        """Sort files into groups."""
        by_suffix: dict[str, list[Found]] = defaultdict(list)
        for found in contents.files:
            if found.lost:
                continue
            if found.storage is Storage.RAW:
                by_suffix[_suffix(found.path)].append(found)
            else:
                self._leave_out(found.storage, found.size)
        with Progress(sum(found.size for files in by_suffix.values() for found in files), "finding dtypes") as progress:
            for suffix, files in _merge_rare(by_suffix).items():
                self._add_groups(suffix, self._dtypes(files, progress))
        self._survey.groups.sort(key=lambda group: (-group.size, group.suffix, group.dtype.label))
        return self._survey

    def _leave_out(self, storage: Storage, size: int) -> None:
        (self._survey.containers if storage is Storage.CONTAINER else self._survey.payloads).add(size)

    def _add_groups(self, suffix: str, files: Iterable[RawFile]) -> None:
        groups: dict[DType, Group] = {}
        for file in files:
            groups.setdefault(file.dtype, Group(suffix, file.dtype)).files.append(file)
        self._survey.groups.extend(groups.values())

    def _dtypes(self, files: list[Found], progress: Progress) -> list[RawFile]:
        """Return the files that are not left out, each with its dtype."""
        dtypes: list[DType | None] = [None] * len(files)
        open_questions = []
        for i, found in enumerate(files):
            if not self._readable(found):
                continue
            explicit = self._explicit(found.path) or dtype_of_suffix(os.fsencode(found.path))
            if explicit is None and found.size:
                open_questions.append(i)
                continue
            dtypes[i] = choose_dtype(os.fsencode(found.path), found.size, _nothing, explicit=explicit)
            progress.advance(found.size)
        chosen = random.Random(_SEED).sample(open_questions, len(open_questions))
        looked: set[int] = set()
        for count, i in enumerate(chosen):
            if count >= _MOST_LOOKS or (count and time.monotonic() > self._deadline):
                break
            looked.add(i)
            dtypes[i] = self._look(files[i])
            progress.advance(files[i].size)
        neighbour = next((dtypes[i] for i in open_questions if dtypes[i] is not None), None)
        for i in open_questions:
            if i in looked:
                neighbour = dtypes[i] or neighbour
            elif neighbour is not None:
                dtypes[i] = choose_dtype(b"", files[i].size, _nothing, explicit=neighbour)
                self._survey.guessed += 1
        return [
            RawFile(found.path, found.size, dtype)
            for found, dtype in zip(files, dtypes, strict=True)
            if dtype is not None
        ]

    def _readable(self, found: Found) -> bool:
        """Whether a file may be read. A file that may not is counted and reported."""
        readable = os.access(found.path, os.R_OK, effective_ids=True)
        if not readable:
            with self._outcome.of(found.path), Source(found.path):
                readable = True
        if not readable:
            self._survey.unreadable.add(found.size)
        return readable

    def _look(self, found: Found) -> DType | None:
        """Return the dtype by header or data; ``None`` if the file is not raw or cannot be read."""
        dtype = None
        is_container = False
        with self._outcome.of(found.path), Source(found.path) as source:
            is_container = source.read_at(0, len(CONTAINER_MAGIC)) == CONTAINER_MAGIC
            if not is_container:
                header = read_header(source.size, source.read_at)
                path = os.fsencode(found.path)
                dtype = choose_dtype(path, source.size, source.read_at, explicit=None, header=header)
        if is_container:
            self._leave_out(Storage.CONTAINER, found.size)
        elif dtype is None:
            self._survey.unreadable.add(found.size)
        return dtype

    def _explicit(self, path: str) -> DType | None:
        """Return the dtype from an attribute or a rule."""
        return xattr_dtype(path) or self._of_directory(os.path.dirname(os.path.abspath(path))) or self._rule(path)

    def _rule(self, path: str) -> DType | None:
        top = next((top for top in self._tops if path.startswith(top)), None)
        inside = os.path.basename(path) if top is None else path.removeprefix(top)
        return self._options.rule_dtype(os.fsencode(inside))

    def _of_directory(self, directory: str) -> DType | None:
        """Return the dtype attribute of a directory, or of the nearest one above it that has one."""
        known = self._directory_dtypes
        if directory not in known:
            above = os.path.dirname(directory)
            known[directory] = xattr_dtype(directory) or (self._of_directory(above) if above != directory else None)
        return known[directory]


def _nothing(_offset: int, _size: int) -> bytes:
    """Stand in for reading a file whose content does not matter."""
    return b""


def _suffix(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[1].lower() or NO_SUFFIX


def _merge_rare(by_suffix: dict[str, list[Found]]) -> dict[str, list[Found]]:
    """Merge the suffixes with the fewest bytes if there are very many."""
    ordered = sorted(by_suffix, key=lambda suffix: (-sum(found.size for found in by_suffix[suffix]), suffix))
    if len(ordered) <= _MOST_SUFFIXES:
        return by_suffix
    merged = {suffix: by_suffix[suffix] for suffix in ordered[: _MOST_SUFFIXES - 1]}
    rest = (found for suffix in ordered[_MOST_SUFFIXES - 1 :] for found in by_suffix[suffix])
    merged[OTHER_SUFFIXES] = list(rest)
    return merged
