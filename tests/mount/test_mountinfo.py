import os

from qatqfs.mount import mountinfo

LINES = r"""22 1 254:0 / / rw,relatime - ext4 /dev/root rw
36 22 0:32 / /mnt/a\040b rw,nosuid shared:1 master:2 - fuse.qatqfs /data/k\054v rw,user_id=0
37 22 0:33 / /mnt/c rw - fuse.other src rw
broken line
"""


def test_optional_fields_and_escapes_are_understood() -> None:
    root, ours, other = mountinfo.parse(LINES)
    assert (root.mountpoint, root.device, root.filesystem) == ("/", "254:0", "ext4")
    assert ours == mountinfo.Mount("/mnt/a b", "0:32", "fuse.qatqfs", "/data/k,v")
    assert other.filesystem == "fuse.other"


def test_this_machines_own_table_can_be_read() -> None:
    assert any(mount.mountpoint == "/" for mount in mountinfo.mounts())


def test_an_ordinary_directory_is_in_no_mount_of_ours(tmp_path) -> None:
    assert mountinfo.containing(str(tmp_path)) is None
    assert mountinfo.mounted_at(str(tmp_path)) is None
    assert not mountinfo.is_dead(str(tmp_path))
    assert mountinfo.resolve(str(tmp_path / "x" / "..")) == os.path.realpath(tmp_path)
