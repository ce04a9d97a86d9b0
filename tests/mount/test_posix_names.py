"""Names: what they may be, renaming, listing, special files, links and inode numbers."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mounted import Mounted, drop_page_cache, errno_of, mounted
from sidebyside import SideBySide, outcome

from qatqfs.store.system.calls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make device nodes")

KINDS = ("file", "empty directory", "full directory", "symlink", "fifo", "nothing")


def make(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_bytes(b"content of " + os.fsencode(path.name))
    elif kind.endswith("directory"):
        path.mkdir()
        if kind.startswith("full"):
            (path / "inside").write_bytes(b"inside " + os.fsencode(path.name))
    elif kind == "symlink":
        path.symlink_to("target of " + path.name)
    elif kind == "fifo":
        os.mkfifo(path)


def tree(directory: Path) -> dict[str, object]:
    """Everything below a directory: path to type, permissions, link count and content."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        st = path.lstat()
        if stat.S_ISREG(st.st_mode):
            content: object = path.read_bytes()
        else:
            content = os.readlink(path) if stat.S_ISLNK(st.st_mode) else None
        found[str(path.relative_to(directory))] = (oct(st.st_mode), st.st_nlink, content)
    return found


def rename(directory: Path, src: str, dst: str, flags: int) -> None:
    fd = os.open(directory, os.O_PATH)
    try:
        renameat2(fd, os.fsencode(src), fd, os.fsencode(dst), flags)
    finally:
        os.close(fd)


@pytest.mark.parametrize("flags", [0, RENAME_NOREPLACE, RENAME_EXCHANGE], ids=["plain", "noreplace", "exchange"])
@pytest.mark.parametrize("dst", KINDS)
@pytest.mark.parametrize("src", KINDS)
def test_renaming_anything_over_anything(pair: SideBySide, src: str, dst: str, flags: int) -> None:
    def work(directory: Path) -> object:
        make(directory / "a", src)
        make(directory / "b", dst)
        result = outcome(lambda d: rename(d, "a", "b", flags), directory)
        return result, tree(directory)

    if flags == RENAME_EXCHANGE and (src == "file") != (dst == "file") and "nothing" not in (src, dst):
        # A container cannot change places with anything else in one step: their stored names differ.
        assert "EINVAL" in str(work(pair.here)[0])
        assert tree(pair.here).keys() >= {"a", "b"}
    else:
        pair.both(work)


def test_other_flags_of_renameat2_are_refused(pair: SideBySide) -> None:
    make(pair.here / "a", "file")
    for flags in (4, 8, 3):
        assert errno_of(rename, pair.here, "a", "b", flags) == "EINVAL"
    assert os.listdir(pair.here) == ["a"]


def test_renaming_a_directory_into_itself_and_over_its_parent(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "a" / "b" / "c").mkdir(parents=True)
        return [
            outcome(lambda d, src=src, dst=dst: os.rename(d / src, d / dst), directory)
            for src, dst in (("a", "a/b/x"), ("a/b/c", "a/b"), ("a/b", "a/b"), ("a", "a/b/c/x"), ("a/b/c", "a/c"))
        ], tree(directory)

    pair.both(work)


def test_renaming_over_an_open_file_leaves_its_reader_the_old_content(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "old").write_bytes(b"old" * 1000)
        (directory / "new").write_bytes(b"new" * 1000)
        pair.mount.sync()
        with (directory / "old").open("r+b", buffering=0) as file:
            (directory / "new").rename(directory / "old")
            pair.mount.sync()
            file.seek(0, os.SEEK_END)
            file.write(b"more")
            file.seek(0)
            found = [file.read(), os.fstat(file.fileno()).st_nlink]
        return [*found, (directory / "old").read_bytes(), os.listdir(directory)]

    pair.both(work)


