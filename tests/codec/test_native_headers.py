"""Every header of the extension compiles alone, without a warning: it includes what it uses."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent.parent.parent / "qatqfs" / "codec" / "native"
COMPILER = shutil.which("gcc") or shutil.which("cc")


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
@pytest.mark.parametrize("header", sorted(path.name for path in NATIVE.glob("*.h")))
def test_a_header_compiles_alone(header: str) -> None:
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
    include = f"-I{sysconfig.get_path('include')}"
    command = [str(COMPILER), "-fsyntax-only", *options, include, "-include", str(NATIVE / header), "-x", "c", "-"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_file_of_the_extension_is_above_500_lines() -> None:
    assert {p.name: n for p in NATIVE.iterdir() if (n := len(p.read_text().splitlines())) > 500} == {}
