import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mounted import errno_of

from qatqfs.store import paths

logical_names = st.binary(min_size=1, max_size=250).filter(lambda n: b"/" not in n and b"\0" not in n)


@given(logical_names)
def test_every_logical_name_comes_back_from_its_container_name(name: bytes) -> None:
    assert paths.logical_name(paths.container_name(name), regular=True) == name


@given(logical_names)
def test_only_regular_files_lose_the_suffix(name: bytes) -> None:
    stored = paths.container_name(name)
    assert paths.logical_name(stored, regular=False) == stored


def test_a_lone_suffix_is_no_container_name() -> None:
    assert not paths.is_container_name(b".qatc")
    assert paths.logical_name(b".qatc", regular=True) == b".qatc"


def test_a_logical_name_may_itself_end_in_the_suffix() -> None:
    assert paths.logical_name(b"x.qatc.qatc", regular=True) == b"x.qatc"


def test_the_stores_own_directory_is_private_only_at_the_top() -> None:
    assert paths.is_private(b"", b".qatqfs")
    assert not paths.is_private(b"sub", b".qatqfs")


@pytest.mark.parametrize("path", [b"a//b", b"/a", b"a/", b".", b"a/../b", b"a\0b"])
def test_unresolved_paths_are_refused(path: bytes) -> None:
    assert errno_of(paths.components, path) == errno.errorcode[errno.EINVAL]


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [(b"a/b", b"a", True), (b"a", b"a", True), (b"ab", b"a", False), (b"x", b"", True), (b"a", b"a/b", False)],
)
def test_being_below_a_directory_goes_by_whole_names(path: bytes, directory: bytes, expected: bool) -> None:
    assert paths.is_below(path, directory) is expected
