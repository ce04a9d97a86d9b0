"""Files that the reference codec wrote decode to its bytes, and files that it refuses are refused.

A subset lies in tests/data; all of them are taken from the shared data where there is some.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from codec_twins import read_at

from qatqfs.codec import (
    Container,
    DType,
    Level,
    QatcError,
    decode_any_payload,
    decode_container,
    decode_payload,
    encode_payload,
    read_payload_header,
)
from qatqfs.codec.strategies import predictor

PACKED_RUNS = 6  # the last strategy that needs no zstd
HERE = Path(__file__).parent.parent / "data" / "vectors"
MANIFEST = json.loads((HERE / "manifest.json").read_text())
# The reference's messages begin like ours; where a 16-bit chunk is at fault it hides the reason.
HIDDEN_REASONS = ("exact payload body is invalid", "chunked container has mixed", "failed to read")


def has_clear_reason(entry: dict) -> bool:
    return entry["kind"] == "qatq" and not entry["error"].startswith(HIDDEN_REASONS) and "mode" not in entry["name"]


def decode_in_chunks(data: bytes) -> bytes:
    found = Container.open(read_at(data), len(data))
    return b"".join(found.read_chunk(i) for i in range(found.chunk_count))


def check_good(data: bytes, entry: dict) -> None:
    if entry["kind"] == "qatq":
        raw, dtype = decode_any_payload(data)
        assert dtype.label == entry["dtype"]
        assert hashlib.sha256(raw).hexdigest() == entry["sha256_decoded"]
    else:
        raw = decode_container(data)
        assert hashlib.sha256(raw).hexdigest() == entry["sha256_decoded"]
        assert decode_in_chunks(data) == raw
        assert Container.open(read_at(data), len(data)).length == len(raw)


def check_bad(data: bytes, kind: str) -> None:
    with pytest.raises(QatcError):
        decode_payload(data) if kind == "qatq" else decode_container(data)


@pytest.mark.parametrize("entry", MANIFEST["good"], ids=lambda e: e["name"])
def test_a_good_vector_decodes_to_the_bytes_of_the_reference(entry: dict) -> None:
    check_good((HERE / entry["name"]).read_bytes(), entry)


@pytest.mark.parametrize("entry", MANIFEST["bad"], ids=lambda e: e["name"])
def test_a_bad_vector_is_refused(entry: dict) -> None:
    check_bad((HERE / entry["name"]).read_bytes(), entry["kind"])


@pytest.mark.parametrize("entry", MANIFEST["bad"], ids=lambda e: e["name"])
def test_a_bad_vector_is_refused_with_an_error_of_the_right_class(entry: dict) -> None:
    """One of those that the reference's command and its library give, or the one that its command hides."""
    data = (HERE / entry["name"]).read_bytes()
    with pytest.raises(QatcError) as caught:
        decode_payload(data) if entry["kind"] == "qatq" else decode_container(data)
    assert type(caught.value).__name__ in entry["classes"]


@pytest.mark.parametrize("entry", [e for e in MANIFEST["bad"] if has_clear_reason(e)], ids=lambda e: e["name"])
def test_a_bad_payload_is_refused_for_the_reason_the_reference_gives(entry: dict) -> None:
    with pytest.raises(QatcError) as caught:
        decode_payload((HERE / entry["name"]).read_bytes())
    said = str(caught.value).replace("residual scale is", "phase1 residual scale is")
    assert said.replace(" bytes,", ",").startswith(entry["error"].replace(" bytes,", ","))


def is_written_by_the_reference(entry: dict) -> bool:
    return entry["kind"] == "qatq" and entry["mode"] == "qatq-exact" and not entry["name"].startswith("x-")


@pytest.mark.parametrize(
    "entry",
    [e for e in MANIFEST["good"] if is_written_by_the_reference(e) and e["strategy"] <= PACKED_RUNS],
    ids=lambda e: e["name"],
)
def test_without_zstd_the_same_strategy_gives_the_bytes_of_the_reference(entry: dict) -> None:
    expected = (HERE / entry["name"]).read_bytes()
    header = read_payload_header(expected)
    assert encode_payload(decode_payload(expected), header.dtype, strategy=header.strategy) == expected


@pytest.mark.parametrize("name", ["seed0", "n1", "n2", "n3", "n4", "n5", "n8", "special"])
def test_the_predictor_gives_the_bytes_of_the_reference_for_any_seed(name: str) -> None:
    expected = (HERE / f"x-predictor-{name}.f32.qatq").read_bytes()
    seed = int.from_bytes(expected[36:44], "big")
    raw = np.frombuffer(decode_payload(expected), np.uint8)
    assert predictor.encode(raw, DType.F32, Level.FAST, seed) == expected[36:]
    assert predictor.scale(raw, seed) == read_payload_header(expected).scale


def test_every_shared_vector_behaves(shared_data: Path) -> None:
    vectors = shared_data / "vectors"
    manifest = json.loads((vectors / "manifest.json").read_text())
    for entry in manifest["good"]:
        check_good((vectors / entry["name"]).read_bytes(), entry)
    for entry in manifest["bad"]:
        check_bad((vectors / entry["name"]).read_bytes(), entry["kind"])


def test_mode_five_is_refused_by_name() -> None:
    data = bytearray((HERE / "mode-lossless-f32.qatq").read_bytes())
    data[5] = 5
    with pytest.raises(QatcError, match="turboquant"):
        decode_any_payload(data)


def test_lossy_i4_decodes_nibbles_times_scale() -> None:
    scale = bytes.fromhex("3f000000")  # 0.5
    data = b"QATQ\x01\x01\0\0" + (3).to_bytes(8, "big") + scale + bytes(8) + bytes([0x18, 0xF0])
    raw, dtype = decode_any_payload(data)
    assert raw.cast("f").tolist() == [-3.5, 0.0, 3.5]
    assert dtype.label == "f32"
