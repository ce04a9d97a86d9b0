"""Text from users on one line: a name may be any bytes, and must neither end a line nor steer a terminal."""


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
