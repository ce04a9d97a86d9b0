"""File handles, which NFS servers keep: ESTALE once the kernel has forgotten the inode, never another file."""

import ctypes
import errno
import os
from pathlib import Path

import pytest
from mounted import drop_page_cache, mounted

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="open_by_handle_at(2) is for root"),
]

libc = ctypes.CDLL(None, use_errno=True)
_MOST_BYTES = 128


class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * _MOST_BYTES)]


def handle_of(path: Path) -> Handle:
    handle, mount_id = Handle(_MOST_BYTES, 0), ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0) != 0:
        pytest.skip(f"no file handles here: {os.strerror(ctypes.get_errno())}")
    return handle


def read_by(handle: Handle, mount: Path) -> bytes | str:
    """What the file of a handle holds, or the errno."""
    directory = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        opened = libc.open_by_handle_at(directory, ctypes.byref(handle), os.O_RDONLY)
        if opened < 0:
            return errno.errorcode[ctypes.get_errno()]
        with os.fdopen(opened, "rb") as file:
            return file.read()
    finally:
        os.close(directory)


def test_a_handle_leads_to_its_file_while_that_is_known_and_to_none_after_a_remount(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        (mount.path / "mine").write_bytes(b"mine")
        mount.remount()  # now its number is that of the container, which it will have again
        handle = handle_of(mount.path / "mine")
        held = os.open(mount.path / "mine", os.O_RDONLY)
        assert read_by(handle, mount.path) == b"mine"
        os.close(held)
        number = (mount.path / "mine").stat().st_ino
        mount.remount()
        assert (mount.path / "mine").stat().st_ino == number
        assert read_by(handle, mount.path) == "ESTALE"


def test_a_handle_of_a_removed_file_does_not_lead_to_one_that_got_its_number(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        path = mount.path / "f"
        path.write_bytes(b"old")
        handle, number = handle_of(path), path.stat().st_ino
        path.unlink()
        mount.sync()
        drop_page_cache()
        for i in range(200):
            (mount.path / f"f{i}").write_bytes(b"new")
            if (mount.path / f"f{i}").stat().st_ino == number:
                break
        else:
            pytest.skip("no inode number was used again")
        assert read_by(handle, mount.path) == "ESTALE"
