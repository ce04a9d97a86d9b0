"""The reference's public fixtures, generated here: the bytes are its own, and every strategy keeps them."""

from pathlib import Path

import numpy as np
import pytest
import strict_decoder
from public_fixtures import FIXTURES

from qatqfs.codec import STRATEGIES, DType, Level, decode_payload, encode_payload

COUNTS = {name: int(np.prod([int(n) for n in name.rpartition("-")[2].split("x")])) for name in list(FIXTURES)[:3]}


@pytest.mark.parametrize("name", FIXTURES)
def test_a_fixture_is_the_file_of_the_reference(name: str, shared_data: Path) -> None:
    expected = np.fromfile(shared_data / "vectors" / f"fixture-{name}.f32le", "<u4")
    found = np.frombuffer(FIXTURES[name](), "<u4")
    assert len(found) == len(expected) == COUNTS.get(name, 4096)
    # The sine and cosine of another C library may round otherwise, which shows in the last bit that is kept.
    differing = np.count_nonzero(found != expected)
    assert differing == 0 if "wave" not in name else differing < len(found) / 100


@pytest.mark.parametrize("strategy", [s.id for s in STRATEGIES.values() if DType.F32 in s.dtypes])
@pytest.mark.parametrize("name", FIXTURES)
def test_every_strategy_keeps_a_fixture(name: str, strategy: int) -> None:
    raw = FIXTURES[name]()
    encoded = encode_payload(raw, DType.F32, level=Level.FAST, strategy=strategy)
    assert decode_payload(encoded) == raw
    assert strict_decoder.decode_payload(encoded) == ("f32", raw)
