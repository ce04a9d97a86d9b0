"""A filesystem with few inodes: they run out where a program hears of it, and never for a commit."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import FaultyIO, abandon
from helpers import read
from mounted import errno_of

from qatqfs.codec import Level
from qatqfs.store import Store, StoreOptions
from qatqfs.store.staging.space import SpaceLedger, worst_case
from qatqfs.store.system.files import Fd

OPTIONS = StoreOptions(idle_seconds=3600.0, workers=2, level=Level.FAST, chunk_size=4096)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount filesystems")


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A filesystem with some 200 inodes."""
    path = tmp_path / "disk"
    path.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=200", "tmpfs", path]
    else:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("no mkfs.ext4")
        image = tmp_path / "image"
        with image.open("wb") as stream:
            stream.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "200", image], check=True)
        command = ["mount", "-o", "loop", image, path]
    if subprocess.run(command, check=False).returncode != 0:
        pytest.skip(f"cannot mount {request.param}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def create_until_full(store: Store, prefix: bytes, stack: contextlib.ExitStack) -> dict[bytes, bytes]:
    """Write small files, open as long as the stack is, until there are no inodes; returns what was acknowledged."""
    contents: dict[bytes, bytes] = {}
    for i in range(1000):
        name = prefix + b"%d" % i
        if (error := errno_of(lambda name=name: stack.enter_context(store.create(name)).write(name, 0))) is None:
            contents[name] = name
            continue
        assert error == "ENOSPC"
        if name in store.list_names():
            contents[name] = b""
        return contents
    raise AssertionError("there was no end of inodes")


@needs_root
def test_what_was_written_until_the_inodes_were_used_up_can_be_committed(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        with contextlib.ExitStack() as stack:
            contents = create_until_full(store, b"f", stack)
        assert len(contents) > 30
        store.sync()
        assert "commit_failures" not in store.stats()
        assert {name: read(store, name) for name in contents} == contents


@needs_root
def test_it_can_be_committed_after_a_kill_and_by_another_daemon(disk: Path) -> None:
    io = FaultyIO()
    store = Store(disk, OPTIONS, io=io)
    with contextlib.ExitStack() as stack:
        contents = create_until_full(store, b"f", stack)
        abandon(store, io)  # before any file is closed: what a commit had made would stay open in this process
    with Store(disk, OPTIONS) as again:
        again.sync()
        assert {name: read(again, name) for name in contents} == contents
    with Store(disk, StoreOptions(read_only=True)) as store:
        assert store.recovered == 0


@needs_root
@pytest.mark.parametrize("kind", ["mkdir", "symlink", "mknod", "create"])
def test_whatever_else_takes_inodes_leaves_those_that_commits_need(disk: Path, kind: str) -> None:
    make = {
        "mkdir": lambda store, name: store.mkdir(name),
        "symlink": lambda store, name: store.symlink(name, b"target"),
        "mknod": lambda store, name: store.mknod(name, 0o10644),
        "create": lambda store, name: store.create(name).close(),
    }[kind]
    with Store(disk, OPTIONS) as store:
        handles = [store.create(b"dirty%d" % i) for i in range(10)]
        for handle in handles:
            handle.write(b"content", 0)
        assert "ENOSPC" in [errno_of(make, store, b"other%d" % i) for i in range(400)]
        store.sync()
        assert "commit_failures" not in store.stats()
        assert all(read(store, b"dirty%d" % i) == b"content" for i in range(10))


@needs_root
def test_statvfs_tells_how_many_files_can_be_made(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        before = store.statvfs().f_favail
        handle = store.create(b"x")
        handle.write(b"content", 0)
        assert store.statvfs().f_favail == before - 4  # its placeholder, data file and log, and what its commit needs
        store.unlink(b"x")
        handle.close()
        assert store.statvfs().f_favail == before


@needs_root
def test_files_that_were_removed_or_committed_make_room_for_others(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        for round_ in range(3):
            with contextlib.ExitStack() as stack:
                contents = create_until_full(store, b"r%d-" % round_, stack)
            store.sync()
            for name in contents:
                store.unlink(name)
        assert len(contents) > 30


@needs_root
def test_others_who_take_all_inodes_delay_commits_and_harm_nothing(disk: Path) -> None:
    with Store(disk, OPTIONS) as store:
        handle = store.create(b"x")
        handle.write(b"content", 0)
        others = disk / "others"
        os.mkdir(others)

        def take_all() -> None:
            for i in range(1000):
                (others / str(i)).touch()

        assert errno_of(take_all) == "ENOSPC"
        assert errno_of(store.sync) == "ENOSPC"
        assert read(store, b"x") == b"content"
        shutil.rmtree(others)
        store.sync()
        assert read(store, b"x") == b"content"


def test_a_filesystem_that_makes_inodes_as_it_needs_them_has_no_end_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs

    def like_btrfs(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[5:8] = [0, 0, 0]
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "fstatvfs", like_btrfs)
    with Store(tmp_path, OPTIONS) as store:
        with store.create(b"x") as handle:
            handle.write(b"content", 0)
        store.sync()
        assert store.statvfs().f_favail == 0
        assert read(store, b"x") == b"content"


def test_what_a_draft_has_is_not_reserved_and_comes_back_with_it(tmp_path: Path) -> None:
    ledger = SpaceLedger(Fd(os.open(tmp_path, os.O_RDONLY)))
    ledger.reserve(b"a", worst_case(0, 0))
    ledger.reserve(b"b", worst_case(5, 1))
    assert ledger.reserved_inodes == 2
    ledger.written(b"a", 32)
    assert ledger.reserved_inodes == 1
    ledger.written(b"a", 0)
    ledger.lower(b"b", 0)  # it is never going to be a container
    assert ledger.reserved_inodes == 1
    ledger.release(b"a")
    ledger.release(b"b")
    assert ledger.reserved_inodes == 0