def test_renaming_a_tree_with_open_dirty_files_in_it(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        files = []
        for i in range(5):
            below = directory / "tree" / f"d{i}"
            below.mkdir(parents=True)
            files.append((below / "x").open("wb", buffering=0))
            files[-1].write(b"first %d, " % i)
        (directory / "tree").rename(directory / "moved")
        for i, file in enumerate(files):
            file.write(b"then %d, " % i)
        pair.mount.sync()
        (directory / "moved" / "d3").rename(directory / "d3")
        (directory / "other").mkdir()
        (directory / "moved").rename(directory / "other" / "tree")
        for i, file in enumerate(files):
            file.write(b"last %d" % i)
            file.close()
        pair.mount.sync()
        return tree(directory)

    found = pair.both(work)
    assert found["d3/x"][2] == b"first 3, then 3, last 3"


def test_a_tree_renamed_with_dirty_files_in_it_survives_a_kill(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "a" / "b").mkdir(parents=True)
        file = (mount.path / "a" / "b" / "x").open("wb", buffering=0)
        file.write(b"first")
        (mount.path / "a").rename(mount.path / "c")
        (mount.path / "c" / "b").rename(mount.path / "d")
        file.write(b" second")
        mount.kill()
        with contextlib.suppress(OSError):
            file.close()
        mount.start()
        assert (mount.path / "d" / "x").read_bytes() == b"first second"
        mount.remount()
        assert tree(mount.path)["d/x"] == ("0o100644", 1, b"first second")


def test_link_counts_of_directories_and_of_what_is_deleted_while_open(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        found = []
        for i in range(3):
            (directory / f"d{i}").mkdir()
            found.append(directory.stat().st_nlink)
        (directory / "d0").rmdir()
        (directory / "d1").rename(directory / "d2" / "d1")
        found += [directory.stat().st_nlink, (directory / "d2").stat().st_nlink]
        with (directory / "x").open("wb") as file:
            found.append(os.fstat(file.fileno()).st_nlink)
            (directory / "x").unlink()
            found.append(os.fstat(file.fileno()).st_nlink)
        return found

    pair.both(work)


def test_a_removed_directory_that_is_still_open_is_empty(pair: SideBySide) -> None:
    def look(directory: Path, name: str, remove: Callable[[Path], object]) -> object:
        inside = os.open(directory / name, os.O_RDONLY)
        try:
            remove(directory / name)
            if directory == pair.here:
                time.sleep(1.1)  # as long as the kernel may answer stat itself
            st = os.fstat(inside)
            return [
                (os.listdir(inside), stat.S_ISDIR(st.st_mode), st.st_nlink),
                outcome(lambda _: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=inside), directory),
                outcome(lambda _: os.mkdir("x", dir_fd=inside), directory),
            ]
        finally:
            os.close(inside)

    def work(directory: Path) -> object:
        for name in ("removed", "empty", "replaced"):
            (directory / name).mkdir()
        return [
            look(directory, "removed", os.rmdir),
            look(directory, "replaced", lambda path: os.rename(directory / "empty", path)),
        ]

    pair.both(work)


def test_removing_what_cannot_be_removed_so(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        for kind in KINDS:
            make(directory / kind, kind)
        return [
            outcome(lambda d, call=call, kind=kind: call(d / kind), directory)
            for kind in KINDS
            for call in (os.rmdir, os.unlink, os.mkdir, os.mkfifo, lambda path: os.symlink("x", path), os.readlink)
        ], tree(directory)

    pair.both(work)


def test_symlinks_keep_any_target_and_are_not_followed(pair: SideBySide) -> None:
    targets = ["x", "../" * 20 + "etc/passwd", "/", "a" * 4095, "\udcff\n", "s0"]

    def work(directory: Path) -> object:
        found = []
        for i, target in enumerate(targets):
            os.symlink(target, directory / f"s{i}")
            found.append((os.readlink(directory / f"s{i}"), os.lstat(directory / f"s{i}").st_size))
        (directory / "loop").symlink_to("loop")
        found.append(outcome(lambda d: (d / "loop").read_bytes(), directory))
        (directory / "file").write_bytes(b"content")
        (directory / "dir").mkdir()
        (directory / "to-file").symlink_to("file")
        (directory / "to-dir").symlink_to("dir")
        (directory / "to-dir" / "below").write_bytes(b"below")
        found.append((directory / "to-file").read_bytes())
        found.append(outcome(lambda d: os.open(d / "to-file", os.O_RDONLY | os.O_NOFOLLOW), directory))
        (directory / "dangling").symlink_to("made")
        (directory / "dangling").write_bytes(b"through the link")
        found.append(outcome(lambda d: os.open(d / "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY), directory))
        os.link(directory / "to-file", directory / "again", follow_symlinks=False)
        (directory / "to-file").rename(directory / "renamed")
        return found, {name: value for name, value in tree(directory).items() if not name.startswith("to-dir")}

    pair.both(work)


@root_only
def test_device_nodes_are_kept_and_cannot_be_opened(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(directory / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 200))
        (directory / "null").rename(directory / "renamed")
        return [(oct(p.stat().st_mode), p.stat().st_rdev) for p in sorted(directory.iterdir())]

    pair.both(work)
    assert errno_of((pair.here / "renamed").write_bytes, b"x") == "EACCES"  # mounted nodev, as FUSE always is


def test_fifos_and_sockets_connect_processes(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        os.mkfifo(directory / "fifo")
        writer = subprocess.Popen([sys.executable, "-c", f"open({str(directory / 'fifo')!r}, 'wb').write(b'through')"])
        found = [(directory / "fifo").read_bytes()]
        assert writer.wait() == 0
        inside = os.open(directory, os.O_PATH)  # a socket's path may be 107 bytes long
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(f"/proc/self/fd/{inside}/socket")
            listener.listen()
            client.connect(f"/proc/self/fd/{inside}/socket")
            with listener.accept()[0] as accepted:
                accepted.sendall(b"hello")
            found.append(client.recv(10))
        os.close(inside)
        (directory / "socket").unlink()
        return found, tree(directory)

    pair.both(work)


@pytest.mark.parametrize("call", ["create", "mkdir", "symlink", "mkfifo", "rename", "stat", "open"])
def test_names_up_to_the_limit_that_statvfs_tells(pair: SideBySide, call: str) -> None:
    limit = os.statvfs(pair.here).f_namemax
    assert limit == os.statvfs(pair.plain).f_namemax - len(".qatc")
    (pair.here / "there").write_bytes(b"content")
    calls: dict[str, Callable[[Path], object]] = {
        "create": lambda path: path.write_bytes(b"content"),
        "mkdir": Path.mkdir,
        "symlink": lambda path: path.symlink_to("x"),
        "mkfifo": os.mkfifo,
        "rename": lambda path: (pair.here / "there").rename(path),
        "stat": lambda path: path.write_bytes(b"") or path.stat(),
        "open": lambda path: path.write_bytes(b"") or path.read_bytes(),
    }
    assert errno_of(calls[call], pair.here / ("n" * limit)) is None
    assert "n" * limit in os.listdir(pair.here)
    (pair.here / "there").touch()
    beyond = {"stat": os.stat, "open": lambda path: os.open(path, os.O_RDONLY)}.get(call, calls[call])
    for length in (256, 300, 1000):
        assert errno_of(beyond, pair.here / ("m" * length)) == "ENAMETOOLONG"
    if call in ("create", "rename"):
        assert errno_of(beyond, pair.here / ("m" * (limit + 1))) == "ENAMETOOLONG"


@pytest.mark.parametrize("length", [251, 255])
def test_names_too_long_for_containers_are_for_everything_but_new_files(pair: SideBySide, length: int) -> None:
    for number, make_one in enumerate((os.mkdir, os.mkfifo, lambda path: path.symlink_to("x"))):
        assert errno_of(make_one, pair.here / (str(number) * length)) is None
        assert str(number) * length in os.listdir(pair.here)
    (pair.here / "there").write_bytes(b"content")
    for refused in (Path.touch, lambda path: os.link(pair.here / "there", path), (pair.here / "there").rename):
        assert errno_of(refused, pair.here / ("f" * length)) == "ENAMETOOLONG"
    assert errno_of(os.stat, pair.here / ("g" * length)) == "ENOENT"


def test_a_raw_file_with_a_name_too_long_for_a_container_stays_raw(pair: SideBySide) -> None:
    name = "r" * 253
    in_backing = pair.mount.backing / pair.here.name / name
    in_backing.write_bytes(b"raw")  # made in BACKING itself
    with (pair.here / name).open("ab") as file:
        file.write(b" and more")
    assert in_backing.read_bytes() == b"raw and more"
    (pair.here / name).write_bytes(b"new")
    assert in_backing.read_bytes() == b"new"


def test_names_may_have_any_bytes_but_slash_and_nul(pair: SideBySide) -> None:
    names = [bytes([i]) for i in range(1, 256) if i not in b"/."]
    names += [bytes(range(1, 47)) + bytes(range(48, 250)), b"...", b".hidden", b"a\nb", b"-rf", b" ", b"\xff\xfe.tmp"]

    def work(directory: Path) -> object:
        top = os.fsencode(directory)
        for name in names:
            with open(os.path.join(top, name), "wb") as file:
                file.write(b"content of " + name)
        pair.mount.sync()
        os.mkdir(os.path.join(top, b"d\xff"))
        for name in names[:10]:
            os.rename(os.path.join(top, name), os.path.join(top, b"d\xff", name))
        found = {}
        for above, _, files in os.walk(top):
            for name in files:
                with open(os.path.join(above, name), "rb") as file:
                    found[os.path.relpath(os.path.join(above, name), top)] = file.read()
        return found

    assert len(pair.both(work)) == len(set(names))


def test_a_name_that_ends_in_the_suffix_is_a_name_like_others_for_files(pair: SideBySide) -> None:
    def work(directory: Path) -> object:
        (directory / "x.qatc").write_bytes(b"one")
        (directory / "x").write_bytes(b"two")
        (directory / ".qatc").write_bytes(b"three")
        pair.mount.sync()
        (directory / "x.qatc").rename(directory / "y.qatc.qatc")
        return tree(directory)

    pair.both(work)


@pytest.mark.slow
def test_a_directory_of_100_000_entries_is_listed_completely_while_entries_come_and_go(tmp_path: Path) -> None:
    steady = {f"steady{i:06}" for i in range(100_000)}
    stored = tmp_path / "backing" / "d"
    stored.mkdir(parents=True)
    for name in steady:
        (stored / name).touch()
    with mounted(tmp_path) as mount:
        directory = mount.path / "d"
        done = threading.Event()

        def come_and_go() -> None:
            number = 0
            while not done.is_set():
                (directory / f"fleeting{number}").touch()
                (directory / f"fleeting{number}").rename(directory / f"fleeting{number}.moved")
                (directory / f"fleeting{number}.moved").unlink()
                number += 1

        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            listed = [entry.name for _ in range(2) for entry in os.scandir(directory)]
        finally:
            done.set()
            thread.join()
        counts = {name: listed.count(name) for name in listed[:3]}
        assert set(counts.values()) <= {1, 2}
        found = [name for name in listed if name in steady]
        assert len(found) == 2 * len(steady)
        assert set(found) == steady
        assert set(os.listdir(directory)) == steady


def test_a_hidden_private_directory_cannot_be_reached_or_made(posix_mount: Mounted) -> None:
    private = posix_mount.path / ".qatqfs"
    assert ".qatqfs" not in os.listdir(posix_mount.path)
    assert errno_of(os.stat, private) == "ENOENT"
    assert errno_of(os.stat, private / "lock") == "ENOENT"
    for call in (os.mkdir, os.mkfifo, lambda path: path.write_bytes(b""), lambda path: os.symlink("x", path)):
        assert errno_of(call, private) == "EPERM"
    drop_page_cache()
    assert ".qatqfs" not in os.listdir(posix_mount.path)


def test_an_absent_name_that_appears_is_found_at_once(pair: SideBySide) -> None:
    for i in range(20):
        path = pair.here / f"x{i}"
        assert errno_of(path.stat) == "ENOENT"
        (pair.here / "temporary").write_bytes(b"content")
        (pair.here / "temporary").rename(path)
        assert path.stat().st_size == 7
        time.sleep(0)
