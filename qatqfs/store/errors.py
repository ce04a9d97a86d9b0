"""What the store raises besides :class:`OSError`."""


class StoreError(Exception):
    """A backing directory cannot be used as asked; the text is one sentence for the user."""
