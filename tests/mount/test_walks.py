"""A container that takes long to walk keeps the rest of a mount working, whatever a program does with it."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mounted import mounted

from qatqfs.codec import ContainerHeader, DType, encode_payload, fnv1a64

pytestmark = pytest.mark.fuse

CHUNKS = 300
DATA = b"\x3f\x80" * CHUNKS

PATIENT = """
import os, sys, time
from qatqfs.codec import reader

class Waits(reader.WalkedLayout):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        if len(self._starts) > 100:
            open(os.environ["WALK_BEGUN"], "w").close()
            while not os.path.exists(os.environ["WALK_ON"]):
                time.sleep(0.01)

reader.WalkedLayout = Waits
from qatqfs.cli.main import main
sys.exit(main())
"""


def tiny_chunks() -> bytes:
    payload = encode_payload(b"\x3f\x80", DType.BF16)
    body = (len(payload).to_bytes(4, "big") + payload) * CHUNKS
    return ContainerHeader(CHUNKS, CHUNKS, fnv1a64(body)).pack() + body


def write(path: Path) -> None:
    with (path / "tiny").open("r+b") as file:
        file.write(b"\x3f")


def create_over(path: Path) -> None:
    os.close(os.open(path / "tiny", os.O_CREAT | os.O_WRONLY))


NEED_A_WALK: dict[str, Callable[[Path], object]] = {
    "read": lambda path: (path / "tiny").read_bytes(),
    "write": write,
    "create": create_over,
    "truncate": lambda path: os.truncate(path / "tiny", len(DATA) - 1),
}


def use_others(path: Path) -> None:
    (path / "other").write_bytes(b"abc")
    (path / "other").rename(path / "another")
    assert (path / "another").read_bytes() == b"abc"
    (path / "directory").mkdir()
    assert os.listdir(path / "directory") == []
    (path / "another").unlink()
    (path / "directory").rmdir()


@pytest.mark.parametrize("needs", NEED_A_WALK.values(), ids=NEED_A_WALK)
def test_other_files_are_served_while_a_container_is_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs: Callable[[Path], object]
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go on"
    monkeypatch.setenv("WALK_BEGUN", str(begun))
    monkeypatch.setenv("WALK_ON", str(go_on))
    with mounted(tmp_path, program=[sys.executable, "-c", PATIENT]) as mount, ThreadPoolExecutor(2) as threads:
        (mount.backing / "tiny.qatc").write_bytes(tiny_chunks())
        try:
            walk = threads.submit(needs, mount.path)
            while not begun.exists():
                assert not walk.done()
            threads.submit(use_others, mount.path).result(20)
            assert not walk.done()
        finally:
            go_on.touch()
        walk.result(20)
        assert DATA.startswith((mount.path / "tiny").read_bytes())


def test_names_and_sizes_take_no_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = tmp_path / "begun"
    monkeypatch.setenv("WALK_BEGUN", str(begun))
    monkeypatch.setenv("WALK_ON", "/")
    with mounted(tmp_path, program=[sys.executable, "-c", PATIENT]) as mount:
        tiny = mount.path / "tiny"
        (mount.backing / "tiny.qatc").write_bytes(tiny_chunks())
        assert [entry.stat().st_size for entry in os.scandir(mount.path)] == [len(DATA)]
        os.link(tiny, mount.path / "again")
        tiny.chmod(0o600)
        os.utime(tiny, (1, 1))
        assert tiny.rename(mount.path / "renamed").stat().st_size == len(DATA)
        (mount.path / "again").unlink()
        assert not begun.exists()
        assert (mount.path / "renamed").read_bytes() == DATA
        assert begun.exists()
