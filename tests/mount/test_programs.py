"""Programs that people run, unmodified, on a mount."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounted import Mounted, drop_page_cache, mounted

pytestmark = pytest.mark.fuse

DEBIAN_PACKAGES = {"rsync": "rsync", "fio": "fio", "git": "git", "setfacl": "acl", "sqlite3": "sqlite3"}


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program} (Debian package {DEBIAN_PACKAGES.get(program, program)})")


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a program that has to succeed; returns what it printed."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def many_files(top: Path) -> Path:
    """A tree with all kinds of files, names, times, modes and holes that tools have to carry over."""
    source = top / "source"
    generator = random.Random(1)
    for number in range(60):
        path = source / f"d{number % 7}" / ("sub" * (number % 3)) / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(generator.randbytes(generator.choice((0, 1, 5000, 65_536, 300_001))))
        path.chmod(generator.choice((0o600, 0o644, 0o755, 0o440)))
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number + 1))
    with (source / "sparse").open("wb") as file:
        file.truncate(20 << 20)
        file.seek(10 << 20)
        file.write(b"island" * 1000)
    (source / "link").symlink_to("d0/file 0")
    (source / "dangling").symlink_to("/nowhere/at all")
    os.mkfifo(source / "fifo", 0o620)
    for name in ("link", "dangling", "fifo"):
        os.utime(source / name, ns=(10**18, 10**18), follow_symlinks=False)
    with open(os.fsencode(source) + b"/\xff\xfe\n", "wb") as file:
        file.write(b"strange name")
    os.setxattr(source / "sparse", "user.note", b"with a hole")
    os.setxattr(source / "d1", "user.note", b"on a directory")
    if shutil.which("setfacl"):
        run("setfacl", "-m", "u:54321:rw,g:54322:r", source / "d0" / "file 0")
        run("setfacl", "-d", "-m", "u:54321:rx", source / "d2")
    for directory in sorted(source.rglob("*"), reverse=True):
        if directory.is_dir() and not directory.is_symlink():
            os.utime(directory, ns=(10**18, 10**18 + 5))
    return source


def listing(top: Path) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for above, directories, files in os.walk(os.fsencode(top)):
        for name in directories + files:
            path = os.path.join(above, name)
            st = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            names = sorted(os.listxattr(path, follow_symlinks=False))
            values = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
            key = os.path.relpath(path, os.fsencode(top))
            found[key] = (oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, values, content)
    return found


def same_after_remount(mount: Mounted, copy: Path, source: Path) -> None:
    assert listing(copy) == listing(source)
    mount.remount()
    drop_page_cache()
    assert listing(copy) == listing(source)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return many_files(tmp_path)


def test_rsync_there_and_back_with_acls_and_xattrs(tmp_path: Path, source: Path) -> None:
    need("rsync")
    with mounted(tmp_path) as mount:
        copy = mount.path / "copy"
        options = ("-aAX", "--checksum", "--specials", "--sparse")
        run("rsync", *options, f"{source}/", copy)
        mount.sync()
        assert run("rsync", *options, "--dry-run", "--itemize-changes", "--delete", f"{source}/", copy) == ""
        same_after_remount(mount, copy, source)
        (copy / "sparse").write_bytes(b"changed")
        run("rsync", *options, "--inplace", "--no-whole-file", "--no-sparse", f"{source}/", copy)
        run("rsync", *options, f"{copy}/", tmp_path / "back")
        assert listing(tmp_path / "back") == listing(source)


def test_rsync_needs_no_checksum_to_see_that_nothing_changed(tmp_path: Path, source: Path) -> None:
    need("rsync")
    with mounted(tmp_path) as mount:
        copy = mount.path / "copy"
        run("rsync", "-aAX", f"{source}/", copy)
        mount.remount()
        assert run("rsync", "-aAX", "--itemize-changes", "--delete", f"{source}/", copy) == ""


@pytest.mark.parametrize("sparse", [[], ["-S"]], ids=["tar", "tar -S"])
def test_tar_there_and_back(tmp_path: Path, source: Path, sparse: list[str]) -> None:
    options = (*sparse, "--format=posix", "--acls", "--xattrs", "--xattrs-include=*")
    with mounted(tmp_path) as mount:
        copy = mount.path / "copy"
        copy.mkdir()
        run("tar", "-c", *options, "-f", mount.path / "one.tar", "-C", source, ".")
        run("tar", "-x", *options, "-p", "-f", mount.path / "one.tar", "-C", copy)
        assert run("tar", "-d", *options, "-f", mount.path / "one.tar", "-C", copy) == ""
        run("tar", "-c", *options, "-f", mount.path / "two.tar", "-C", copy, ".")
        same_after_remount(mount, copy, source)
        (tmp_path / "back").mkdir()
        run("tar", "-x", *options, "-p", "-f", mount.path / "two.tar", "-C", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(source)


def test_tar_does_not_complain_of_files_that_are_committed_while_it_reads_them(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        for number in range(40):
            (mount.path / f"x{number}").write_bytes(os.urandom(400_000))
        result = subprocess.run(
            ["tar", "-cf", tmp_path / "x.tar", "-C", mount.path, "."], capture_output=True, text=True
        )
        assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("option", ["--sparse=always", "--sparse=auto", "--reflink=auto", "--attributes-only"])
def test_cp_keeps_everything(tmp_path: Path, source: Path, option: str) -> None:
    with mounted(tmp_path) as mount:
        run("cp", "-a", option, source, mount.path / "copy")
        if option == "--attributes-only":
            assert (mount.path / "copy" / "sparse").stat().st_size == 0
            return
        run("cp", "-a", option, mount.path / "copy", tmp_path / "back")
        same_after_remount(mount, mount.path / "copy", source)
        assert mount.stored("copy/sparse").stat().st_size < 1 << 20
    assert listing(tmp_path / "back") == listing(source)


def test_setfacl_and_getfacl(tmp_path: Path) -> None:
    need("setfacl")
    with mounted(tmp_path) as mount:
        plain = tmp_path / "plain"
        for top in (mount.path, plain):
            (top / "d").mkdir(parents=True)
            run("setfacl", "-m", "u:54321:rwx,g:54322:r,m::rx", "d", cwd=top)
            run("setfacl", "-d", "-m", "u:54321:rw,o::-", "d", cwd=top)
            (top / "d" / "x").write_bytes(b"content")
            (top / "d" / "x").chmod(0o640)
            run("setfacl", "-x", "g:54322", "d", cwd=top)
        mount.remount()
        shown = [run("getfacl", "-R", "-n", "d", cwd=top) for top in (mount.path, plain)]
        # The umask applies here in addition to the default ACL; chmod has made up for it.
        assert shown[0] == shown[1]


def test_git_clone_fsck_and_work(tmp_path: Path) -> None:
    need("git")
    git = ("git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "gc.auto=0")
    origin = tmp_path / "origin"
    origin.mkdir()
    run(*git, "init", "-q", "-b", "main", cwd=origin)
    for number in range(30):
        (origin / f"file{number}").write_bytes(random.Random(number).randbytes(20_000))
        run(*git, "add", ".", cwd=origin)
        run(*git, "commit", "-q", "-m", f"commit {number}", cwd=origin)
    with mounted(tmp_path) as mount:
        clone = mount.path / "clone"
        run(*git, "clone", "-q", origin, clone)
        run(*git, "fsck", "--full", "--strict", cwd=clone)
        mount.sync()
        assert run(*git, "status", "--porcelain", cwd=clone) == ""
        (clone / "file1").write_bytes(b"changed")
        run(*git, "commit", "-q", "-a", "-m", "a change", cwd=clone)
        run(*git, "gc", "-q", "--aggressive", "--prune=now", cwd=clone)
        run(*git, "clone", "-q", clone, mount.path / "second")
        mount.remount()
        for repository in (clone, mount.path / "second"):
            run(*git, "fsck", "--full", "--strict", cwd=repository)
            assert run(*git, "status", "--porcelain", cwd=repository) == ""
            assert run(*git, "log", "--format=%s", "-1", cwd=repository) == "a change\n"


# -- databases -------------------------------------------------------------------------------------------

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
database.execute("pragma journal_mode=" + sys.argv[2])
database.execute("pragma synchronous=" + sys.argv[3])
database.execute("create table if not exists t (n integer primary key, data blob)")
(n,) = database.execute("select coalesce(max(n), 0) from t").fetchone()
while True:
    database.execute("begin immediate")
    for _ in range(3):
        n += 1
        database.execute("insert into t values (?, ?)", (n, bytes([n % 256]) * (n * 37 % 9000)))
    if n % 5 == 0:
        database.execute("delete from t where n in (select n from t where n % 11 = 0 and n < ? limit 5)", (n,))
        database.execute("update t set data = data where n > ?", (n - 20,))
    database.execute("commit")
    print(n, flush=True)
"""


