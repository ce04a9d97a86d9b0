"""Why a payload or container was refused: one class for each error class of format section 7."""

from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Return a caught error, to be handed on as a value, after it has let go of the calls that it went through.

    Their variables, with the files that they have open, would live as long as the error does; and for ever if one of
    them refers to the error.
    """
    found: list[BaseException] = [error]
    for one in found:  # which grows: what caused an error need not be what was being handled when it was raised last
        one.__traceback__ = None
        found += [other for other in (one.__cause__, one.__context__) if other is not None and other not in found]
    return error


class QatcError(ValueError):
    """Base of everything that decoding can raise for the bytes it was given; ``str()`` is one sentence.

    Can be copied and pickled, whatever arguments its class takes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), str(self)), self.__dict__


def _restore(kind: type[QatcError], text: str) -> QatcError:
    error = kind.__new__(kind)
    ValueError.__init__(error, text)
    return error


class PayloadTooShort(QatcError):
    """A buffer ends before the part that is due."""

    def __init__(self, actual: int, minimum: int) -> None:
        super().__init__(f"payload is too short: {actual} bytes, need at least {minimum}")


class InvalidMagic(QatcError):
    """The first four bytes are neither those of a payload nor those of a container."""

    def __init__(self, text: str = "payload magic is not QATQ or QATC") -> None:
        super().__init__(text)


class UnsupportedVersion(QatcError):
    """The version byte is one that this format does not have."""

    def __init__(self, version: int) -> None:
        super().__init__(f"unsupported QATQ version {version}")


class UnsupportedMode(QatcError):
    """The mode is unknown, or not one that is readable here."""

    def __init__(self, mode: int, name: str = "") -> None:
        super().__init__(f"unsupported QATQ mode {mode}" + (f" ({name})" if name else ""))


class InvalidHeader(QatcError):
    """A reserved byte of a payload header is set."""

    def __init__(self) -> None:
        super().__init__("payload header is invalid: reserved bytes are set")


class ValueCountTooLarge(QatcError):
    """A payload claims more values than the format allows."""

    def __init__(self, count: int) -> None:
        super().__init__(f"value count is too large: {count}")


class InvalidScale(QatcError):
    """The scale is not a finite number above zero."""

    def __init__(self, bits: int) -> None:
        super().__init__(f"payload scale is invalid: 0x{bits:08x}")


class InvalidResidualScale(QatcError):
    """The residual scale of a predictor is not a finite number of at least zero."""

    def __init__(self, bits: int) -> None:
        super().__init__(f"residual scale is invalid: 0x{bits:08x}")


class InvalidBody(QatcError):
    """The prefix of an exact body is wrong: its magic, dtype or strategy, or the two do not go together."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"exact payload body is invalid: {detail}")


class InvalidResidualStream(QatcError):
    """The data of a strategy cannot be decoded to exactly the values that were promised."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"exact residual stream is invalid: {detail}")


class LengthMismatch(QatcError):
    """Data of a fixed length has another."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"payload length mismatch: expected {expected} bytes, got {actual}")


class ChecksumMismatch(QatcError):
    """Decoded values, or the chunks of a container, do not hash to the stored checksum.

    Attributes:
        expected: the stored checksum.
        actual: the other.
    """

    def __init__(self, expected: int, actual: int) -> None:
        self.expected, self.actual = expected, actual
        super().__init__(f"checksum mismatch: expected {expected:016x}, got {actual:016x}")


class InvalidContainer(QatcError):
    """The structure of a container is wrong."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"chunked container is invalid: {detail}")


class LimitExceeded(QatcError):
    """Something is legal but larger than the caller allows.

    Attributes:
        value: how much it is.
        limit: how much is allowed.
    """

    def __init__(self, what: str, value: int, limit: int) -> None:
        self.value, self.limit = value, limit
        super().__init__(f"decode limit exceeded: {value} {what}, at most {limit} are allowed")


class MixedDtypes(QatcError):
    """A chunk has another dtype than the container it is in."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"chunked container has mixed tensor dtypes: {actual} among {expected}")


class EncodingFault(QatcError):
    """What was encoded does not decode to what it was made from: a fault of ours, or of the machine."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"an encoded payload does not decode again, please report it: {problem}")
