"""The numbers that decide how fast a store is, in one place. None of them changes what a file contains.

The defaults were measured; a program has no reason to change them. Tests use small ones, so that a few kilobytes
behave as many megabytes do.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes in bytes, times in seconds."""

    # -- encoding ahead --------------------------------------------------------------------------------

    ahead_bytes: int = 4 << 20
    """A sequential writer has to get this much further before the ahead encoder is told of it. Smaller steps would wake
    its thread without giving the workers enough to do."""
    claim_bytes: int = 64 << 20
    """The ahead encoder takes at most this much of a file before it looks at the other files that wait. It does not
    start for less than a sixteenth of it."""
    most_stale_chunks: int = 16
    """Encoding ahead stops for a file with more changed chunks than this in its draft: the file is not written from
    front to back, and the commit would encode most of it once more."""

    # -- workers that fill a draft ---------------------------------------------------------------------

    hop_bytes: int = 4 << 20
    """Most raw bytes that a worker takes at a time. Each hop takes the interpreter's lock a few times, and may wait for
    it until a thread that has it gets a processor again: with 512 KiB, encoding ahead stood still half of the time."""
    small_level_hop_bytes: int = 512 << 10
    """The same at level ``small``, which takes a second for as much."""
    in_flight_bytes: int = 32 << 20
    """Most raw bytes that all workers of one file hold at a time. It bounds memory: with many workers each takes
    less."""
    turn_bytes: int = 16 << 20
    """Raw bytes of one file that a worker encodes before it queues again, so that other files get their turn."""
    hops_per_worker: int = 2
    """Minimum hops per worker, so that none idles at the end. Workers may also be this many hops each ahead of the
    chunk that is appended next, beside the hop in their hands."""

    # -- the disk --------------------------------------------------------------------------------------

    long_log_bytes: int = 1 << 20
    """An fsync writes an entry's log anew when the log is longer than this, so that recovery has little to read."""
    writeback_bytes: int = 8 << 20
    """A growing draft asks the kernel to begin to write it each time it has grown by this much. The request hardly
    waits, and leaves little for the fsync at the end."""
    writeback_fsync_bytes: int = 64 << 20
    """A growing draft is made durable so far each time it has grown by this much. That waits for the disk, so it is
    done rarely and on a thread of its own."""
    page_cache_bytes: int = 64 << 20
    """What a draft has beyond this leaves the page cache once it is on disk. It would only drive out other data, and
    fresh memory for all of it takes as long as encoding it."""

    # -- reading ---------------------------------------------------------------------------------------

    run_chunks: int = 4
    """Neighbouring chunks that one worker reads and decodes together: one system call and one task for all of them."""
    read_ahead_runs: int = 2
    """Runs per worker that are decoded before a sequential reader asks for them: one in hand, one that waits."""
    uncached_chunks: int = 64
    """A read of more chunks than this does not go through the cache. Chunks that small are not worth a place in it."""

    # -- when commits happen ---------------------------------------------------------------------------

    cheap_bytes: int = 8 << 20
    """A commit that copies no more than this from its base happens at once: the copy is not noticed."""
    cheap_factor: int = 4
    """A commit also happens at once if it copies no more than this many times what was changed."""
    assumed_bytes_per_s: int = 200 << 20
    """Speed of a costly commit, to turn the bytes that it writes into a time."""
    cost_factor: int = 10
    """A costly commit waits until the file has rested this many times as long as the commit takes, so that commits
    take at most about a tenth of the time. A file that is rewritten sooner after its commit waits twice as long."""
    longest_rest_s: float = 300.0
    """No file rests longer than this before its commit."""
    rename_s: float = 1.0
    """Time after the last close within which programs rename a file that they wrote under a temporary name. Where there
    are rules, the final name decides how the file is stored."""
    first_retry_s: float = 2.0
    """Pause after a failed commit before it is tried again. It doubles with each failure."""
    longest_retry_s: float = 300.0
    """Longest pause between two tries."""
    free_attempts: int = 2
    """Commits that may begin again because the file was cut. The next one holds the content lock, so that it comes to
    its end however busy the writers are."""


DEFAULT_TUNING = Tuning()
"""The values that every store has unless a test gives others."""