def check_database(path: Path, acknowledged: int) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
        (highest,) = database.execute("select max(n) from t").fetchone()
        assert acknowledged <= highest <= acknowledged + 3
        for number, data in database.execute("select n, data from t"):
            assert data == bytes([number % 256]) * (number * 37 % 9000)


def last_acknowledged(output: str) -> int:
    lines = output.split("\n")[:-1]
    return int(lines[-1]) if lines else 0


@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
@pytest.mark.parametrize("victim", ["client", "daemon"])
def test_a_database_is_whole_after_its_client_or_the_daemon_was_killed(
    tmp_path: Path, victim: str, journal: str
) -> None:
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        path = mount.path / "db"
        for turn in range(3):
            with (tmp_path / "acknowledged").open("w+") as output:
                writer = subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(path), journal, "normal"],
                    stdout=output,
                    stderr=subprocess.DEVNULL,
                )
                time.sleep(0.7 + 0.3 * turn)
                if victim == "daemon":
                    mount.kill()
                    assert writer.wait(timeout=60) != 0
                    mount.start()
                else:
                    writer.kill()
                    writer.wait()
                output.seek(0)
                acknowledged = last_acknowledged(output.read())
            assert acknowledged > 0
            check_database(path, acknowledged)
        mount.remount()
        check_database(path, acknowledged)
        if shutil.which("sqlite3"):
            assert run("sqlite3", path, "pragma integrity_check") == "ok\n"


