"""estimate: that it foretells what encode makes, from how much, and what it leaves out."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mounted import mounted
from samples import bf16_bytes, tree

from qatqfs.cli import surveying, trials
from qatqfs.cli.contents import Source

LEVELS = ("fast", "balanced", "small")


def f32_bytes(size: int, seed: int = 3) -> bytes:
    return np.random.default_rng(seed).normal(size=size // 4).astype("<f4").tobytes()


def repeated_rows(size: int, seed: int = 4) -> bytes:
    """bf16 rows that come again, where only a search for matches helps."""
    row = bf16_bytes(4096, seed)
    return (row * (size // len(row) + 1))[:size]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Files of several kinds, lengths and numbers of chunks."""
    directory = tmp_path / "dumps"
    (directory / "layers").mkdir(parents=True)
    (directory / "layers" / "0.bf16").write_bytes(bf16_bytes(700_001))
    (directory / "layers" / "1.bf16").write_bytes(repeated_rows(300_000))
    (directory / "layers" / "2.bf16").write_bytes(b"")
    (directory / "all.f32").write_bytes(f32_bytes(400_000))
    (directory / "block.bin").write_bytes(bf16_bytes(150_000))
    (directory / "other.bin").write_bytes(f32_bytes(150_000))
    (directory / "note").write_bytes(b"short")
    array = io.BytesIO()
    np.save(array, np.random.default_rng(5).normal(size=(500, 64)).astype(np.float16))
    (directory / "kv.npy").write_bytes(array.getvalue())
    return directory


def estimated(qatqfs, *arguments: str | Path, status: int = 0) -> dict:
    result = qatqfs("estimate", "--json", *arguments)
    assert result.status == status, result.err
    return json.loads(result.out)


def kinds(found: dict) -> dict[tuple[str, str], dict]:
    return {(kind["suffix"], kind["dtype"]): kind for kind in found["kinds"]}


@pytest.mark.parametrize("chunk_size", ["64K", "256K"])
def test_all_of_a_corpus_is_estimated_as_large_as_encode_makes_it(qatqfs, corpus, tmp_path, chunk_size):
    found = estimated(qatqfs, corpus, "--sample", "all", "--chunk-size", chunk_size)
    assert found["total"]["sampled_bytes"] == found["total"]["raw_bytes"]
    for level in LEVELS:
        encoded = 0
        for path in sorted(path for path in corpus.rglob("*") if path.is_file()):
            output = tmp_path / "encoded.qatc"
            options = ("--level", level, "--chunk-size", chunk_size)
            assert qatqfs("encode", path, "-o", output, *options).status == 0
            encoded += output.stat().st_size
        assert found["total"]["methods"][level]["bytes"] == pytest.approx(encoded, rel=0.005)


def test_zstd_is_what_zstd_makes_of_the_raw_bytes(qatqfs, corpus):
    found = kinds(estimated(qatqfs, corpus, "--sample", "all"))
    expected = len(zstandard.ZstdCompressor(level=3).compress((corpus / "all.f32").read_bytes()))
    assert found[".f32", "f32"]["methods"]["zstd -3"]["bytes"] == expected


def test_each_suffix_and_dtype_is_a_kind_of_its_own(qatqfs, corpus):
    found = kinds(estimated(qatqfs, corpus, "--level", "fast"))
    assert {kind: (each["files"], each["raw_bytes"]) for kind, each in found.items()} == {
        (".bf16", "bf16"): (3, 1_000_001),
        (".f32", "f32"): (1, 400_000),
        (".bin", "bf16"): (1, 150_000),
        (".bin", "f32"): (1, 150_000),
        (".npy", "f16"): (1, (corpus / "kv.npy").stat().st_size),
        ("no suffix", "bf16"): (1, 5),
    }


