"""Makes helper modules of this directory and of the fuzzer importable; lets a test run on each instruction set."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qatqfs.codec import _native

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent.parent / "scripts"))


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, in use during the test."""
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set(_native.instruction_sets()[-1])
