"""What the chunks of a stream taught the encoder, so that the next chunk need not find it out again.

A tensor is uniform over long stretches: the strategy and the settings that won on one chunk win on the next. So
a trial's outcome is kept under a subject that says what the chunk looked like, and stands for a number of
chunks before it is tried again. Lessons guide the choice of a form and nothing else: every form decodes to
the same bits.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

RECHECK_AFTER = 16
"""Times that a lesson stands: trying again then costs a few percent of the encoding."""


class Lessons(Generic[T]):
    """Outcomes of trials by subject.

    The threads that encode the chunks of one stream share them without a lock: a lesson is replaced in one
    assignment, and a count that two threads change at once only moves the next trial.
    """

    def __init__(self) -> None:
        self._outcomes: dict[Hashable, T] = {}
        self._left: dict[Hashable, int] = {}

    def recall(self, subject: Hashable) -> T | None:
        """Return the lesson on a subject; ``None`` if there is none, or it is time to try again."""
        left = self._left.get(subject, 0)
        if left <= 0:
            return None
        self._left[subject] = left - 1
        return self._outcomes.get(subject)

    def learn(self, subject: Hashable, outcome: T) -> None:
        """Keep the outcome of a trial."""
        self._outcomes[subject] = outcome
        self._left[subject] = RECHECK_AFTER