def test_a_rule_and_an_attribute_say_the_dtype(qatqfs, corpus):
    found = kinds(estimated(qatqfs, corpus, "--dtype", "other.bin=f16", "--dtype", "layers/0.*=f16"))
    assert found[".bin", "f16"]["files"] == 1
    assert found[".bf16", "f16"]["files"] == 1
    try:
        os.setxattr(corpus / "layers", b"user.qatqfs.dtype", b"f16")
    except OSError:
        pytest.skip("no extended attributes here")
    found = kinds(estimated(qatqfs, corpus, "--dtype", "0.bf16=bf16"))
    assert found[".bf16", "f16"]["files"] == 3


def test_a_sample_is_no_longer_than_was_asked_and_its_length_is_told(qatqfs, tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.bf16").write_bytes(bf16_bytes(500_000, seed=i))
    found = estimated(qatqfs, tmp_path, "--sample", "2M", "--level", "fast")
    assert found["total"]["raw_bytes"] == 10_000_000
    assert 1 << 20 < found["total"]["sampled_bytes"] <= 2 << 20
    assert 1 < found["total"]["sampled_files"] < 20
    text = qatqfs("estimate", tmp_path, "--sample", "2M", "--level", "fast").out
    assert f"Sampled {found['total']['sampled_bytes'] / 2**20:.1f} MiB of 9.5 MiB" in text


def test_a_sample_of_a_mixed_tree_comes_near_to_the_whole(qatqfs, tmp_path):
    for i in range(12):
        content = bf16_bytes(1_000_000, seed=i) if i % 3 else repeated_rows(1_000_000, seed=i)
        (tmp_path / f"{i}.bf16").write_bytes(content)
    whole = estimated(qatqfs, tmp_path, "--sample", "all", "--level", "fast")
    sampled = estimated(qatqfs, tmp_path, "--sample", "6M", "--level", "fast")
    ratios = [found["total"]["methods"]["fast"]["ratio"] for found in (whole, sampled)]
    assert ratios[1] == pytest.approx(ratios[0], rel=0.1)


def test_when_the_time_is_over_what_was_not_reached_is_told(qatqfs, corpus):
    found = estimated(qatqfs, corpus, "--seconds", "0.000001", "--level", "fast")
    sampled = [kind for kind in found["kinds"] if kind["sampled_bytes"]]
    assert len(sampled) == 1
    assert found["not_reached_bytes"] == found["total"]["raw_bytes"] - sampled[0]["raw_bytes"]
    assert found["total"]["methods"]["fast"]["bytes"] == sampled[0]["methods"]["fast"]["bytes"]
    text = qatqfs("estimate", corpus, "--seconds", "0.000001").out
    assert "Not reached in time" in text and "--seconds" in text


def test_only_the_levels_that_are_asked_for_are_tried(qatqfs, corpus):
    methods = estimated(qatqfs, corpus, "--level", "balanced", "--level", "fast")["total"]["methods"]
    assert list(methods)[:3] == ["fast", "balanced", "zstd -3"]


def test_without_lz4_its_column_is_left_out_and_that_is_told(qatqfs, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    found = estimated(qatqfs, corpus, "--level", "fast")
    assert list(found["total"]["methods"]) == ["fast", "zstd -3"] and not found["lz4_installed"]
    text = qatqfs("estimate", corpus, "--level", "fast").out
    assert "LZ4" not in text and "lz4 is left out" in text


def test_speeds_are_told_of_enough_bytes_alone(qatqfs, tmp_path):
    (tmp_path / "long.bf16").write_bytes(bf16_bytes(2 << 20))
    (tmp_path / "short.f32").write_bytes(f32_bytes(4096))
    found = kinds(estimated(qatqfs, tmp_path, "--level", "fast"))
    assert found[".bf16", "bf16"]["methods"]["fast"]["encode_mb_per_s"] > 0
    assert found[".bf16", "bf16"]["methods"]["fast"]["decode_mb_per_s"] > 0
    assert found[".f32", "f32"]["methods"]["fast"]["encode_mb_per_s"] is None


def test_nothing_is_written_and_a_pipe_sees_no_progress(qatqfs, corpus):
    before = {name: (corpus / name).stat().st_mtime_ns for name in tree(corpus)}
    result = qatqfs("estimate", corpus, "--level", "fast")
    assert (result.status, result.err) == (0, "")
    assert {name: (corpus / name).stat().st_mtime_ns for name in tree(corpus)} == before


def test_a_terminal_sees_how_far_it_is(tmp_path):
    pty = pytest.importorskip("pty")
    import termios

    (tmp_path / "x.bf16").write_bytes(bf16_bytes(4 << 20))
    command = [sys.executable, "-m", "qatqfs.cli", "estimate", tmp_path, "--level", "small"]  # it takes seconds
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=slave) as running:
        os.close(slave)
        seen = b""
        with contextlib.suppress(OSError):  # Linux says EIO when the other side is closed
            while part := os.read(master, 4096):
                seen += part
    os.close(master)
    assert running.returncode == 0
    assert b"sampling:" in seen and b"%" in seen


def test_very_many_small_files_are_drawn_from_without_a_list_of_all_pieces():
    files = [surveying.RawFile(str(i), 1000, surveying.DType.BF16) for i in range(200_000)]
    group = surveying.Group(".bin", surveying.DType.BF16, files)
    (sample,) = trials.plan([group], [trials.zstd3()], 10_000_000, 256 << 10)
    numbers = sorted(int(piece.file.path) for piece in sample.pieces)
    assert len(numbers) == len(set(numbers)) == 10_000
    assert numbers[0] < 1000 and numbers[-1] > 199_000


def test_symlinks_and_special_files_are_left_alone(qatqfs, tmp_path):
    (tmp_path / "outside.f32").write_bytes(f32_bytes(4096))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "x.bf16").write_bytes(bf16_bytes(1000))
    (tmp_path / "tree" / "link.f32").symlink_to("../outside.f32")
    (tmp_path / "tree" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "tree" / "fifo")
    assert list(kinds(estimated(qatqfs, tmp_path / "tree"))) == [(".bf16", "bf16")]


