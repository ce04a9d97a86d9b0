"""The demo runs to its end, with and without a mount, shows what is stored, and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ml_dtypes")
pytest.importorskip("lz4.frame")
pytest.importorskip("safetensors")

DEMO = Path(__file__).parent.parent / "scripts" / "demo.py"


@pytest.mark.slow
@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.fuse, id="mount"), ["--no-mount"]])
def test_the_demo_shows_the_size_of_every_kind_of_file(tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, DEMO, "--dir", tmp_path, *options], capture_output=True, text=True, timeout=280, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^(\S+)(?: \(\d+ files\))? +(\S+) +([\d,]+) +([\d,]+)  0\.\d", done.stdout, re.MULTILINE)
    assert {dtype for _, dtype, _, _ in rows} == {"f32", "f16", "bf16"}
    assert all(int(stored.replace(",", "")) < int(raw.replace(",", "")) for _, _, raw, stored in rows)
    assert "Every byte came back as it was written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO, "--dir", tmp_path / "nowhere"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("demo: FAILED: ") and done.stderr.count("\n") == 1
