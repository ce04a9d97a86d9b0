"""Fixtures of the tests that mount."""

import itertools
import os
from collections.abc import Iterator

import pytest
from mounted import Mounted, mounted
from sidebyside import SideBySide

_numbers = itertools.count()


@pytest.fixture(scope="session")
def posix_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """One mount for all tests that only need some directory in a mount, open to other users if we are root."""
    options = ["--chunk-size", "64K", *(["--allow-other"] if os.geteuid() == 0 else [])]
    with mounted(tmp_path_factory.mktemp("posix"), *options) as mount:
        yield mount


@pytest.fixture
def pair(posix_mount: Mounted) -> SideBySide:
    """An empty directory in a mount and a plain one beside BACKING."""
    name = f"d{next(_numbers)}"
    plain = posix_mount.backing.parent / "plain" / name
    plain.mkdir(parents=True)
    here = posix_mount.path / name
    here.mkdir()
    return SideBySide(posix_mount, here, plain)
