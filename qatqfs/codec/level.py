"""How much effort the encoder spends on looking for a smaller form."""

import enum


class Level(enum.Enum):
    """Effort of the encoder.

    ``FAST`` codes entropy only, ``BALANCED`` looks for repetition where a sample promises some,
    ``SMALL`` tries everything.
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
        """Return the level that a user's word names, whatever its case.

        Raises:
            ValueError: for any other word.
        """
        try:
            return cls(text.strip().lower())
        except ValueError:
            raise ValueError(f"unknown level {text!r}, expected fast, balanced or small") from None
