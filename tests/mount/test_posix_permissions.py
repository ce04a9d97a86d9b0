"""Modes, owners, set-id bits, sticky directories and ACLs: as in a plain directory of the same filesystem."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from modes import GROUP, OTHER, make_one_of_each, mode_of, under_umask
from sidebyside import STRANGER, SideBySide

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become other users")


def describe(directory: Path) -> dict[str, tuple[str, int, int]]:
    return {
        name: (mode_of(directory / name), (directory / name).lstat().st_uid, (directory / name).lstat().st_gid)
        for name in os.listdir(directory)
    }


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o666, 0o777, 0o400, 0, 0o4711, 0o2755, 0o1777])
def test_the_umask_reduces_the_mode_of_everything_new(pair: SideBySide, mode: int, umask: int) -> None:
    def work(directory: Path) -> object:
        under_umask(umask, lambda: make_one_of_each(directory, mode))
        return describe(directory)

    assert len(pair.both(work)) == 6


@pytest.mark.parametrize("mode", [0o700, 0o600, 0o400, 0o300, 0o100, 0])
def test_listing_takes_the_right_to_read_a_directory_and_looking_the_right_to_search_it(
    pair: SideBySide, mode: int
) -> None:
    def work(directory: Path) -> object:
        inside = directory / "inside"
        inside.mkdir()
        for name in ("a", "b"):
            (inside / name).touch()
        inside.chmod(mode)
        outcomes = [outcome(lambda: sorted(os.listdir(inside))), outcome(lambda: mode_of(inside / "a"))]
        outcomes.append(outcome(lambda: fsync_directory(inside)))
        inside.chmod(0o700)
        return [*outcomes, sorted(os.listdir(inside)), mode_of(inside / "b")]

    pair.both(work)


def test_a_file_is_reached_by_its_other_name_where_one_is_in_a_directory_that_may_not_be_searched(
    pair: SideBySide,
) -> None:
    def work(directory: Path) -> object:
        found = []
        for number in range(8):  # which name is taken is chance
            closed, path = directory / f"closed{number}", directory / f"a{number}"
            closed.mkdir()
            path.write_bytes(b"content")
            pair.mount.sync()
            os.link(path, closed / "b")
            closed.chmod(0o600)
            found.append((outcome(path.read_bytes), outcome(lambda path=path: path.chmod(0o640)), mode_of(path)))
            closed.chmod(0o700)
        return found

    pair.both(work)


def outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except OSError as err:
        return errno.errorcode[err.errno]


def fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def test_chmod_sets_every_bit_and_a_commit_keeps_them(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        found = []
        (directory / "f").write_bytes(b"content")
        (directory / "d").mkdir()
        for mode in (0, 0o777, 0o600, 0o4755, 0o2755, 0o2644, 0o1777, 0o7777):
            for name in ("f", "d"):
                os.chmod(directory / name, mode)
                found.append(mode_of(directory / name))
        pair.mount.sync()
        return [*found, mode_of(directory / "f")]

    pair.both(work)


@root_only
def test_new_files_belong_to_who_makes_them(pair: SideBySide) -> None:
    pair.both(lambda directory: os.chmod(directory, 0o777))
    pair.both_as(STRANGER, lambda directory: make_one_of_each(directory, 0o644), group=GROUP)
    found = pair.both(describe)
    assert {(uid, gid) for _, uid, gid in found.values()} == {(STRANGER, GROUP)}
    pair.mount.sync()
    assert pair.both(describe) == found


@root_only
@pytest.mark.parametrize("groups", [(), (GROUP,)], ids=["stranger", "member"])
@pytest.mark.parametrize("mode", [0o644, 0o2755, 0o6775])
def test_a_set_group_id_directory_hands_on_its_group(pair: SideBySide, mode: int, groups: tuple[int, ...]) -> None:
    def prepare(directory: Path) -> None:
        os.chown(directory, STRANGER, GROUP)
        os.chmod(directory, 0o2777)

    pair.both(prepare)
    pair.both_as(OTHER, lambda directory: make_one_of_each(directory, mode), groups=groups)
    found = pair.both(describe)
    assert {gid for _, _, gid in found.values()} == {GROUP}
    assert int(found["directory"][0], 8) & stat.S_ISGID
    pair.mount.sync()
    assert pair.both(describe) == found


@root_only
def test_writing_by_another_than_root_clears_the_set_id_bits(pair: SideBySide) -> None:
    def prepare(directory: Path) -> None:
        for name in ("write", "truncate", "path", "grow", "none"):
            (directory / name).write_bytes(b"content")
            os.chown(directory / name, 0, 0)
            os.chmod(directory / name, 0o6777)

    def work(directory: Path) -> object:
        with (directory / "write").open("r+b") as file:
            file.write(b"x")
        with (directory / "truncate").open("r+b") as file:
            file.truncate(3)
        os.truncate(directory / "path", 3)
        with (directory / "grow").open("r+b") as file:
            file.truncate(30)
        (directory / "none").read_bytes()
        return {path.name: mode_of(path) for path in directory.iterdir()}

    pair.both(prepare)
    found = pair.both_as(STRANGER, work)
    assert found["write"] == "0o100777"
    assert found["none"] == "0o106777"


SET_ID_MODES = [0o6777, 0o6767, 0o4666, 0o2777, 0o2767, 0o6666, 0o0777]
HOW_TO_EMPTY = {
    "open with O_TRUNC": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    "open for reading with O_TRUNC": lambda path: os.close(os.open(path, os.O_RDONLY | os.O_TRUNC)),
    "create what is there": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)),
    "truncate": lambda path: os.truncate(path, 0),
}


@root_only
@pytest.mark.parametrize("user", [STRANGER, OTHER, 0], ids=["owner", "another", "root"])
@pytest.mark.parametrize("how", HOW_TO_EMPTY)
def test_emptying_a_file_clears_what_it_clears_elsewhere(pair: SideBySide, how: str, user: int) -> None:
    def prepare(directory: Path) -> None:
        for mode in SET_ID_MODES:
            for content in (b"content", b""):
                path = directory / f"{mode:o} {len(content)}"
                path.write_bytes(content)
                os.chown(path, STRANGER, GROUP)
                os.chmod(path, mode)

    def work(directory: Path) -> object:
        names = sorted(os.listdir(directory))
        for name in names:
            HOW_TO_EMPTY[how](directory / name)
        return {name: (mode_of(directory / name), (directory / name).stat().st_size) for name in names}

    pair.both(prepare)
    found = pair.both_as(user, work)
    assert found["6777 7"] == ("0o106777" if user == 0 else "0o100777", 0)
    pair.both(prepare)
    pair.both_as(user, work, groups=[GROUP])
    pair.mount.sync()
    pair.both(lambda directory: {name: mode_of(directory / name) for name in os.listdir(directory)})


@root_only
@pytest.mark.parametrize("user", [OTHER, 0], ids=["another", "root"])
@pytest.mark.parametrize("how", HOW_TO_EMPTY)
def test_emptying_a_file_takes_its_capabilities_away(pair: SideBySide, how: str, user: int) -> None:
    capability = bytes.fromhex("0100000202000000000000000000000000000000")

    def prepare(directory: Path) -> None:
        (directory / "f").write_bytes(b"content")
        os.chmod(directory / "f", 0o777)
        os.setxattr(directory / "f", "security.capability", capability)

    def work(directory: Path) -> object:
        HOW_TO_EMPTY[how](directory / "f")
        return os.listxattr(directory / "f")

    pair.both(prepare)
    assert "security.capability" not in pair.both_as(user, work)


@root_only
@pytest.mark.parametrize("mode", [0o6777, 0o6767, 0o4644, 0o2755, 0o2644])
def test_chown_clears_the_set_id_bits_of_files_and_not_of_directories(pair: SideBySide, mode: int) -> None:
    def work(directory: Path) -> object:
        (directory / "f").write_bytes(b"content")
        (directory / "d").mkdir()
        found = []
        for uid, gid in ((STRANGER, -1), (-1, GROUP), (-1, -1), (0, 0)):
            for name in ("f", "d"):
                os.chmod(directory / name, mode)
                os.chown(directory / name, uid, gid)
                st = (directory / name).stat()
                found.append((mode_of(directory / name), st.st_uid, st.st_gid))
        return found

    pair.both(work)


@root_only
def test_only_owner_and_root_may_chmod_chown_and_set_times(pair: SideBySide) -> None:
    def prepare(directory: Path) -> None:
        os.chmod(directory, 0o777)
        (directory / "mine").write_bytes(b"content")
        os.chown(directory / "mine", STRANGER, STRANGER)
        (directory / "roots").write_bytes(b"content")
        os.chmod(directory / "roots", 0o666)

    def work(directory: Path) -> object:
        found = []
        for name in ("mine", "roots"):
            for call in (
                lambda path: os.chmod(path, 0o640),
                lambda path: os.chown(path, OTHER, -1),
                lambda path: os.chown(path, -1, GROUP),
                lambda path: os.chown(path, -1, OTHER),
                lambda path: os.utime(path, ns=(1, 2)),
                lambda path: os.utime(path),
                lambda path: os.setxattr(path, "user.x", b"1"),
            ):
                try:
                    found.append(call(directory / name))
                except OSError as err:
                    found.append(err.errno)
        return found

    pair.both(prepare)
    pair.both_as(STRANGER, work, groups=(GROUP,))
    pair.both(describe)


@root_only
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o711, 0o722, 0o777])
def test_permissions_keep_others_out(pair: SideBySide, mode: int) -> None:
    def prepare(directory: Path) -> None:
        (directory / "d").mkdir()
        (directory / "d" / "x").write_bytes(b"content")
        os.chmod(directory / "d" / "x", mode)
        os.chmod(directory / "d", mode)

    def attempts(directory: Path) -> object:
        found = []
        for attempt in (
            lambda d: sorted(os.listdir(d)),
            lambda d: (d / "x").read_bytes(),
            lambda d: os.close(os.open(d / "x", os.O_WRONLY)),
            lambda d: (d / "new").write_bytes(b""),
            lambda d: (d / "x").rename(d / "y"),
            lambda d: (d / "y").unlink(),
            lambda d: [os.access(d / "x", how) for how in (os.R_OK, os.W_OK, os.X_OK)],
        ):
            try:
                found.append(attempt(directory / "d"))
            except OSError as err:
                found.append(err.errno)
        return found

    pair.both(prepare)
    pair.both_as(STRANGER, attempts)


@root_only
def test_in_a_sticky_directory_only_the_owner_removes_and_renames(pair: SideBySide) -> None:
    def prepare(directory: Path) -> None:
        os.chmod(directory, 0o1777)
        for name, owner in (("a", STRANGER), ("b", OTHER), ("c", STRANGER), ("d", OTHER)):
            (directory / name).write_bytes(b"content")
            os.chmod(directory / name, 0o666)
            os.chown(directory / name, owner, owner)

    def work(directory: Path) -> object:
        found = []
        for attempt in (
            lambda: (directory / "b").unlink(),
            lambda: (directory / "b").rename(directory / "e"),
            lambda: (directory / "c").rename(directory / "d"),
            lambda: (directory / "c").rename(directory / "e"),
            lambda: (directory / "a").unlink(),
            lambda: (directory / "b").write_bytes(b"changed"),
        ):
            try:
                found.append(attempt())
            except OSError as err:
                found.append(err.errno)
        return found, sorted(os.listdir(directory))

    pair.both(prepare)
    pair.both_as(STRANGER, work)
