"""Hard links of regular files: one file with several names, as on any filesystem, whoever writes through which."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from mounted import errno_of, mounted
from sidebyside import STRANGER, SideBySide, outcome

pytestmark = pytest.mark.fuse

DATA = bytes(range(256)) * 1024  # four chunks of 64 KiB
KERNEL_BELIEVES_S = 1.1  # a little longer than the kernel may answer stat from its own memory


def names_and_content(directory: Path) -> object:
    return {path.name: (path.stat().st_nlink, path.read_bytes()) for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("committed", [False, True], ids=["uncommitted", "committed"])
def test_names_of_one_file_share_content_and_attributes(pair: SideBySide, committed: bool) -> None:
    def work(directory: Path) -> object:
        a, b = directory / "a", directory / "b"
        a.write_bytes(DATA)
        if committed:
            pair.mount.sync()
        os.link(a, b)
        found = [a.stat().st_nlink, a.stat().st_ino == b.stat().st_ino]
        with b.open("r+b") as file:
            file.seek(100_000)
            file.write(b"through b")
        a.chmod(0o600)
        os.setxattr(a, "user.x", b"1")
        found += [b.stat().st_size, oct(b.stat().st_mode), os.getxattr(b, "user.x"), a.read_bytes() == b.read_bytes()]
        pair.mount.sync()
        time.sleep(KERNEL_BELIEVES_S)
        os.truncate(a, 70_001)
        found += [names_and_content(directory), a.stat().st_ino == b.stat().st_ino]
        pair.mount.sync()
        return [*found, names_and_content(directory)]

    pair.both(work)


def test_a_name_may_go_and_another_stays(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "a").write_bytes(DATA)
        pair.mount.sync()
        found = []
        for i in range(4):
            os.link(directory / "a", directory / f"b{i}")
            found.append((directory / "a").stat().st_nlink)
        with (directory / "b0").open("ab") as file:
            file.write(b"more")
            (directory / "a").unlink()
            (directory / "b1").rename(directory / "c")
            file.write(b" and more")
        pair.mount.sync()
        found.append(names_and_content(directory))
        for name in ("b0", "b2", "b3"):
            (directory / name).unlink()
        with (directory / "c").open("ab") as file:
            file.write(b", alone")
        pair.mount.sync()
        return [*found, names_and_content(directory)]

    pair.both(work)


def test_renaming_a_name_over_another_of_the_same_file_does_nothing(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "a").write_bytes(b"content")
        os.link(directory / "a", directory / "b")
        (directory / "a").rename(directory / "b")
        return names_and_content(directory)

    pair.both(work)


def test_errors_of_link(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "a").write_bytes(b"content")
        (directory / "d").mkdir()
        (directory / "s").symlink_to("a")
        return [
            outcome(lambda d, src=src, dst=dst: os.link(d / src, d / dst, follow_symlinks=False), directory)
            for src, dst in (
                ("a", "a"),
                ("a", "d"),
                ("d", "e"),
                ("absent", "e"),
                ("a", "d/e"),
                ("s", "t"),
                ("a", "a/b"),
            )
        ], sorted(os.listdir(directory))

    pair.both(work)


def test_the_link_count_is_right_after_every_step_and_to_descriptors(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        found = []
        with (directory / "a").open("wb", buffering=0) as file:
            for step in (
                lambda: file.write(b"content"),
                lambda: os.link(directory / "a", directory / "b"),
                lambda: (directory / "a").unlink(),
                lambda: os.link(directory / "b", directory / "c"),
                lambda: (directory / "b").unlink(),
                lambda: (directory / "c").unlink(),
            ):
                step()
                found.append(os.fstat(file.fileno()).st_nlink)
                pair.mount.sync()
                found.append(os.fstat(file.fileno()).st_nlink)
        return found

    pair.both(work)


def test_times_do_not_change_with_the_commit(pair: SideBySide) -> None:
    a, b = pair.here / "a", pair.here / "b"
    a.write_bytes(DATA)
    os.link(a, b)
    pair.mount.sync()
    with b.open("ab") as file:
        file.write(b"more")
    before = a.stat()
    pair.mount.sync()
    time.sleep(KERNEL_BELIEVES_S)
    after = a.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_ino) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_ino,
    )


def test_links_and_what_was_written_through_them_survive_kills_and_remounts(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        (mount.path / "d").mkdir()
        a, b = mount.path / "a", mount.path / "d" / "b"
        a.write_bytes(DATA)
        mount.sync()
        os.link(a, b)
        expected = bytearray(DATA)
        for turn in range(3):
            fd = os.open(b if turn % 2 else a, os.O_WRONLY)
            os.pwrite(fd, b"turn %d" % turn, 50_000 * turn)
            expected[50_000 * turn : 50_000 * turn + 6] = b"turn %d" % turn
            mount.kill()
            mount.start()
            assert a.read_bytes() == b.read_bytes() == expected
            assert (a.stat().st_nlink, b.stat().st_nlink) == (2, 2)
            assert a.stat().st_ino == b.stat().st_ino
        mount.remount()
        assert a.read_bytes() == b.read_bytes() == expected
        assert mount.stored("a").stat().st_ino == mount.stored("d/b").stat().st_ino


def test_links_made_in_backing_itself_are_one_file(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "a").write_bytes(b"content")
        mount.sync()
        os.link(mount.stored("a"), mount.stored("b"))
        assert (mount.path / "b").stat().st_ino == (mount.path / "a").stat().st_ino
        (mount.path / "b").write_bytes(b"other content")
        mount.sync()
        assert (mount.path / "a").read_bytes() == b"other content"
        assert mount.stored("a").stat().st_nlink == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_who_may_link(pair: SideBySide) -> None:
    def prepare(directory: Path) -> None:
        os.chmod(directory, 0o777)
        for name, owner in (("mine", STRANGER), ("roots", 0)):
            (directory / name).write_bytes(b"content")
            os.chown(directory / name, owner, owner)
            os.chmod(directory / name, 0o600)

    pair.both(prepare)
    pair.both_as(
        STRANGER,
        lambda directory: [
            outcome(lambda d, name=name: os.link(d / name, d / f"link of {name}"), directory)
            for name in ("mine", "roots")
        ],
    )


def run(*command: object) -> str:
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def linked_tree(top: Path) -> Path:
    source = top / "source"
    (source / "sub").mkdir(parents=True)
    for number in range(5):
        (source / f"x{number}").write_bytes(os.urandom(100_000 * number))
        for name in (f"link{number}", f"sub/again{number}"):
            os.link(source / f"x{number}", source / name)
    return source


def groups(top: Path) -> list[list[str]]:
    """Names of the same file, together."""
    found: dict[int, list[str]] = {}
    for path in top.rglob("*"):
        if path.is_file():
            found.setdefault(path.stat().st_ino, []).append(str(path.relative_to(top)))
    return sorted(sorted(names) for names in found.values())


COPIERS = {
    "rsync": lambda source, copy: run("rsync", "-aHAX", "--checksum", f"{source}/", copy),
    "cp": lambda source, copy: run("cp", "-a", source, copy),
    "tar": lambda source, copy: (copy.mkdir(), run("sh", "-c", f"tar -cC '{source}' . | tar -xpC '{copy}'")),
}


@pytest.mark.parametrize("program", COPIERS)
def test_programs_keep_links_there_and_back(tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    source = linked_tree(tmp_path)
    with mounted(tmp_path) as mount:
        COPIERS[program](source, mount.path / "copy")
        assert groups(mount.path / "copy") == groups(source)
        mount.remount()
        assert groups(mount.path / "copy") == groups(source)
        COPIERS[program](mount.path / "copy", tmp_path / "back")
    assert groups(tmp_path / "back") == groups(source)
    for path in source.rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(source)).read_bytes() == path.read_bytes()


def test_rsync_sees_that_links_have_not_changed(tmp_path: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync")
    source = linked_tree(tmp_path)
    with mounted(tmp_path) as mount:
        options = ("-aHAX", "--checksum", "--itemize-changes", "--delete")
        run("rsync", *options, f"{source}/", mount.path / "copy")
        mount.remount()
        assert run("rsync", *options, f"{source}/", mount.path / "copy") == ""


def test_a_raw_file_and_a_link_of_it_are_served_as_they_are(tmp_path: Path) -> None:
    with mounted(tmp_path, "--raw", "*.raw") as mount:
        (mount.path / "a.raw").write_bytes(b"content")
        os.link(mount.path / "a.raw", mount.path / "b.raw")
        with (mount.path / "b.raw").open("ab") as file:
            file.write(b" more")
        assert (mount.path / "a.raw").read_bytes() == b"content more"
        assert errno_of(os.link, mount.path / "a.raw", mount.path / "b.raw") == "EEXIST"
