"""A mount works wherever it is started: with closed descriptors, any path, and next to nothing around it."""

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mounted import QATQFS, qatqfs_mountpoints

from qatqfs.mount import mountinfo

pytestmark = pytest.mark.fuse
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace of its own")

ANY_BYTES = [
    "ümlaut und Leerzeichen".encode(),
    b"\xff\xfe not UTF-8",
    b"comma, equals= back\\slash #hash 'quotes\" \\040",
    b"tab\tnewline\nreturn\r",
    b"\x85\x1c\x1d\x1e\x0b\x0c\x1b[31m",
    b"-o",
]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """BACKING and MOUNTPOINT for a daemon in the background, which is stopped at the end."""
    backing, mountpoint = tmp_path / "backing", tmp_path / "mnt"
    backing.mkdir()
    mountpoint.mkdir()
    yield backing, mountpoint
    unmount_all(tmp_path)


def unmount_all(base: Path) -> None:
    for mountpoint in qatqfs_mountpoints(base):
        subprocess.run([*QATQFS, "umount", "--", mountpoint], check=True, timeout=60)


def check_that_it_works(backing: Path, mountpoint: Path) -> None:
    """Write through a mount, unmount, and look for what was written."""
    assert qatqfs_mountpoints(mountpoint) == [str(mountpoint)]
    (mountpoint / "x").write_bytes(b"data" * 1000)
    unmount_all(mountpoint)
    assert (backing / "x.qatc").stat().st_size > 72


@pytest.mark.parametrize("foreground", [True, False], ids=["in front", "daemon"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_standard_descriptors_may_be_closed(places: tuple[Path, Path], closed: str, foreground: bool) -> None:
    options = " -f" if foreground else ""
    command = f"{shlex.join(QATQFS)} mount{options} {shlex.join(map(str, places))} {closed}"
    running = subprocess.Popen(["sh", "-c", command])
    if foreground:
        while not qatqfs_mountpoints(places[1]):
            assert running.poll() is None
    else:
        assert running.wait(timeout=60) == 0
    check_that_it_works(*places)
    assert running.wait(timeout=60) == 0


def test_a_refusal_with_closed_standard_error_has_its_status(places: tuple[Path, Path]) -> None:
    command = f"{shlex.join(QATQFS)} mount /does/not/exist {places[1]} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=60).returncode == 2


@pytest.mark.parametrize("name", ANY_BYTES, ids=range(len(ANY_BYTES)))
@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
def test_paths_may_have_any_bytes(tmp_path: Path, name: bytes, locale: str) -> None:
    base = tmp_path / os.fsdecode(name)
    backing, mountpoint = base / "backing", base / "mnt"
    backing.mkdir(parents=True)
    mountpoint.mkdir()
    try:
        result = subprocess.run(
            [*QATQFS, "mount", "--", backing, mountpoint],
            env=os.environ | {"LC_ALL": locale}, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        mount = mountinfo.mounted_at(str(mountpoint))
        assert mount is not None and mount.source == str(backing)
        check_that_it_works(backing, mountpoint)
    finally:
        unmount_all(tmp_path)


def test_inherited_descriptors_are_closed(places: tuple[Path, Path], tmp_path: Path) -> None:
    """Else ``$( ... )`` in a shell would wait for the daemon, and so would whoever wants a lock of the caller's."""
    readable, writable = os.pipe()
    locked = os.open(tmp_path / "locked", os.O_RDWR | os.O_CREAT)
    fcntl.flock(locked, fcntl.LOCK_EX)
    subprocess.run([*QATQFS, "mount", *map(str, places)], pass_fds=(writable, locked), check=True, timeout=60)
    os.close(writable)
    os.close(locked)
    os.set_blocking(readable, False)
    with os.fdopen(readable, "rb") as pipe:
        assert pipe.read() == b""  # its end, not: nothing yet
    with (tmp_path / "locked").open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    check_that_it_works(*places)


@pytest.mark.parametrize("options", [(), ("--read-only",)], ids=["read-write", "read-only"])
def test_no_environment_is_needed(places: tuple[Path, Path], options: Sequence[str]) -> None:
    result = subprocess.run(
        [*QATQFS, "mount", *options, *map(str, places)],
        env={}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert qatqfs_mountpoints(places[1]) == [str(places[1])]


BARE_SYSTEM = """
set -e
base=$1; shift
mount -t tmpfs none "$base"
mkdir "$base/backing" "$base/mnt" "$base/dev"
mknod "$base/dev/null" c 1 3; mknod "$base/dev/fuse" c 10 229; mknod "$base/dev/urandom" c 1 9
mount --bind "$base/dev" /dev
mkdir "$base/etc"; cp /etc/ld.so.cache "$base/etc"
mount --bind "$base/etc" /etc
for place in / /tmp /var/tmp /usr/tmp /home /root /run /var "$TMPDIR" /etc /dev; do
    mount -o remount,bind,ro "$place" 2>/dev/null || true
done
cd /
for place in /tmp /var/tmp "$TMPDIR" .; do
    if touch "$place/x" 2>/dev/null; then echo "$place is writable" >&2; exit 3; fi
done
test ! -e /etc/mtab; test ! -e /dev/log
mounted() {
    env -i PATH=/usr/bin:/bin "$@" mount $options "$base/backing" "$base/mnt"
    test "$(grep -c "$base/mnt fuse.qatqfs" /proc/mounts)" = 1
}
options=; mounted "$@"
echo content > "$base/mnt/x"
"$@" umount "$base/mnt"
options=--read-only; mounted "$@"
test "$(cat "$base/mnt/x")" = content
"$@" umount "$base/mnt"
test -s "$base/backing/x.qatc"
"""


@root_only
def test_a_read_only_system_without_log_mtab_and_temporary_directory_will_do(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BARE_SYSTEM, "sh", str(tmp_path), *QATQFS]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if "unshare failed" in result.stderr:
        pytest.skip("no mount namespace can be made here")
    assert result.returncode == 0, result.stderr
    assert all("nothing is logged" in line for line in result.stderr.splitlines()), result.stderr


def test_a_system_log_that_nobody_reads_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    code = (
        "import sys; from qatqfs.mount import logs; logs._SYSLOG = sys.argv[1];"
        "logs.set_up_logging('/', '/mnt', None, foreground=False, debug=False, read_only=True)"
    )
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=True, timeout=60, env=environment)


def test_in_front_with_closed_standard_error_the_log_is_the_daemons(places: tuple[Path, Path]) -> None:
    running = subprocess.Popen(["sh", "-c", f"{shlex.join(QATQFS)} mount -f {shlex.join(map(str, places))} 2>&-"])
    while not qatqfs_mountpoints(places[1]):
        assert running.poll() is None
    check_that_it_works(*places)
    assert running.wait(timeout=60) == 0
    assert "mounted" in (places[0] / ".qatqfs/log").read_text()
