"""decode: whose files it restores, and that a bad one leaves nothing."""

import json
import os
import resource
import stat

import pytest
from samples import CHUNK, VECTORS, bf16_bytes, flip, sha256, tree

from qatqfs.codec import DType, Level, encode_container, encode_payload

MANIFEST = json.loads((VECTORS / "manifest.json").read_text())
SIZES = [0, 1, 2, 3, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2, 3 * CHUNK + 7]


def container(content: bytes, dtype: DType = DType.BF16) -> bytes:
    return encode_container(content, dtype, values_per_chunk=CHUNK // dtype.width, level=Level.FAST)


@pytest.mark.parametrize("vector", MANIFEST["good"], ids=lambda vector: vector["name"])
def test_what_the_reference_wrote_is_restored(qatqfs, tmp_path, vector):
    output = tmp_path / "out"
    assert qatqfs("decode", VECTORS / vector["name"], "-o", output).status == 0
    assert sha256(output) == vector["sha256_decoded"]


@pytest.mark.parametrize("vector", MANIFEST["bad"], ids=lambda vector: vector["name"])
def test_what_the_reference_refuses_is_refused(qatqfs, tmp_path, vector):
    source = VECTORS / vector["name"]
    result = qatqfs("decode", source, "-o", tmp_path / "out")
    assert result.status == 1 and result.out == ""
    assert result.error.startswith(f"{source}: ")
    assert tree(tmp_path) == set()


@pytest.mark.parametrize("size", SIZES)
def test_every_length_comes_back(qatqfs, tmp_path, size):
    source, stored, restored = (tmp_path / name for name in ("x", "x.qatc", "y"))
    source.write_bytes(bf16_bytes(size))
    assert qatqfs("encode", source, "-o", stored, "--chunk-size", str(CHUNK)).status == 0
    assert qatqfs("decode", stored, "-o", restored).status == 0
    assert restored.read_bytes() == bf16_bytes(size)


def test_suffixes_are_taken_off_in_the_output_directory(qatqfs, tmp_path):
    content = bf16_bytes(1000)
    (tmp_path / "a.bin.qatc").write_bytes(container(content))
    (tmp_path / "b.qatq").write_bytes(encode_payload(content, DType.F16))
    (tmp_path / "c.qatc.qatc").write_bytes(container(content))
    (tmp_path / "out").mkdir()
    inputs = [path for path in tmp_path.iterdir() if path.is_file()]
    result = qatqfs("decode", *inputs, "--output-dir", tmp_path / "out")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == dict.fromkeys(
        ("a.bin", "b", "c.qatc"), content
    )


def test_without_suffix_the_first_bytes_say_what_it_is(qatqfs, tmp_path):
    content = bf16_bytes(1000)
    (tmp_path / "x").write_bytes(container(content))
    (tmp_path / "y").write_bytes(encode_payload(content, DType.BF16))
    (tmp_path / "z.qatq").write_bytes(container(content))
    for name in ("x", "y", "z.qatq"):
        assert qatqfs("decode", tmp_path / name, "-o", tmp_path / "out").status == 0
        assert (tmp_path / "out").read_bytes() == content


def test_mode_and_mtime_are_those_of_the_input(qatqfs, tmp_path):
    source, output = tmp_path / "x.qatc", tmp_path / "x"
    source.write_bytes(container(b"abcd"))
    source.chmod(0o600)
    os.utime(source, ns=(1, 1_600_000_000_123_456_789))
    assert qatqfs("decode", source, "-o", output).status == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert output.stat().st_mtime_ns == 1_600_000_000_123_456_789


def test_the_others_are_decoded_when_one_is_bad(qatqfs, tmp_path):
    content = bf16_bytes(3 * CHUNK)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.qatc").write_bytes(container(content))
    flip(tmp_path / "b.qatc", 5000)
    (tmp_path / "readme").write_bytes(b"no container at all")
    (tmp_path / "out").mkdir()
    inputs = [tmp_path / name for name in ("a.qatc", "b.qatc", "missing.qatc", "readme", "c.qatc")]
    result = qatqfs("decode", *inputs, "--output-dir", tmp_path / "out")
    assert result.status == 1, "bad data weighs more than what could not be done"
    assert [line.split(": ")[1] for line in result.err.splitlines()] == [
        str(tmp_path / "readme"),
        str(tmp_path / "b.qatc"),
        str(tmp_path / "missing.qatc"),
    ]
    assert tree(tmp_path / "out") == {"a", "c"}


def test_a_raw_file_is_no_data_of_ours(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(bf16_bytes(1000))
    result = qatqfs("decode", tmp_path / "x", "-o", tmp_path / "y")
    assert result.status == 1
    assert result.error == f"{tmp_path / 'x'}: payload magic is not QATQ or QATC"


def test_a_payload_under_the_name_of_a_container_is_refused(qatqfs, tmp_path):
    (tmp_path / "x.qatc").write_bytes(encode_payload(b"abcd", DType.BF16))
    assert qatqfs("decode", tmp_path / "x.qatc", "-o", tmp_path / "x").status == 1
    assert tree(tmp_path) == {"x.qatc"}


def test_damage_in_the_last_chunk_leaves_nothing_and_the_old_output_untouched(qatqfs, tmp_path):
    stored = container(bf16_bytes(20 * CHUNK))
    (tmp_path / "x.qatc").write_bytes(stored)
    (tmp_path / "x").write_bytes(b"old")
    flip(tmp_path / "x.qatc", len(stored) - 500)
    assert qatqfs("decode", tmp_path / "x.qatc", "-o", tmp_path / "x").status == 1
    assert tree(tmp_path) == {"x.qatc", "x"} and (tmp_path / "x").read_bytes() == b"old"


def test_a_wrong_aggregate_checksum_alone_is_damage(qatqfs, tmp_path):
    path = tmp_path / "x.qatc"
    path.write_bytes(container(bf16_bytes(3 * CHUNK)))
    flip(path, 31)
    result = qatqfs("decode", path, "-o", tmp_path / "x")
    assert result.status == 1 and "checksum mismatch" in result.error
    assert tree(tmp_path) == {"x.qatc"}


def test_chunks_that_were_swapped_are_damage(qatqfs, tmp_path):
    """Each chunk is sound and equally long: only the aggregate checksum can tell."""
    stored = bytearray(encode_container(os.urandom(3 * CHUNK), DType.BF16, values_per_chunk=CHUNK // 2))
    size = 4 + int.from_bytes(stored[32:36], "big")
    assert stored[32:36] == stored[32 + size : 36 + size]
    stored[32 : 32 + 2 * size] = stored[32 + size : 32 + 2 * size] + stored[32 : 32 + size]
    (tmp_path / "x.qatc").write_bytes(stored)
    result = qatqfs("decode", tmp_path / "x.qatc", "-o", tmp_path / "x")
    assert result.status == 1 and "checksum mismatch" in result.error


@pytest.mark.parametrize("size", [1001, 5 * CHUNK, 5 * CHUNK + 1])
def test_no_flipped_byte_goes_unnoticed_and_verify_agrees(qatqfs, tmp_path, size):
    path = tmp_path / "x.qatc"
    stored = container(bf16_bytes(size))
    for offset in {*range(0, len(stored), 97), *range(80), *range(len(stored) - 120, len(stored))}:
        path.write_bytes(stored)
        flip(path, offset)
        decoded, verified = qatqfs("decode", path, "-o", tmp_path / "x"), qatqfs("verify", path)
        assert (decoded.status, verified.status) == (1, 1), offset
        assert tree(tmp_path) == {"x.qatc"}


def test_every_truncation_is_refused(qatqfs, tmp_path):
    path = tmp_path / "x.qatc"
    stored = container(bf16_bytes(2 * CHUNK + 1))
    for size in {*range(0, len(stored), 101), *range(80), *range(len(stored) - 120, len(stored))}:
        path.write_bytes(stored[:size])
        assert qatqfs("decode", path, "-o", tmp_path / "x").status == 1, size
        assert tree(tmp_path) == {"x.qatc"}


def test_a_full_disk_leaves_no_half_file(process, tmp_path):
    (tmp_path / "x.qatc").write_bytes(container(bf16_bytes(200_000)))

    def little_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    result = process("decode", tmp_path / "x.qatc", "-o", tmp_path / "x", preexec_fn=little_space)
    assert (result.status, result.error) == (2, f"{tmp_path / 'x'}: File too large")
    assert tree(tmp_path) == {"x.qatc"}


def test_the_input_is_never_its_own_output(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(container(b"abcd"))
    result = qatqfs("decode", tmp_path / "x", "-o", tmp_path / "x")
    assert result.status == 2 and result.error.endswith("input and output are the same file")


def test_memory_does_not_grow_with_the_file(process, tmp_path):
    source = tmp_path / "x.f32"
    with source.open("wb") as file:
        file.truncate(1 << 29)
    assert process("encode", source, "-o", tmp_path / "x.qatc", "--chunk-size", "1M", "--level", "fast").status == 0

    def little_memory():
        resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))

    result = process("decode", tmp_path / "x.qatc", "-o", tmp_path / "y", preexec_fn=little_memory)
    assert (result.status, result.err) == (0, "")
    assert (tmp_path / "y").stat().st_size == 1 << 29
