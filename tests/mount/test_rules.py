"""Rules meet the files of runtimes, which write a temporary name and rename."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mounted import mounted
from strict_decoder import decode_container

pytestmark = pytest.mark.fuse


def vllm(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}_3.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
    os.replace(temporary, path)


def sglang(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def lmcache(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, data)
    os.close(fd)
    os.rename(temporary, path)


def huggingface_hub(path: Path, data: bytes) -> None:
    temporary = path.with_name("0a1b2c.incomplete")
    with temporary.open("wb") as stream:
        stream.write(data)
    with tempfile.NamedTemporaryFile(dir=path.parent):
        mode = 0o640
    temporary.chmod(mode)
    shutil.move(temporary, path)


@pytest.mark.parametrize("write", [vllm, sglang, lmcache, huggingface_hub])
def test_a_rule_on_the_final_name_meets_what_runtimes_write(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    options = ["--raw", "*.pool", "--dtype", "*.bin=f16"]
    with mounted(tmp_path, *options) as mount:
        contents = {f"{i}.{kind}": os.urandom(100_000 + i) for i in range(20) for kind in ("pool", "bin")}
        for name, data in contents.items():
            write(mount.path / name, data)
        mount.sync()
        names = {path.name for path in mount.backing.iterdir() if path.is_file()}
        assert names == {name if name.endswith(".pool") else f"{name}.qatc" for name in contents}
        for name, data in contents.items():
            assert (mount.path / name).read_bytes() == data
            if name.endswith(".bin"):
                assert decode_container(mount.stored(name).read_bytes()).dtype == "f16"
        mount.remount()
        assert {name: (mount.path / name).read_bytes() for name in contents} == contents


def test_a_kill_between_writing_and_renaming_or_after_it_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path, "--raw", "*.pool") as mount:
        data = {f"{i}.pool": os.urandom(300_000) for i in range(8)}
        for name, content in data.items():
            vllm(mount.path / name, content)
        mount.kill()
        mount.start()
        assert {name: (mount.path / name).read_bytes() for name in data} == data
        mount.sync()
        assert {name: (mount.backing / name).read_bytes() for name in data} == data


def test_a_file_that_becomes_raw_while_it_is_open_and_mapped_stays_the_same_file(tmp_path: Path) -> None:
    with mounted(tmp_path, "--raw", "*.pool") as mount:
        with (mount.path / "x.tmp").open("w+b", buffering=0) as stream:
            stream.write(b"a" * 100_000)
            os.rename(mount.path / "x.tmp", mount.path / "x.pool")
            number = os.fstat(stream.fileno()).st_ino
            mount.sync()
            assert (mount.backing / "x.pool").read_bytes() == b"a" * 100_000
            stream.seek(50_000)
            stream.write(b"b" * 10)
            assert (mount.path / "x.pool").stat().st_ino == number
            assert (mount.path / "x.pool").read_bytes() == b"a" * 50_000 + b"b" * 10 + b"a" * 49_990
        assert (mount.backing / "x.pool").read_bytes()[49_999:50_011] == b"a" + b"b" * 10 + b"a"
