"""How far a program has got that writes a file from front to back, so that it can be encoded ahead."""


class SequentialRun:
    """The bytes that a writer wrote without a gap, beginning at offset 0 of an empty file.

    The node's content lock protects changes. A run that was stopped stays at 0.

    Attributes:
        end: where the writer has got to, in bytes.
        stopped: the file is not encoded ahead any more.
    """

    def __init__(self) -> None:
        self.end = 0
        self.stopped = False
        self._reported = 0

    def wrote(self, offset: int, size: int) -> None:
        """Note that ``size`` bytes were written at an offset. The run goes on if that is where it ended."""
        if offset == self.end and not self.stopped:
            self.end += size

    def cut(self, size: int) -> None:
        """Note that the file was cut to a size in bytes."""
        self.end = min(self.end, size)
        self._reported = min(self._reported, size)

    def stop(self) -> None:
        """End the run for good."""
        self.end = 0
        self.stopped = True

    def take_step(self, least: int) -> bool:
        """Return whether the run has grown by at least so many bytes since this last returned ``True``."""
        if self.end - self._reported < least:
            return False
        self._reported = self.end
        return True
