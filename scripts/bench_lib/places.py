"""Filesystems to compare with, which are mounted for a benchmark and removed after it."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_QATQFS = Path(sys.executable).with_name("qatqfs")
_START_SECONDS = 30


def qatqfs(*arguments: object) -> None:
    """Run a qatqfs command that has to succeed."""
    subprocess.run([_QATQFS, *map(str, arguments)], check=True)


@contextlib.contextmanager
def qatqfs_mount(backing: Path, mountpoint: Path, *options: str) -> Iterator[Path]:
    """A qatqfs mount; at the end everything is committed."""
    qatqfs("mount", *options, backing, mountpoint)
    try:
        yield mountpoint
    finally:
        qatqfs("umount", mountpoint)


@contextlib.contextmanager
def passthrough_mount(backing: Path, mountpoint: Path) -> Iterator[Path]:
    """A mount of :mod:`bench_lib.passthrough`."""
    with passthrough_daemon(backing, mountpoint):
        yield mountpoint


@contextlib.contextmanager
def passthrough_daemon(backing: Path, mountpoint: Path) -> Iterator[int]:
    """A mount of :mod:`bench_lib.passthrough`; yields the id of its process."""
    program = Path(__file__).with_name("passthrough.py")
    process = subprocess.Popen([sys.executable, program, backing, mountpoint])
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not os.path.ismount(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the pass-through filesystem did not start")
            time.sleep(0.02)
        yield process.pid
    finally:
        subprocess.run(["fusermount3", "-u", "--", mountpoint], check=False)
        process.wait()


def btrfs_possible() -> bool:
    """Whether a btrfs on a loop device can be made here."""
    return os.geteuid() == 0 and shutil.which("mkfs.btrfs") is not None and os.path.exists("/dev/loop-control")


@contextlib.contextmanager
def btrfs_mount(image: Path, mountpoint: Path, *, size: int, compress: str) -> Iterator[Path]:
    """A new btrfs in a file of ``size`` bytes, on a loop device."""
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", f"loop,compress-force={compress}", image, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)
        image.unlink()


def drop_caches() -> None:
    """Write everything to disk and drop the page cache, where that is allowed (proc_sys_vm(5))."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")


def syncfs(directory: Path) -> None:
    """Return once everything in the filesystem of a directory is on disk; raises OSError."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(fd)
