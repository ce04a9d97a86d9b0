"""Makes the helper modules of this directory importable, and lets a test run on each instruction set."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qatqfs.codec import _native

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=_native.instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, in use during the test."""
    _native.use_instruction_set(request.param)
    yield request.param
    _native.use_instruction_set(_native.instruction_sets()[-1])
