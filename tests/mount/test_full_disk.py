"""A backing directory on a filesystem that is really full."""

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounted import Mounted, errno_of, mounted

from qatqfs.mount import control

pytestmark = [pytest.mark.fuse, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a tmpfs")]

MIB = 1 << 20


@contextlib.contextmanager
def small_filesystem(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@contextlib.contextmanager
def filesystem_of_few_inodes(path: Path, image: Path) -> Iterator[Path]:
    """An ext4 of 200 inodes."""
    path.mkdir()
    with image.open("wb") as stream:
        stream.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "200", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def wait_until_committed(mount: Mounted) -> None:
    deadline = time.monotonic() + 60
    while any((mount.backing / ".qatqfs/staging").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any((mount.backing / ".qatqfs/staging").iterdir()), mount.log_text()


def test_a_full_disk_is_reported_to_the_writer_and_harms_no_other_file(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", "16m") as disk, mounted(tmp_path, backing=disk) as mount:
        kept = os.urandom(2 * MIB)
        (mount.path / "kept").write_bytes(kept)
        mount.sync()
        fd = os.open(mount.path / "large", os.O_CREAT | os.O_WRONLY)
        assert errno_of(lambda: [os.write(fd, os.urandom(MIB)) for _ in range(32)]) == "ENOSPC"
        assert (mount.path / "kept").read_bytes() == kept
        assert errno_of((mount.path / "more").write_bytes, os.urandom(MIB)) == "ENOSPC"
        os.close(fd)
        (mount.path / "large").unlink()
        deadline = time.monotonic() + 30  # what was being encoded of it is let go a moment later
        while errno_of((mount.path / "more").write_bytes, kept) == "ENOSPC" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (mount.path / "more").read_bytes() == kept
        mount.remount()
        assert (mount.path / "more").read_bytes() == kept


def test_programs_that_got_no_space_are_counted_and_the_log_says_once_a_minute_which(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", "4m") as disk, mounted(tmp_path, backing=disk) as mount:
        (mount.path / "directory").mkdir()
        fd = os.open(mount.path / "directory/two\nlines", os.O_CREAT | os.O_WRONLY)
        for _ in range(3):
            assert errno_of(lambda: [os.write(fd, os.urandom(MIB)) for _ in range(8)]) == "ENOSPC"
        os.close(fd)
        (line,) = (line for line in mount.log_text().splitlines() if " failed: No space left on device" in line)
        assert re.search(r" WARNING .*: directory/two\\nlines: write failed: .*; \d+ bytes are free", line)
        assert json.loads(control.query(mount.path, control.STATS))["no_space_errors"] >= 3


def test_what_cannot_be_committed_for_lack_of_space_is_served_and_committed_later(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", "16m") as disk, mounted(tmp_path, backing=disk) as mount:
        data = os.urandom(6 * MIB)
        filler = disk / ".qatqfs" / "filler"  # somebody else's, out of the mount's sight
        with (mount.path / "x").open("wb", buffering=0) as stream:
            stream.seek(MIB)  # not from front to back, or it would be encoded, and on the disk, before the sync
            stream.write(data[MIB:])
            stream.seek(0)
            stream.write(data[:MIB])
            with filler.open("wb", buffering=0) as rest:
                assert errno_of(lambda: [rest.write(bytes(64 << 10)) for _ in range(256)]) == "ENOSPC"
            with pytest.raises(OSError, match="No space left"):
                mount.sync()
        assert "stays in staging" in mount.log_text()
        assert (mount.path / "x").read_bytes() == data
        filler.unlink()
        wait_until_committed(mount)
        assert (mount.path / "x").read_bytes() == data
        assert mount.stored("x").stat().st_size > 6 * MIB


def test_a_backing_directory_made_read_only_under_the_mount_gives_erofs(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", "16m") as disk, mounted(tmp_path, backing=disk) as mount:
        (mount.path / "x").write_bytes(b"data")
        mount.sync()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=False)
        try:
            if os.statvfs(disk).f_flag & os.ST_RDONLY:
                assert errno_of((mount.path / "y").write_bytes, b"no") == "EROFS"
            assert (mount.path / "x").read_bytes() == b"data"
        finally:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        (mount.path / "z").write_bytes(b"again")
        assert (mount.path / "z").read_bytes() == b"again"


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4 (Debian package e2fsprogs)")
def test_a_disk_without_inodes_is_reported_in_time_and_loses_nothing(tmp_path: Path) -> None:
    with filesystem_of_few_inodes(tmp_path / "disk", tmp_path / "image") as disk:
        backing = disk / "backing"
        with mounted(tmp_path, backing=backing) as mount:
            contents: dict[str, bytes] = {}
            with contextlib.ExitStack() as stack:  # open to the end, so that all of them are dirty at once
                for i in range(200):
                    name, data = f"x{i}", b"content of %d" % i
                    try:
                        stream = stack.enter_context((mount.path / name).open("wb", buffering=0))
                        contents[name] = b""
                        stream.write(data)
                    except OSError as err:
                        errors = [err.errno]
                        break
                    contents[name] = data
                assert errors == [errno.ENOSPC]
                assert len(contents) > 30
                assert "ENOSPC" in [errno_of((mount.path / f"d{i}").mkdir) for i in range(5)]
            mount.sync()
            assert list((backing / ".qatqfs/staging").iterdir()) == []
            assert "could not be committed" not in mount.log_text()
            mount.remount()
            assert {name: (mount.path / name).read_bytes() for name in contents} == contents
