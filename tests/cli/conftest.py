"""Two ways to run the command: in this process, and as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qatqfs.cli.main import run

sys.path.insert(0, str(Path(__file__).parent))  # helper modules beside the tests


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error."""
        assert self.err.startswith("qatqfs: ") and self.err.count("\n") == 1, self.err
        return self.err.removeprefix("qatqfs: ").rstrip("\n")


Qatqfs = Callable[..., Result]


@pytest.fixture
def qatqfs(capsys: pytest.CaptureFixture[str]) -> Qatqfs:
    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        status = run([os.fspath(argument) for argument in arguments])
        return Result(status, *capsys.readouterr())

    return call


HEAVY = {"numpy", "zstandard", "pyfuse3", "trio", "cachetools", "tqdm"}


@pytest.fixture
def heavy_imports() -> Callable[..., set[str]]:
    """Run the command as a process; returns which packages it imported of those that take long."""

    def call(*arguments: str | Path, **environment: str) -> set[str]:
        command = [sys.executable, "-X", "importtime", "-m", "qatqfs.cli", *map(os.fspath, arguments)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        imported = {line.rpartition("|")[2].strip() for line in lines}
        assert "qatqfs.cli.main" in imported, done.stderr
        return {name.partition(".")[0] for name in imported} & HEAVY

    return call


@pytest.fixture
def process() -> Qatqfs:
    def call(*arguments: str | Path, **settings: object) -> Result:
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        command = [sys.executable, "-m", "qatqfs.cli", *map(os.fspath, arguments)]
        done = subprocess.run(command, text=True, timeout=60, **settings)  # type: ignore[call-overload]
        return Result(done.returncode, done.stdout or "", done.stderr or "")

    return call
