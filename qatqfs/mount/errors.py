"""What mounting raises."""


class MountError(Exception):
    """A mount cannot be made or taken down; the text is one sentence for the user."""
