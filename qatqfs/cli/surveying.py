"""What kinds of raw files there are below some paths: their suffix, and the dtype that a mount would give them.

Most files say their dtype by an attribute, a rule or their name. Of the others as many are looked into as there is
time for, from all over the tree; the rest are taken to be like their neighbours.
"""

import os
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from qatqfs.cli.contents import Contents, Found, Kind, Source
from qatqfs.cli.outcome import Outcome
from qatqfs.cli.progress import Progress
from qatqfs.codec import CONTAINER_MAGIC, DType
from qatqfs.store import StoreOptions
from qatqfs.store.tensors.dtype import choose_dtype, dtype_of_suffix, xattr_dtype
from qatqfs.store.tensors.header import read_header

_MOST_LOOKS = 256
"""Files of one suffix that are looked into for their dtype; each takes some milliseconds."""
_MOST_SUFFIXES = 16
"""Suffixes that are told apart; names with a dot in a number make any number of them."""
NO_SUFFIX, OTHER_SUFFIXES = "no suffix", "other"
_SEED = 1


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file that would become a container: its path, its length in bytes and its dtype."""

    path: str
    size: int
    dtype: DType


@dataclass(slots=True)
class Group:
    """Files of one kind.

    Attributes:
        suffix: with its dot and in lower case, or :data:`NO_SUFFIX`, or :data:`OTHER_SUFFIXES`.
        dtype: of their values.
        files: in the order in which they were found.
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
    """So many files of so many bytes."""

    files: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        """Count one file more."""
        self.files += 1
        self.size += size


@dataclass(slots=True)
class Survey:
    """What there is.

    Attributes:
        groups: of raw files, the largest first.
        containers: that are left out, as they are encoded already.
        payloads: bare QATQ payloads, left out for the same reason.
        unreadable: files that could not be read.
        guessed: files whose dtype is that of a neighbour, as there was no time to look.
    """

    groups: list[Group] = field(default_factory=list)
    containers: Tally = field(default_factory=Tally)
    payloads: Tally = field(default_factory=Tally)
    unreadable: Tally = field(default_factory=Tally)
    guessed: int = 0


class Surveyor:
    """Finds the dtype of files.

    Args:
        tops: the paths that were given; below them files have the path that rules are compared with.
        options: with the rules that a mount would have.
        outcome: told about what cannot be read.
        deadline: on the monotonic clock, after which nothing more is looked into.
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
            if found.kind is Kind.RAW:
                by_suffix[_suffix(found.path)].append(found)
            else:
                self._leave_out(found.kind, found.size)
        with Progress(sum(found.size for files in by_suffix.values() for found in files), "finding dtypes") as progress:
            for suffix, files in _merge_rare(by_suffix).items():
                self._add_groups(suffix, self._dtypes(files, progress))
        self._survey.groups.sort(key=lambda group: (-group.size, group.suffix, group.dtype.label))
        return self._survey

    def _leave_out(self, kind: Kind, size: int) -> None:
        (self._survey.containers if kind is Kind.CONTAINER else self._survey.payloads).add(size)

    def _add_groups(self, suffix: str, files: Iterable[RawFile]) -> None:
        groups: dict[DType, Group] = {}
        for file in files:
            groups.setdefault(file.dtype, Group(suffix, file.dtype)).files.append(file)
        self._survey.groups.extend(groups.values())

    def _dtypes(self, files: list[Found], progress: Progress) -> list[RawFile]:
        """Return the files that stay, each with its dtype."""
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
        """Whether a file may be read; counts and reports one that may not."""
        readable = os.access(found.path, os.R_OK, effective_ids=True)
        if not readable:
            with self._outcome.of(found.path), Source(found.path):
                readable = True
        if not readable:
            self._survey.unreadable.add(found.size)
        return readable

    def _look(self, found: Found) -> DType | None:
        """Return the dtype by header or data; ``None`` for what is no raw file, or cannot be read."""
        dtype = None
        is_container = False
        with self._outcome.of(found.path), Source(found.path) as source:
            is_container = source.read_at(0, len(CONTAINER_MAGIC)) == CONTAINER_MAGIC
            if not is_container:
                header = read_header(source.size, source.read_at)
                path = os.fsencode(found.path)
                dtype = choose_dtype(path, source.size, source.read_at, explicit=None, header=header)
        if is_container:
            self._leave_out(Kind.CONTAINER, found.size)
        elif dtype is None:
            self._survey.unreadable.add(found.size)
        return dtype

    def _explicit(self, path: str) -> DType | None:
        """Return what an attribute or a rule says."""
        return xattr_dtype(path) or self._of_directory(os.path.dirname(os.path.abspath(path))) or self._rule(path)

    def _rule(self, path: str) -> DType | None:
        top = next((top for top in self._tops if path.startswith(top)), None)
        inside = os.path.basename(path) if top is None else path.removeprefix(top)
        return self._options.rule_dtype(os.fsencode(inside))

    def _of_directory(self, directory: str) -> DType | None:
        """Return what the attribute of a directory says, or of the nearest one above it."""
        known = self._directory_dtypes
        if directory not in known:
            above = os.path.dirname(directory)
            known[directory] = xattr_dtype(directory) or (self._of_directory(above) if above != directory else None)
        return known[directory]


def _nothing(_offset: int, _size: int) -> bytes:
    """Read a file whose content plays no part."""
    return b""


def _suffix(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[1].lower() or NO_SUFFIX


def _merge_rare(by_suffix: dict[str, list[Found]]) -> dict[str, list[Found]]:
    """Put the suffixes with the fewest bytes together where there are very many."""
    ordered = sorted(by_suffix, key=lambda suffix: (-sum(found.size for found in by_suffix[suffix]), suffix))
    if len(ordered) <= _MOST_SUFFIXES:
        return by_suffix
    merged = {suffix: by_suffix[suffix] for suffix in ordered[: _MOST_SUFFIXES - 1]}
    rest = (found for suffix in ordered[_MOST_SUFFIXES - 1 :] for found in by_suffix[suffix])
    merged[OTHER_SUFFIXES] = list(rest)
    return merged