def test_containers_are_counted_apart_whatever_they_are_called(qatqfs, tmp_path):
    (tmp_path / "x.bf16").write_bytes(bf16_bytes(1000))
    for name in ("a.qatc", "renamed.bin"):
        assert qatqfs("encode", tmp_path / "x.bf16", "-o", tmp_path / name).status == 0
    size = (tmp_path / "a.qatc").stat().st_size
    found = estimated(qatqfs, tmp_path)
    assert found["containers"] == {"files": 2, "bytes": 2 * size}
    assert found["total"]["files"] == 1
    assert "Left out: 2 containers" in qatqfs("estimate", tmp_path).out


def test_the_private_directory_of_a_store_is_not_looked_into(qatqfs, tmp_path):
    (tmp_path / ".qatqfs" / "staging").mkdir(parents=True)
    (tmp_path / ".qatqfs" / "format").write_text("1\n")
    (tmp_path / ".qatqfs" / "staging" / "x.f32").write_bytes(f32_bytes(4096))
    (tmp_path / "x.bf16").write_bytes(bf16_bytes(1000))
    assert estimated(qatqfs, tmp_path)["total"]["files"] == 1


def test_where_there_is_nothing_to_estimate_that_is_said(qatqfs, tmp_path):
    result = qatqfs("estimate", tmp_path)
    assert (result.status, result.out) == (0, "There are no raw files.\n")
    assert estimated(qatqfs, tmp_path)["kinds"] == []


def test_a_path_that_does_not_exist_is_refused_and_the_others_are_estimated(qatqfs, corpus):
    result = qatqfs("estimate", corpus / "nowhere", corpus / "all.f32", "--level", "fast")
    assert result.status == 2
    assert result.error == f"{corpus / 'nowhere'}: No such file or directory"
    assert ".f32" in result.out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told_and_counted(qatqfs, corpus):
    (corpus / "all.f32").chmod(0)
    result = qatqfs("estimate", corpus)
    assert result.status == 2 and result.error == f"{corpus / 'all.f32'}: Permission denied"
    assert "Left out: 1 file that could not be read, 390.6 KiB." in result.out
    assert ".f32" not in result.out


