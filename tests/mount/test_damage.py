"""Damaged containers: EIO where the damage is, everything else readable, one line in the log."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from mounted import QATQFS, drop_page_cache, errno_of, mounted

pytestmark = pytest.mark.fuse

CHUNK = 65536
DATA = b"".join(bytes((i * j) % 251 for j in range(CHUNK)) for i in range(1, 6))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


def damage_chunk(container: Path, index: int) -> None:
    """Flip a bit in the middle of a chunk's data."""
    offset, number = 32, 0
    data = container.read_bytes()
    while number < index:
        offset += 4 + int.from_bytes(data[offset : offset + 4], "big")
        number += 1
    length = int.from_bytes(data[offset : offset + 4], "big")
    flip(container, offset + 4 + 36 + (length - 36) // 2)


def prepared(mount) -> None:
    (mount.path / "x").write_bytes(DATA)
    mount.remount()
    assert mount.stop() == 0
    damage_chunk(mount.stored("x"), 2)
    drop_page_cache()
    mount.start()


def test_a_damaged_chunk_fails_and_its_neighbours_do_not(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        prepared(mount)
        fd = os.open(mount.path / "x", os.O_RDONLY | os.O_DIRECT)
        os.close(fd)
        fd = os.open(mount.path / "x", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(2):
            for index in (0, 1, 3, 4):
                assert os.pread(fd, CHUNK, index * CHUNK) == DATA[index * CHUNK : (index + 1) * CHUNK]
            assert errno_of(os.pread, fd, 4096, 2 * CHUNK + 8192) == "EIO"
        os.close(fd)
        lines = [line for line in mount.log_text().splitlines() if "is damaged: " in line]
        assert len(lines) == 1
        assert "x: chunk 2 (logical offset 131072, stored offset " in lines[0]
        assert (mount.path / "x").stat().st_size == len(DATA)


def test_the_log_and_verify_say_in_the_same_words_which_chunk_is_damaged(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        prepared(mount)
        assert errno_of((mount.path / "x").read_bytes) == "EIO"
        (logged,) = (line for line in mount.log_text().splitlines() if "is damaged: " in line)
    verify = subprocess.run([*QATQFS, "verify", mount.stored("x")], capture_output=True, text=True, check=False)
    assert verify.returncode == 1
    said = verify.stdout.splitlines()[0].removeprefix(f"{mount.stored('x')}: ")
    assert said.startswith("chunk 2 (logical offset 131072, stored offset ")
    assert logged.endswith(f"]: x: {said}")


def test_a_damaged_file_can_be_replaced_and_truncated(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        prepared(mount)
        assert errno_of((mount.path / "x").read_bytes) == "EIO"
        (mount.path / "x").write_bytes(b"good again")
        mount.sync()
        assert (mount.path / "x").read_bytes() == b"good again"


def test_a_container_repaired_in_place_with_its_old_mtime_is_good_at_the_next_open(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K") as mount:
        (mount.path / "x").write_bytes(DATA)
        mount.remount()
        good, st = mount.stored("x").read_bytes(), mount.stored("x").stat()
        assert mount.stop() == 0
        damage_chunk(mount.stored("x"), 2)
        os.utime(mount.stored("x"), ns=(st.st_atime_ns, st.st_mtime_ns))
        mount.start()
        with (mount.path / "x").open("rb") as kept_open:
            for _ in range(2):
                assert errno_of((mount.path / "x").read_bytes) == "EIO"
            with mount.stored("x").open("r+b") as file:
                file.write(good)
            os.utime(mount.stored("x"), ns=(st.st_atime_ns, st.st_mtime_ns))
            assert (mount.path / "x").read_bytes() == DATA
            assert kept_open.read() == DATA


def test_with_on_corrupt_enoent_a_known_damaged_file_looks_absent(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K", "--on-corrupt", "enoent") as mount:
        prepared(mount)
        assert errno_of((mount.path / "x").read_bytes) == "EIO"
        mount.remount()
        with pytest.raises(OSError, match="Input/output"):
            (mount.path / "x").read_bytes()
        assert errno_of((mount.path / "x").read_bytes) == "ENOENT"
        assert os.listdir(mount.path) == []
        fd = os.open(mount.path / "x", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(fd, b"new")
        os.close(fd)
        assert (mount.path / "x").read_bytes() == b"new"


def test_a_file_made_by_mknod_takes_the_place_of_a_hidden_damaged_one(tmp_path: Path) -> None:
    with mounted(tmp_path, "--chunk-size", "64K", "--on-corrupt", "enoent") as mount:
        prepared(mount)
        path = mount.path / "x"
        assert errno_of(path.read_bytes) == "EIO"
        assert errno_of(path.read_bytes) == "ENOENT"
        os.mknod(path)
        assert path.stat().st_size == 0
        path.write_bytes(b"new")
        mount.sync()
        assert path.read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"", b"QATC", b"not a container at all" * 100, b"QATC\2\4\0\0" + b"\xff" * 64])
def test_what_is_no_container_is_listed_and_fails_to_open(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "backing").mkdir()
    (tmp_path / "backing/bad.qatc").write_bytes(content)
    with mounted(tmp_path) as mount:
        assert os.listdir(mount.path) == ["bad"]
        for _ in range(3):
            assert errno_of((mount.path / "bad").read_bytes) == "EIO"
        assert mount.log_text().count("bad: not a readable QATC container") == 1
        (mount.path / "good").write_bytes(b"the mount lives")
        (mount.path / "bad").unlink()
        assert os.listdir(mount.path) == ["good"]


def test_no_flipped_bit_is_ever_served(tmp_path: Path) -> None:
    data = bytes(i * i % 256 for i in range(3001))
    with mounted(tmp_path, "--chunk-size", "1K") as mount:
        (mount.path / "x").write_bytes(data)
    container = tmp_path / "backing/x.qatc"
    good = container.read_bytes()
    names = []
    for offset in range(0, len(good), 3):
        bad = bytearray(good)
        bad[offset] ^= 1 << (offset % 8)
        names.append(f"bad{offset}")
        (tmp_path / f"backing/{names[-1]}.qatc").write_bytes(bad)
    with mounted(tmp_path) as mount:
        for name in names:
            served = None
            with contextlib.suppress(OSError):
                served = (mount.path / name).read_bytes()
            assert served in (None, data), name
        assert (mount.path / "x").read_bytes() == data
