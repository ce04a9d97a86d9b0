"""A mount of a user who is not root: trees that he copies with all their modes, and what ext4 makes of them."""

import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from mounted import QATQFS, Mounted, errno_of, mounted
from ordinary import as_ordinary_user, can_run_programs, own_directory

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(
        os.geteuid() == 0 and Path("/dev/fuse").exists() and not Path("/dev/fuse").stat().st_mode & 0o002,
        reason="/dev/fuse is closed to ordinary users here",
    ),
    pytest.mark.skipif(shutil.which("fusermount3") is None, reason="needs fusermount3 (Debian package fuse3)"),
]


@pytest.fixture(autouse=True, scope="module")
def _programs_can_be_run() -> None:
    if not can_run_programs():
        pytest.skip("no ordinary user can start programs of this checkout")


OTHER = 54399
"""A user who is neither root nor who mounts."""
FILE_MODES = (0o644, 0o444, 0o400, 0o600, 0o664, 0o755, 0o555)
DIRECTORY_MODES = (0o755, 0o555, 0o500, 0o700)
COPIES = {
    "cp": "cp -a {0}/. {1}",
    "rsync": "rsync -a {0}/ {1}",
    "tar": "tar -C {0} -cf - . | tar -C {1} -xpf -",
}


def copy_tree(tool: str, source: Path, target: Path) -> None:
    places = (shlex.quote(str(place)) for place in (source, target))
    subprocess.run(COPIES[tool].format(*places), shell=True, check=True)


def make_tree(top: Path) -> None:
    """A directory of each mode with a file of each mode in it."""
    for directory in DIRECTORY_MODES:
        path = top / f"d{directory:o}"
        path.mkdir(parents=True)
        for i, mode in enumerate(FILE_MODES):
            file = path / f"f{mode:o}"
            file.write_bytes(os.urandom(100_000 + i))
            file.chmod(mode)
            os.utime(file, ns=(10**18 + i, 10**18 + 123_456_789 + i))
        path.chmod(directory)
        os.utime(path, ns=(10**18, 10**18 + 5))


def look(top: Path) -> dict[str, object]:
    """Everything below a directory, as a program sees it."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        st = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(st.st_mode) else None
        found[str(path.relative_to(top))] = (oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, content)
    return found


def nothing_waits(mount: Mounted) -> bool:
    return not any((mount.backing / ".qatqfs/staging").iterdir())


@pytest.mark.parametrize("tool", COPIES)
@pytest.mark.parametrize("killed", [False, True])
def test_a_tree_copied_with_its_modes_is_committed_and_as_on_a_plain_directory(tool: str, killed: bool) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")

    def work(base: Path) -> None:
        source, plain = base / "source", base / "plain"
        make_tree(source)
        plain.mkdir()
        copy_tree(tool, source, plain)
        with mounted(base, program=QATQFS) as mount:
            copy = mount.path / "copy"
            copy.mkdir()
            copy_tree(tool, source, copy)
            if killed:
                mount.kill()
                mount.start()
            assert look(copy) == look(plain)
            mount.sync()
            assert nothing_waits(mount), mount.log_text()
            assert "could not be committed" not in mount.log_text()
            assert look(copy) == look(plain)
            mount.remount()
            assert look(copy) == look(plain)
            assert not any((mount.backing / ".qatqfs/lost+found").iterdir())

    with own_directory() as base:
        as_ordinary_user(base, work)


def test_a_write_only_file_is_written_to_again_and_again() -> None:
    def work(base: Path) -> None:
        with mounted(base, program=QATQFS) as mount:
            path = mount.path / "x"
            path.write_bytes(b"content")
            path.chmod(0o200)
            for i in range(3):
                mount.remount()
                assert path.stat().st_size == 7 + i
                assert errno_of(path.read_bytes) == "EACCES"
                with path.open("ab") as stream:
                    stream.write(b"%d" % i)
            mount.remount()
            path.chmod(0o600)
            assert path.read_bytes() == b"content012"

    with own_directory() as base:
        as_ordinary_user(base, work)


def test_changing_a_file_in_a_directory_that_must_not_change_works_and_changing_names_does_not() -> None:
    def work(base: Path) -> None:
        with mounted(base, program=QATQFS) as mount:
            directory = mount.path / "d"
            directory.mkdir()
            (directory / "x").write_bytes(b"content")
            mount.sync()
            directory.chmod(0o555)
            number = (directory / "x").stat().st_ino
            (directory / "x").write_bytes(b"other content")
            assert errno_of((directory / "y").write_bytes, b"") == "EACCES"
            assert errno_of((directory / "x").unlink) == "EACCES"
            mount.sync()
            assert nothing_waits(mount), mount.log_text()
            assert (directory / "x").stat().st_ino == number
            mount.remount()
            assert (directory / "x").read_bytes() == b"other content"

    with own_directory() as base:
        as_ordinary_user(base, work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of several users")
def test_another_users_file_keeps_its_owner_when_it_is_written_to() -> None:
    def prepare(base: Path) -> None:
        with mounted(base, program=QATQFS) as mount:
            (mount.path / "x").write_bytes(b"content")
            (mount.path / "closed").write_bytes(b"content")

    def work(base: Path) -> None:
        with mounted(base, program=QATQFS) as mount:
            (mount.path / "x").write_bytes(b"other content")
            mount.sync()
            assert nothing_waits(mount), mount.log_text()
            mount.remount()
            st = (mount.path / "x").stat()
            assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (OTHER, OTHER, 0o666)
            assert (mount.path / "x").read_bytes() == b"other content"
            assert errno_of(os.open, mount.path / "closed", os.O_WRONLY) == "EACCES"

    with own_directory() as base:
        as_ordinary_user(base, prepare)
        for name, mode in (("x", 0o666), ("closed", 0o622)):
            os.chown(base / f"backing/{name}.qatc", OTHER, OTHER)
            os.chmod(base / f"backing/{name}.qatc", mode)
        as_ordinary_user(base, work)
