"""What the chunks of a stream taught the encoder, so that the next chunk need not find it out again.

A tensor is uniform over long stretches: the strategy and the settings that won on one chunk win on the next. So
a trial's outcome is kept under a subject that says what the chunk looked like, and stands for a number of
chunks before it is tried again. Lessons guide the choice of a form and nothing else: every form decodes to
the same bits.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

FIRST_RECHECK, LAST_RECHECK = 16, 256
"""Times that a lesson stands: at first, and when trying again has confirmed it often."""


class Lessons(Generic[T]):
    """Outcomes of trials by subject. One that is confirmed stands twice as long as before.

    The threads that encode the chunks of one stream share them without a lock: a lesson is replaced in one
    assignment, and a count that two threads change at once only moves the next trial.
    """

    def __init__(self) -> None:
        self._outcomes: dict[Hashable, tuple[T, int]] = {}
        self._left: dict[Hashable, int] = {}

    def recall(self, subject: Hashable) -> T | None:
        """Return the lesson on a subject; ``None`` if there is none, or it is time to try again."""
        left = self._left.get(subject, 0)
        if left <= 0:
            return None
        self._left[subject] = left - 1
        return self._outcomes[subject][0]

    def latest(self, subject: Hashable) -> T | None:
        """Return the lesson on a subject, also one that it is time to confirm; ``None`` if there never was one."""
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
        """Try again next time: the lesson no longer fits."""
        self._left[subject] = 0
