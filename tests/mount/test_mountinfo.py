import os

from qatqfs.mount import mountinfo

LINES = r"""22 1 254:0 / / rw,relatime - ext4 /dev/root rw
36 22 0:32 / /mnt/a\040b rw,nosuid shared:1 master:2 - fuse.qatqfs /data/k\054v rw,user_id=1000,group_id=100,allow_other
38 22 0:32 /d\040e /mnt/bound rw - fuse.qatqfs /data/k\054v rw
37 22 0:33 / /mnt/c rw - fuse.other src rw
broken line
"""


def test_optional_fields_and_escapes_are_understood() -> None:
    root, ours, bound, other = mountinfo.parse(LINES)
    assert (root.mountpoint, root.device, root.filesystem, root.owner) == ("/", "254:0", "ext4", None)
    assert ours == mountinfo.Mount("/mnt/a b", "0:32", "fuse.qatqfs", "/data/k,v", "/", (1000, 100))
    assert (bound.root, bound.owner) == ("/d e", None)
    assert other.filesystem == "fuse.other"


def test_this_machines_own_table_can_be_read() -> None:
    assert any(mount.mountpoint == "/" for mount in mountinfo.mounts())


def test_an_ordinary_directory_is_in_no_mount_of_ours(tmp_path) -> None:
    assert mountinfo.containing(str(tmp_path)) is None
    assert mountinfo.mounted_at(str(tmp_path)) is None
    assert not mountinfo.is_dead(str(tmp_path))
    assert mountinfo.resolve(str(tmp_path / "x" / "..")) == os.path.realpath(tmp_path)