@pytest.mark.parametrize("name", ["all.f32", "other.bin"], ids=["while it is sampled", "while its dtype is found"])
def test_a_file_whose_reading_fails_is_told_and_counted(qatqfs, corpus, monkeypatch, name):
    read_at = Source.read_at

    def failing(source: Source, offset: int, size: int) -> bytes:
        if source.path.endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), source.path)
        return read_at(source, offset, size)

    monkeypatch.setattr(Source, "read_at", failing)
    raw = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file() and path.name != name)
    found = estimated(qatqfs, corpus, "--level", "fast", status=2)
    assert found["unreadable"] == {"files": 1, "bytes": (corpus / name).stat().st_size}
    assert found["total"]["raw_bytes"] == raw


def test_a_file_that_becomes_shorter_is_told_and_left_out(qatqfs, corpus, monkeypatch):
    read_at = Source.read_at

    def short(source: Source, offset: int, size: int) -> bytes:
        return read_at(source, offset, size)[: 1000 if source.path.endswith("all.f32") else size]

    monkeypatch.setattr(Source, "read_at", short)
    result = qatqfs("estimate", corpus, "--level", "fast")
    assert result.status == 2
    assert result.error == f"{corpus / 'all.f32'}: became shorter while it was read"
    assert ".f32" not in result.out


def test_odd_names_are_shown_on_one_line(qatqfs, tmp_path):
    (tmp_path / "a.x\ny").write_bytes(bf16_bytes(1000))
    (tmp_path / os.fsdecode(b"b.\xff\x1b[31m")).write_bytes(bf16_bytes(2000))
    out = qatqfs("estimate", tmp_path, "--level", "fast").out
    assert ".x\\ny" in out and "\\xff\\x1b[31m" in out and "\x1b" not in out


def test_very_many_suffixes_are_put_together(qatqfs, tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "_MOST_SUFFIXES", 3)
    for i in range(8):
        (tmp_path / f"x.{i}").write_bytes(bf16_bytes(1000 * (i + 1), seed=i))
    found = kinds(estimated(qatqfs, tmp_path, "--dtype", "*=bf16"))
    assert {suffix: kind["files"] for (suffix, _), kind in found.items()} == {".7": 1, ".6": 1, "other": 6}


def test_files_beyond_those_looked_into_have_the_dtype_of_a_neighbour(qatqfs, tmp_path, monkeypatch):
    monkeypatch.setattr(surveying, "_MOST_LOOKS", 2)
    for i in range(6):
        (tmp_path / f"{i}.bin").write_bytes(f32_bytes(100_000, seed=i))
    found = estimated(qatqfs, tmp_path)
    assert found["guessed_dtypes"] == 4
    assert {kind: each["files"] for kind, each in kinds(found).items()} == {(".bin", "f32"): 6}
    assert "Dtype assumed to be that of a neighbour: 4 files." in qatqfs("estimate", tmp_path, "--level", "fast").out


def test_pieces_are_drawn_from_all_over_a_long_file(monkeypatch):
    file = surveying.RawFile("x", 64 << 20, surveying.DType.BF16)
    group = surveying.Group(".bf16", surveying.DType.BF16, [file])
    (sample,) = trials.plan([group], [trials.zstd3()], 16 << 20, 256 << 10)
    offsets = [piece.offset for piece in sample.pieces]
    assert len(offsets) == len(set(offsets)) >= 8
    assert min(offsets) < 16 << 20 and max(offsets) >= 48 << 20
    assert all(offset % (256 << 10) == 0 for offset in offsets)
    assert sum(piece.size for piece in sample.pieces) <= 16 << 20


@pytest.mark.parametrize("sample", ["0", "much"])
def test_a_sample_of_no_size_is_refused(qatqfs, corpus, sample):
    result = qatqfs("estimate", corpus, "--sample", sample)
    assert result.status == 2 and "--sample" in result.error


@pytest.mark.fuse
def test_files_in_a_mount_are_estimated_as_the_raw_files_they_are(qatqfs, tmp_path):
    with mounted(tmp_path) as mount:
        (mount.path / "x.bf16").write_bytes(bf16_bytes(300_000))
        found = estimated(qatqfs, mount.path)
    assert found["total"]["raw_bytes"] == 300_000