def test_two_clients_share_a_database(tmp_path: Path) -> None:
    code = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for _ in range(100):
    database.execute("update t set n = n + 1")
"""
    with mounted(tmp_path) as mount:
        path = mount.path / "db"
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("create table t (n integer)")
            database.execute("insert into t values (0)")
            database.commit()
            clients = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
            assert [client.wait() for client in clients] == [0, 0]
            assert database.execute("select n from t").fetchall() == [(200,)]


# -- fio -------------------------------------------------------------------------------------------------

FIO_JOBS = {
    "psync": ("--ioengine=psync", "--bsrange=1k-64k"),
    "mmap": ("--ioengine=mmap", "--bs=4k"),
    "O_DIRECT": ("--ioengine=libaio", "--direct=1", "--iodepth=8", "--bs=4k"),
    "O_DIRECT, large": ("--ioengine=psync", "--direct=1", "--bs=1m"),
    "fsync": ("--ioengine=psync", "--bs=16k", "--fsync=4"),
}


@pytest.mark.parametrize("job", FIO_JOBS)
def test_fio_verifies_random_writes(tmp_path: Path, job: str) -> None:
    need("fio")
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        common = (
            "fio", "--name=job", f"--directory={mount.path}", "--size=8m", "--rw=randwrite", "--numjobs=2",
            "--verify=crc32c", "--verify_fatal=1", "--thread", "--randseed=1", *FIO_JOBS[job],
        )  # fmt: skip
        run(*common, "--do_verify=1", cwd=tmp_path)
        mount.remount()
        drop_page_cache()
        run(*common, "--verify_only=1", cwd=tmp_path)
