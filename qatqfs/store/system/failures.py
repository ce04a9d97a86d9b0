"""What failed in work that goes on, to be raised at its end."""


class FirstFailure:
    """The first error of several, which is raised once the rest of the work is done.

    A caller that kept the error itself in a variable would be part of a cycle: the error refers to the frames that it
    went through, and so to that variable. Such a cycle keeps files open until garbage is collected.
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __bool__(self) -> bool:
        """Whether anything failed."""
        return self._error is not None

    def note(self, error: BaseException | None) -> None:
        """Keep an error, unless there is an earlier one; ``None`` is no error."""
        self._error = self._error or error

    def raise_it(self) -> None:
        """Raise the error and forget it, or return if there is none."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
