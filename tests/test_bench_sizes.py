"""The benchmark of sizes measures every file it is given, and gives its figures as JSON."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

BENCH = Path(__file__).parent.parent / "scripts" / "bench.py"


def figures_of(*arguments: object) -> dict:
    command = [sys.executable, BENCH, "sizes", "--json", "--ours", "--rounds", "1", *arguments]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_files_of_a_directory_are_measured_one_by_one_and_together(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=30_000).astype("<f4")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.bin").write_bytes(values.tobytes())
    (tmp_path / "b.bin").write_bytes(values.astype("<f2").tobytes())
    (tmp_path / "empty").touch()
    figures = figures_of("--levels", "fast,balanced", tmp_path)
    assert [(each["file"], each["dtype"], each["bytes"]) for each in figures["files"]] == [
        ("b.bin", "f16", 60_000),
        ("a.bin", "f32", 120_000),
    ]
    together = figures["totals"]["all"]
    assert set(together) == {"qatqfs fast", "qatqfs balanced"}
    for name, sums in together.items():
        assert sums["bytes"] == sum(each["codecs"][name]["bytes"] for each in figures["files"])
        assert 0.5 < sums["share"] < 1
