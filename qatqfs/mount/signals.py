"""What each signal does to a mount. A daemon that a signal ends at once leaves a dead mount.

| Signal | Effect |
|---|---|
| TERM, INT, QUIT, HUP, PWR | unmounts lazily, commits everything and ends |
| ALRM, VTALRM, PROF, XCPU | the same: a time limit is over |
| USR1, USR2, POLL, STKFLT, the real-time signals | nothing, because they have no meaning here |
| PIPE, XFSZ | nothing, because the call that they are about fails |
| ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS, KILL | the daemon is gone at once, as after any crash |

While the daemon commits before it ends, a further TERM, INT or QUIT ends it without more commits.

A signal other than TERM and PWR that was ignored when the command began stays ignored. nohup(1) ignores HUP, and shells
ignore INT and QUIT for jobs in the background.
"""

import signal
from collections.abc import Callable

_BY_PEOPLE = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_NEVER_IGNORED = (signal.SIGTERM, signal.SIGPWR)
_STOP = (
    *_BY_PEOPLE,
    *(signal.SIGHUP, signal.SIGPWR),
    *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU),
)
_IGNORED = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGPOLL, signal.SIGSTKFLT, signal.SIGPIPE, signal.SIGXFSZ),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)


class StopRequest:
    """Whether a signal has asked to stop, and which function to call then.

    Attributes:
        number: the first such signal, ``None`` before it.
    """

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._tell: Callable[[], object] | None = None

    def __call__(self, number: int, frame: object) -> None:
        """Handle a signal."""
        if self.number is None:
            self.number = signal.Signals(number)
            if self._tell is not None:
                self._tell()

    def when_made(self, tell: Callable[[], object] | None) -> None:
        """Call a function once a signal asks to stop, or at once if a signal has asked already.

        Args:
            tell: called in the main thread, between any two of its steps, perhaps twice; ``None`` for no function.
        """
        self._tell = tell
        if self.number is not None and tell is not None:
            tell()


def await_stop() -> StopRequest:
    """Handle from now on every signal that would end this process, and return the handler; main thread only."""
    request = StopRequest()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in _STOP:
        if number in _NEVER_IGNORED or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, request)
    return request


def on_second_request(handler: Callable[[int, object], None]) -> None:
    """Call a function at the next TERM, INT or QUIT; main thread only."""
    for number in _BY_PEOPLE:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
