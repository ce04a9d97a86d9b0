"""What all tests share: checked locks, where real data may be found, and that no test leaves a mount behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))  # helper modules beside the tests

os.environ["QATQFS_CHECK_LOCKS"] = "1"  # before the package is imported; mounts that tests make inherit it

from mounted import fuse_obstacle, qatqfs_mountpoints  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    os.umask(0o022)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:  # we are a job in the background of a script
            signal.signal(number, signal.SIG_DFL)  # what mounts inherit from us


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any("fuse" in item.keywords for item in items) and (obstacle := fuse_obstacle()):
        skip = pytest.mark.skip(reason=obstacle)
        for item in items:
            if "fuse" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A directory with `corpus` and `vectors` of real data, where there is one."""
    found = Path(os.environ.get("QATQFS_SHARED", TESTS.parent.parent / "shared"))
    if not (found / "corpus").is_dir():
        pytest.skip("no directory of shared data (QATQFS_SHARED)")
    return found


@pytest.fixture(scope="session", autouse=True)
def _no_mount_left(tmp_path_factory: pytest.TempPathFactory):
    yield
    left = qatqfs_mountpoints(tmp_path_factory.getbasetemp())
    assert not left, f"mounts left behind: {left}"
