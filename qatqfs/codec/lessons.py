"""Lessons that the chunks of a stream taught the encoder, so that it need not find them out for every chunk.

A tensor is uniform over long stretches: the strategy and settings that won on one chunk also win on the next. So the
outcome of a trial is kept under a subject, which describes the chunk. It is used for a number of chunks before the
trial is repeated. Lessons only guide the choice of a form; every form decodes to the same bits.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

FIRST_RECHECK, LAST_RECHECK = 16, 256
"""How many times a lesson is used before it is checked: at first, and at most after many confirmations."""


class Lessons(Generic[T]):
    """Outcomes of trials by subject. A lesson that is confirmed is used twice as long as before.

    The threads that encode the chunks of one stream share the lessons without a lock. A lesson is replaced in one
    assignment. If two threads change a count at once, only the time of the next trial changes.
    """

    def __init__(self) -> None:
        self._outcomes: dict[Hashable, tuple[T, int]] = {}
        self._left: dict[Hashable, int] = {}

    def recall(self, subject: Hashable) -> T | None:
        """Return the lesson on a subject; ``None`` if there is none, or if it is time to try again."""
        left = self._left.get(subject, 0)
        if left <= 0:
            return None
        self._left[subject] = left - 1
        return self._outcomes[subject][0]

    def latest(self, subject: Hashable) -> T | None:
        """Return the latest lesson on a subject, even if it is time to try again; ``None`` if there never was one."""
        found = self._outcomes.get(subject)
        return None if found is None else found[0]

    def learn(self, subject: Hashable, outcome: T) -> None:
        """Keep the outcome of a trial."""
        before = self._outcomes.get(subject)
        confirmed = before is not None and before[0] == outcome
        stands = min(2 * before[1], LAST_RECHECK) if before is not None and confirmed else FIRST_RECHECK
        self._outcomes[subject] = outcome, stands
        self._left[subject] = stands

    def forget(self, subject: Hashable) -> None:
        """Try again next time, because the lesson no longer fits."""
        self._left[subject] = 0
