"""Access control lists in a mount behave as in a plain directory."""

import os
import stat
from pathlib import Path

import pytest
from modes import GROUP, OTHER, make_one_of_each, mode_of, under_umask
from sidebyside import STRANGER, SideBySide

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become other users")

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The xattr form of an ACL of (tag, permissions, id)."""
    head = (2).to_bytes(4, "little")
    return head + b"".join(
        tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, permissions, who in entries
    )


FOR_STRANGER = acl(
    (_USER_OBJ, 7, _NO_ID), (_USER, 6, STRANGER), (_GROUP_OBJ, 5, _NO_ID), (_MASK, 7, _NO_ID), (_OTHER, 0, _NO_ID)
)


def test_an_access_acl_is_kept_and_changes_the_mode_as_chmod_changes_it(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(b"content")
        os.setxattr(path, ACCESS, FOR_STRANGER)
        found = [mode_of(path), os.getxattr(path, ACCESS)]
        os.chmod(path, 0o604)
        found += [mode_of(path), os.getxattr(path, ACCESS), sorted(os.listxattr(path))]
        pair.mount.sync()
        return [*found, mode_of(path), os.getxattr(path, ACCESS)]

    pair.both(work)


@root_only
def test_an_access_acl_is_enforced(pair: SideBySide) -> None:
    def prepare(directory: Path) -> None:
        for name in ("with", "without"):
            (directory / name).write_bytes(b"content")
            os.chmod(directory / name, 0o600)
        os.setxattr(directory / "with", ACCESS, FOR_STRANGER)

    def work(directory: Path) -> object:
        found = []
        for name in ("with", "without"):
            for flags in (os.O_RDONLY, os.O_RDWR):
                try:
                    os.close(os.open(directory / name, flags))
                    found.append(0)
                except OSError as err:
                    found.append(err.errno)
        return found

    pair.both(prepare)
    assert pair.both_as(STRANGER, work)[:2] == [0, 0]
    assert pair.both_as(OTHER, work)[0] != 0


@root_only
@pytest.mark.parametrize("groups", [(), (GROUP,)], ids=["stranger", "member"])
def test_setting_an_acl_of_a_file_of_another_group_clears_its_set_group_id_bit(
    pair: SideBySide, groups: tuple[int, ...]
) -> None:
    def prepare(directory: Path) -> None:
        for name in ("file", "directory"):
            (directory / name).touch() if name == "file" else (directory / name).mkdir()
            os.chown(directory / name, STRANGER, GROUP)
            os.chmod(directory / name, 0o6775)

    def work(directory: Path) -> object:
        for name in ("file", "directory"):
            os.setxattr(directory / name, ACCESS, FOR_STRANGER)
        return [mode_of(directory / name) for name in ("file", "directory")]

    pair.both(prepare)
    found = pair.both_as(STRANGER, work, groups=groups)
    assert bool(int(found[0], 8) & stat.S_ISGID) == bool(groups)


def test_a_default_acl_is_inherited_by_files_and_directories(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        os.setxattr(directory, DEFAULT, FOR_STRANGER)
        under_umask(0, lambda: make_one_of_each(directory, 0o766))
        under_umask(0, lambda: (directory / "directory" / "below").write_bytes(b"content"))
        pair.mount.sync()
        found = {}
        for path in (*directory.iterdir(), directory / "directory" / "below"):
            if not path.is_symlink():
                names = [name for name in os.listxattr(path) if "posix_acl" in name]
                found[path.name] = (mode_of(path), {name: os.getxattr(path, name) for name in names})
        return found

    found = pair.both(work)
    assert ACCESS in found["file"][1]
    assert {ACCESS, DEFAULT} == set(found["directory"][1])


def test_the_umask_applies_also_below_a_default_acl(pair: SideBySide) -> None:
    # On other filesystems a default ACL takes the place of the umask. The kernel applies the umask before FUSE
    # sees the mode unless the filesystem asks it not to, which pyfuse3 cannot: the result is never too open.
    def work(directory: Path) -> int:
        os.setxattr(directory, DEFAULT, FOR_STRANGER)
        under_umask(0o077, lambda: (directory / "x").touch(0o666))
        return stat.S_IMODE((directory / "x").stat().st_mode)

    assert (work(pair.here), work(pair.plain)) == (0o600, 0o660)


def test_removing_an_acl_leaves_the_mode(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        path = directory / "x"
        path.write_bytes(b"content")
        os.setxattr(path, ACCESS, FOR_STRANGER)
        os.removexattr(path, ACCESS)
        return mode_of(path), os.listxattr(path)

    pair.both(work)
