"""The reasons to refuse a payload or container: one class for each error class of format section 7."""

from typing import Any, TypeVar

E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Remove the traceback of a caught error, so that the error can be kept as a value, and return it.

    The traceback keeps the variables of every call alive, and the files that they have open, for as long as the error
    lives. If one of these variables refers to the error, that is for ever.
    """
    found: list[BaseException] = [error]
    for one in found:  # which grows: what caused an error need not be what was being handled when it was raised last
        one.__traceback__ = None
        found += [other for other in (one.__cause__, one.__context__) if other is not None and other not in found]
    return error


class QatcError(ValueError):
    """Base of all errors that decoding raises because of its input; ``str()`` is one sentence.

    Every subclass can be copied and pickled, whatever its arguments are.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), str(self)), self.__dict__


def _restore(kind: type[QatcError], text: str) -> QatcError:
    error = kind.__new__(kind)
    ValueError.__init__(error, text)
    return error


class PayloadTooShort(QatcError):
    """A buffer ends before a required part."""

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
    """The mode is unknown, or cannot be read here."""

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
    """The prefix of an exact body is wrong: its magic, dtype or strategy, or the combination of these two."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"exact payload body is invalid: {detail}")


class InvalidResidualStream(QatcError):
    """The data of a strategy does not decode to exactly the promised values."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"exact residual stream is invalid: {detail}")


class LengthMismatch(QatcError):
    """Data of a fixed length has another length."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"payload length mismatch: expected {expected} bytes, got {actual}")


class ChecksumMismatch(QatcError):
    """Decoded values, or the chunks of a container, do not hash to the stored checksum.

    Attributes:
        expected: the stored checksum.
        actual: the computed checksum.
    """

    def __init__(self, expected: int, actual: int) -> None:
        self.expected, self.actual = expected, actual
        super().__init__(f"checksum mismatch: expected {expected:016x}, got {actual:016x}")


class InvalidContainer(QatcError):
    """The structure of a container is wrong."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"chunked container is invalid: {detail}")


class LimitExceeded(QatcError):
    """Something that the format allows is larger than the caller allows.

    Attributes:
        value: how much it is.
        limit: how much is allowed.
    """

    def __init__(self, what: str, value: int, limit: int) -> None:
        self.value, self.limit = value, limit
        super().__init__(f"decode limit exceeded: {value} {what}, at most {limit} are allowed")


class MixedDtypes(QatcError):
    """A chunk has another dtype than its container."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"chunked container has mixed tensor dtypes: {actual} among {expected}")


class EncodingFault(QatcError):
    """Encoded data does not decode to its original: a fault of this program or of the machine."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"an encoded payload does not decode again, please report it: {problem}")
