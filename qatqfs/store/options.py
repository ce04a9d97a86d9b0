"""Settings of a store, and the PATTERN rules among them."""

import fnmatch
import math
import os
from dataclasses import dataclass
from enum import Enum

from qatqfs.codec import DEFAULT_CHUNK_BYTES, MAX_CHUNKS, DType, Level
from qatqfs.store.tuning import DEFAULT_TUNING, Tuning

MIB = 1024 * 1024


class OnCorrupt(Enum):
    """How damaged files behave: ``EIO`` fails only reads of damaged chunks, ``ENOENT`` hides the whole file."""

    EIO = "eio"
    ENOENT = "enoent"


def matches(pattern: str, path: bytes) -> bool:
    """Whether a shell pattern fits a logical path; one without ``/`` is compared with the last name only."""
    subject = os.fsdecode(path)
    if "/" not in pattern:
        subject = subject.rpartition("/")[2]
    return fnmatch.fnmatchcase(subject, pattern.lstrip("/"))


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Settings of an open store; sizes in bytes.

    Attributes:
        cache_size: bound of the decoded-chunk cache.
        chunk_size: raw bytes in a chunk of a new container; a multiple of 4.
        level: effort of the encoder.
        workers: threads that encode, and as many that decode ahead.
        dtype_rules: ``(pattern, dtype)`` in order, the first that fits a logical path wins.
        raw_patterns: files to be stored raw, by the name that they have when they are made or committed.
        read_only: write nothing at all below BACKING.
        on_corrupt: how a file looks that is known to be damaged.
        idle_seconds: the rest of an open file: seconds without a write before it is committed.
        commit_on_close: closing a file that was written waits until it is in a container.
        durable_after: seconds after which written content is durable even if no program called fsync; 0 leaves that to
            the system.
        tuning: sizes and times that decide how fast the store is.
    """

    cache_size: int = 512 * MIB
    chunk_size: int = DEFAULT_CHUNK_BYTES
    level: Level = Level.BALANCED
    workers: int = os.cpu_count() or 1
    dtype_rules: tuple[tuple[str, DType], ...] = ()
    raw_patterns: tuple[str, ...] = ()
    read_only: bool = False
    on_corrupt: OnCorrupt = OnCorrupt.EIO
    idle_seconds: float = 1.0
    commit_on_close: bool = False
    durable_after: float = 5.0
    tuning: Tuning = DEFAULT_TUNING

    def __post_init__(self) -> None:
        if self.chunk_size < 4 or self.chunk_size % 4 or self.chunk_size > 128 * MIB:
            raise ValueError(f"chunk size must be a multiple of 4 from 4 bytes to 128 MiB, not {self.chunk_size}")
        if self.workers < 1:
            raise ValueError(f"at least one worker is needed, not {self.workers}")
        if self.cache_size < 0:
            raise ValueError(f"cache size must not be negative: {self.cache_size}")
        if not 0 <= self.durable_after < math.inf:
            raise ValueError(f"durable after must be a number of seconds from 0 on, not {self.durable_after}")

    @property
    def max_file_size(self) -> int:
        """The largest logical size in bytes; beyond it writes give EFBIG."""
        return self.chunk_size * MAX_CHUNKS

    @property
    def has_rules(self) -> bool:
        """Whether how a file is stored depends on its name."""
        return bool(self.dtype_rules or self.raw_patterns)

    def rule_dtype(self, path: bytes) -> DType | None:
        """Return the dtype that a rule gives to a logical path."""
        return next((dtype for pattern, dtype in self.dtype_rules if matches(pattern, path)), None)

    def is_raw(self, path: bytes) -> bool:
        """Whether a file that is made or committed at this logical path is to be stored raw."""
        return any(matches(pattern, path) for pattern in self.raw_patterns)
