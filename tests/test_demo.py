"""The README's first command does its main job."""

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "scripts" / "demo.py"


@pytest.mark.fuse
@pytest.mark.slow
def test_the_demo_compares_every_byte_and_shows_its_table() -> None:
    pytest.importorskip("lz4")
    pytest.importorskip("safetensors")
    done = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every byte came back as it was written." in done.stdout
