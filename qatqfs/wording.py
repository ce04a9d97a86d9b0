"""How messages are worded, the same in the log and on the screen: names on one line, and where damage is.

A file name may be any bytes. It must not end a line, and it must not control a terminal.
"""

import os


def shown(text: str) -> str:
    r"""Return text that can be printed on one line: what is not printable is escaped, as ``\n`` or ``\xff``.

    Args:
        text: for example a path from :func:`os.fsdecode`.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as os.fsdecode returns it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def shown_path(path: bytes | None) -> str:
    """Return a logical path for a message; ``None`` is a file whose last name was removed."""
    return "(unlinked)" if path is None else shown(os.fsdecode(path))


def damaged_chunk(chunk: int, logical: int | None, stored: int | None, reason: str) -> str:
    """Return the sentence about a damaged chunk, for the log of a mount and for ``qatqfs verify``.

    Args:
        chunk: its number, from 0.
        logical: offset of its first byte in the decoded content, ``None`` if that is unknown.
        stored: offset of its first byte in the container, ``None`` if that is unknown.
        reason: what is wrong.
    """
    places = [f"{name} offset {at}" for name, at in (("logical", logical), ("stored", stored)) if at is not None]
    return f"chunk {chunk}" + (f" ({', '.join(places)})" if places else "") + f" is damaged: {reason}"


def describe(error: BaseException) -> str:
    """Return one line that says what went wrong. For an OSError it begins with the file that the error is about."""
    if isinstance(error, OSError) and error.strerror:
        names = [shown(os.fsdecode(name)) for name in (error.filename,) if isinstance(name, str | bytes)]
        return ": ".join([*names, error.strerror])
    return " ".join(str(error).split()) or type(error).__name__
