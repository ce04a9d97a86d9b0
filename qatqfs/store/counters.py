"""Counters that a store keeps for `qatqfs stats` and for tests."""

import threading
from collections import Counter


class Counters:
    """Named counters, safe to add to from any thread.

    Names in use: ``read_bytes``, ``write_bytes``, ``cache_hits``, ``cache_misses``, ``chunks_decoded``,
    ``chunks_encoded``, ``encoded_raw_bytes``, ``encoded_stored_bytes``, ``commits``, ``commit_failures``,
    ``corrupt_chunks``, ``corrupt_files``, ``recovered_files``, ``lost_files``, ``files_in_doubt``, ``no_space_errors``
    (requests of programs that failed with ENOSPC or EDQUOT).

    Args:
        above: counters to which everything is added as well, so that these count one piece of work.
    """

    def __init__(self, above: "Counters | None" = None) -> None:
        self._above = above
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name] += amount
        if self._above is not None:
            self._above.add(name, amount)

    def as_dict(self) -> dict[str, int]:
        """Return all counters that are not zero, by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))
