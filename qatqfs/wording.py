"""What messages have in common, in the log and on the screen: names on one line, and where damage is.

A name may be any bytes. It must neither end a line nor steer a terminal.
"""

import os


def shown(text: str) -> str:
    r"""Return text as it can be printed on one line: what is not printable is escaped, as ``\n`` or ``\xff``.

    Args:
        text: for example a path as :func:`os.fsdecode` returns it.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, as os.fsdecode has it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def shown_path(path: bytes | None) -> str:
    """Return a logical path for a message; ``None`` is a file whose last name is gone."""
    return "(unlinked)" if path is None else shown(os.fsdecode(path))


def chunk_place(chunk: int, logical: int | None, stored: int | None) -> str:
    """Say which chunk is meant, and where it is.

    Args:
        chunk: its number, from 0.
        logical: its first byte in the decoded content, ``None`` when that cannot be said.
        stored: its first byte in the container, likewise.
    """
    places = [f"{name} offset {at}" for name, at in (("logical", logical), ("stored", stored)) if at is not None]
    return f"chunk {chunk}" + (f" ({', '.join(places)})" if places else "")


def describe(error: BaseException) -> str:
    """Return one line that says what went wrong, after the file that an OSError is about."""
    if isinstance(error, OSError) and error.strerror:
        names = [shown(os.fsdecode(name)) for name in (error.filename,) if isinstance(name, str | bytes)]
        return ": ".join([*names, error.strerror])
    return " ".join(str(error).split()) or type(error).__name__
