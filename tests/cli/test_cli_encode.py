"""encode: what it writes, for whom, and what it leaves when it fails."""

import os
import resource
import stat
from pathlib import Path

import pytest
from samples import CHUNK, bf16_bytes, flip, tree
from strict_decoder import decode_container

from qatqfs.cli import encode
from qatqfs.codec import MAX_CHUNKS

SIZES = [0, 1, 2, 3, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2, 3 * CHUNK + 7]


@pytest.mark.parametrize("dtype", [None, "f32", "f16", "bf16"])
@pytest.mark.parametrize("size", SIZES)
def test_a_strict_decoder_restores_every_length(qatqfs, tmp_path, size, dtype):
    source, output = tmp_path / "x", tmp_path / "x.qatc"
    content = bf16_bytes(size)
    source.write_bytes(content)
    options = ["--dtype", dtype] if dtype else []
    assert qatqfs("encode", source, "-o", output, "--chunk-size", str(CHUNK), *options).status == 0
    decoded = decode_container(output.read_bytes())
    assert decoded.raw == content + bytes(-size % (4 if decoded.dtype == "f32" else 2))
    assert len(decoded.chunk_values) == max(1, -(-size // CHUNK))
    if dtype is not None:
        assert decoded.dtype == dtype


@pytest.mark.parametrize("size", [5, 6, 7, CHUNK + 1])
def test_f32_of_any_length_is_padded_and_comes_back_as_it_was(qatqfs, tmp_path, size):
    content = bf16_bytes(size)
    (tmp_path / "x").write_bytes(content)
    result = qatqfs("encode", tmp_path / "x", "-o", tmp_path / "x.qatc", "--dtype", "f32")
    assert (result.status, result.err) == (0, "")
    decoded = decode_container((tmp_path / "x.qatc").read_bytes())
    assert (decoded.dtype, decoded.raw) == ("f32", content + bytes(-size % 4))
    assert qatqfs("verify", tmp_path / "x.qatc").status == 0
    assert qatqfs("decode", tmp_path / "x.qatc", "-o", tmp_path / "back").status == 0
    assert (tmp_path / "back").read_bytes() == content


def test_each_input_gets_the_suffix_in_the_output_directory(qatqfs, tmp_path):
    names = ["a.bin", "b.f16", "c.qatc"]
    for name in names:
        (tmp_path / name).write_bytes(bf16_bytes(1000))
    (tmp_path / "out").mkdir()
    result = qatqfs("encode", *(tmp_path / name for name in names), "--output-dir", tmp_path / "out")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert tree(tmp_path / "out") == {name + ".qatc" for name in names}
    for name in names:
        assert decode_container((tmp_path / "out" / f"{name}.qatc").read_bytes()).raw == bf16_bytes(1000)


def test_mode_and_mtime_are_those_of_the_input(qatqfs, tmp_path):
    source, output = tmp_path / "x", tmp_path / "y"
    source.write_bytes(b"abcd")
    source.chmod(0o640)
    os.utime(source, ns=(1_000_000_001, 2_000_000_000_123_456_789))
    assert qatqfs("encode", source, "-o", output).status == 0
    found = output.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_mtime_ns == 2_000_000_000_123_456_789
    assert source.read_bytes() == b"abcd"


def test_the_suffix_says_the_dtype(qatqfs, tmp_path):
    for name, dtype in (("x.f32", "f32"), ("x.f16", "f16"), ("x.bf16le", "bf16")):
        (tmp_path / name).write_bytes(bf16_bytes(64))
        assert qatqfs("encode", tmp_path / name, "-o", tmp_path / "y").status == 0
        assert decode_container((tmp_path / "y").read_bytes()).dtype == dtype


def test_an_attribute_on_a_directory_above_says_the_dtype(qatqfs, tmp_path):
    try:
        os.setxattr(tmp_path, b"user.qatqfs.dtype", b"f16")
    except OSError:
        pytest.skip("no extended attributes here")
    (tmp_path / "x").write_bytes(bf16_bytes(64))
    assert qatqfs("encode", tmp_path / "x", "-o", tmp_path / "y").status == 0
    assert decode_container((tmp_path / "y").read_bytes()).dtype == "f16"
    assert qatqfs("encode", tmp_path / "x", "-o", tmp_path / "y", "--dtype", "f32").status == 0
    assert decode_container((tmp_path / "y").read_bytes()).dtype == "f32"


def test_the_level_reaches_the_encoder(qatqfs, tmp_path):
    source = tmp_path / "x.bf16"
    source.write_bytes(b"".join(i.to_bytes(2, "little") for i in range(30_000)))  # "fast" looks for no differences
    sizes = {}
    for level in ("fast", "small"):
        assert qatqfs("encode", source, "-o", tmp_path / level, "--level", level, "--chunk-size", "1M").status == 0
        sizes[level] = (tmp_path / level).stat().st_size
    assert sizes["small"] < 0.8 * sizes["fast"]


def test_an_existing_output_is_replaced(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(b"abcd")
    (tmp_path / "y").write_bytes(b"something else that was there")
    assert qatqfs("encode", tmp_path / "x", "-o", tmp_path / "y").status == 0
    assert decode_container((tmp_path / "y").read_bytes()).raw == b"abcd"


def test_a_symlink_in_place_of_the_output_is_followed(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(b"abcd")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "y").symlink_to("elsewhere/real")
    assert qatqfs("encode", tmp_path / "x", "-o", tmp_path / "y").status == 0
    assert (tmp_path / "y").is_symlink()
    assert decode_container((tmp_path / "elsewhere" / "real").read_bytes()).raw == b"abcd"


def test_names_as_long_as_names_can_be_work(qatqfs, tmp_path):
    source, output = tmp_path / "x", tmp_path / ("ü" * 125 + ".qatc")
    source.write_bytes(b"abcd")
    assert qatqfs("encode", source, "-o", output).status == 0
    assert decode_container(output.read_bytes()).raw == b"abcd"


@pytest.mark.parametrize("how", ["itself", "by another path", "hard link", "symlink"])
def test_the_input_is_never_its_own_output(qatqfs, tmp_path, how):
    source = tmp_path / "x"
    source.write_bytes(b"abcd")
    output = {"itself": source, "by another path": tmp_path / ".." / tmp_path.name / "x"}.get(how, tmp_path / "y")
    if how == "hard link":
        os.link(source, output)
    elif how == "symlink":
        output.symlink_to("x")
    before = tree(tmp_path)
    result = qatqfs("encode", source, "-o", output)
    assert result.status == 2
    assert result.error.endswith("input and output are the same file")
    assert source.read_bytes() == b"abcd" and tree(tmp_path) == before


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("directory", "is a directory"),
        ("/dev/null", "/dev/null: is not a regular file"),
        ("nowhere/y", "nowhere/y: No such file or directory"),
        ("x/y", "x/y: Not a directory"),
    ],
)
def test_outputs_that_cannot_be_are_refused(qatqfs, tmp_path, output, text):
    (tmp_path / "x").write_bytes(b"abcd")
    (tmp_path / "directory").mkdir()
    result = qatqfs("encode", tmp_path / "x", "-o", tmp_path / output)
    assert result.status == 2 and text in result.error
    assert tree(tmp_path) == {"x", "directory"}


def test_dev_null_survives(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(b"abcd")
    qatqfs("encode", tmp_path / "x", "-o", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_an_output_directory_must_exist(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(b"abcd")
    result = qatqfs("encode", tmp_path / "x", "--output-dir", tmp_path / "out")
    assert (result.status, result.error) == (2, f"{tmp_path / 'out'}: is not an existing directory")


def test_two_inputs_of_one_name_are_refused_before_anything_is_written(qatqfs, tmp_path):
    for directory in ("a", "b", "out"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "x").write_bytes(b"abcd")
    result = qatqfs("encode", tmp_path / "a" / "x", tmp_path / "b" / "x", "--output-dir", tmp_path / "out")
    assert result.status == 2
    assert f"would both become {tmp_path / 'out' / 'x.qatc'}" in result.error
    assert tree(tmp_path / "out") == {"x"}


def test_the_others_are_encoded_when_one_input_cannot_be(qatqfs, tmp_path):
    (tmp_path / "x").write_bytes(b"abcd")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "fifo")
    inputs = [tmp_path / name for name in ("missing", "fifo", "out", "x")]
    result = qatqfs("encode", *inputs, "--output-dir", tmp_path / "out")
    assert result.status == 2
    assert result.err.splitlines() == [
        f"qatqfs: {tmp_path / 'missing'}: No such file or directory",
        f"qatqfs: {tmp_path / 'fifo'}: is not a regular file",
        f"qatqfs: {tmp_path / 'out'}: is a directory",
    ]
    assert tree(tmp_path / "out") == {"x.qatc"}


def test_a_full_disk_leaves_no_half_file_and_the_old_one_untouched(process, tmp_path):
    (tmp_path / "x").write_bytes(bf16_bytes(200_000))
    (tmp_path / "y").write_bytes(b"old")

    def little_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    result = process("encode", tmp_path / "x", "-o", tmp_path / "y", preexec_fn=little_space)
    assert (result.status, result.error) == (2, f"{tmp_path / 'y'}: File too large")
    assert tree(tmp_path) == {"x", "y"}
    assert (tmp_path / "y").read_bytes() == b"old"


def test_an_input_that_is_written_meanwhile_is_refused(qatqfs, tmp_path, monkeypatch):
    source = tmp_path / "x"
    source.write_bytes(bf16_bytes(1000))
    original = encode.write_container

    def write_too(*arguments, **settings):
        with source.open("ab") as file:
            file.write(b"more")
        return original(*arguments, **settings)

    monkeypatch.setattr(encode, "write_container", write_too)
    result = qatqfs("encode", source, "-o", tmp_path / "y")
    assert (result.status, result.error) == (2, f"{source}: was written to while it was being encoded; try again")
    assert tree(tmp_path) == {"x"}


def test_too_many_chunks_are_refused_before_any_work(qatqfs, tmp_path, monkeypatch):
    def worked(*arguments, **settings):
        pytest.fail("it was read")

    monkeypatch.setattr(encode.Source, "read_at", worked)
    source = tmp_path / "x"
    source.touch()
    os.truncate(source, 4 * 4096 * MAX_CHUNKS + 1)
    result = qatqfs("encode", source, "-o", tmp_path / "y", "--chunk-size", "4K")
    assert result.status == 2
    assert result.error == (
        f"{source}: 4194305 chunks of 4096 bytes, but at most 1048576 are allowed; use --chunk-size 32K or more"
    )
    assert tree(tmp_path) == {"x"}


def test_root_keeps_the_owner(qatqfs, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs to give files away")
    (tmp_path / "x").write_bytes(b"abcd")
    os.chown(tmp_path / "x", 1234, 4321)
    assert qatqfs("encode", tmp_path / "x", "-o", tmp_path / "y").status == 0
    found = (tmp_path / "y").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_what_was_encoded_is_found_damaged_when_it_is(qatqfs, tmp_path):
    source = tmp_path / "x"
    source.write_bytes(bf16_bytes(3 * CHUNK))
    output = Path(f"{source}.qatc")
    assert qatqfs("encode", source, "-o", output, "--chunk-size", str(CHUNK)).status == 0
    assert qatqfs("verify", output).status == 0
    flip(output, 2000)
    assert qatqfs("verify", output).status == 1
