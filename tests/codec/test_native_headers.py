"""The extension compiles without a warning, on x86 and on ARM, and each of its headers does so alone."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent.parent.parent / "qatqfs" / "codec" / "native"
INCLUDE = Path(sysconfig.get_path("include"))
OPTIONS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"]


def problems(compiler: str, *arguments: str) -> str:
    """Return what the compiler says, nothing if it has no objections; skips the test where there is no such one."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    done = subprocess.run([compiler, *arguments], input="", capture_output=True, text=True, check=False)
    return done.stderr or f"status {done.returncode}" * (done.returncode != 0)


@pytest.mark.parametrize("header", sorted(path.name for path in NATIVE.glob("*.h")))
def test_a_header_compiles_alone(header: str) -> None:
    options = [*OPTIONS, "-fsyntax-only", "-Wno-unused-function"]
    assert problems("gcc", *options, f"-I{INCLUDE}", "-include", str(NATIVE / header), "-x", "c", "-") == ""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_extension_compiles_without_a_warning(compiler: str) -> None:
    assert problems(compiler, *OPTIONS, f"-I{INCLUDE}", "-S", "-o", "/dev/null", str(NATIVE / "module.c")) == ""


def test_the_extension_compiles_for_arm_without_a_warning(tmp_path: Path) -> None:
    """With the Python headers of this machine, which differ in no size from those of a 64-bit ARM."""
    (tmp_path / "aarch64-linux-gnu").symlink_to("/usr/include/x86_64-linux-gnu")  # where Debian has pyconfig.h
    options = [*OPTIONS, f"-I{INCLUDE}", f"-I{tmp_path}", "-idirafter", "/usr/include", "-S", "-o", "/dev/null"]
    assert problems("aarch64-linux-gnu-gcc", *options, str(NATIVE / "module.c")) == ""


def test_no_file_of_the_extension_is_above_500_lines() -> None:
    assert {p.name: n for p in NATIVE.iterdir() if (n := len(p.read_text().splitlines())) > 500} == {}
