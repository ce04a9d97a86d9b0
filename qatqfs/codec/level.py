"""How much effort the encoder spends on a search for a smaller form."""

import enum


class Level(enum.Enum):
    """Effort of the encoder.

    ``FAST`` codes entropy only. ``BALANCED`` also searches for repetition where a sample shows some. ``SMALL`` tries
    everything.
    """

    FAST = "fast"
    BALANCED = "balanced"
    SMALL = "small"

    @property
    def label(self) -> str:
        """``fast``, ``balanced`` or ``small``."""
        return self.value

    @classmethod
    def parse(cls, text: str) -> "Level":
        """Return the level with this name, in upper or lower case.

        Raises:
            ValueError: for any other word.
        """
        try:
            return cls(text.strip().lower())
        except ValueError:
            raise ValueError(f"unknown level {text!r}, expected fast, balanced or small") from None
