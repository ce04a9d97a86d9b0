"""info: what it says about files and directories, from headers alone."""

import json
import os

import pytest
from samples import CHUNK, VECTORS, bf16_bytes, flip

from qatqfs.codec import DType, Level, empty_container, encode_container, encode_payload
from qatqfs.store import Store, StoreOptions

KEYS = {
    *("path", "kind", "logical_bytes", "stored_bytes", "ratio", "dtype", "chunks", "chunk_size_bytes"),
    *("indexed", "strategies"),
}


@pytest.fixture
def info(qatqfs):
    def call(*paths):
        result = qatqfs("info", "--json", *paths)
        assert (result.status, result.err) == (0, "")
        found = json.loads(result.out)
        assert set(found) == {"files", "total", "backings", "failed"} and found["failed"] == 0
        return found

    return call


@pytest.fixture
def files(info):
    return lambda *paths: info(*paths)["files"]


def test_a_container_with_an_index(files, tmp_path):
    path = tmp_path / "x.qatc"
    path.write_bytes(encode_container(bf16_bytes(3 * CHUNK + 1), DType.F16, values_per_chunk=CHUNK // 2))
    (found,) = files(path)
    assert set(found) == KEYS
    assert found["path"] == str(path) and found["kind"] == "container"
    assert found["logical_bytes"] == 3 * CHUNK + 1
    assert found["stored_bytes"] == path.stat().st_size
    assert found["ratio"] == pytest.approx(found["stored_bytes"] / found["logical_bytes"], abs=1e-6)
    assert (found["dtype"], found["chunks"], found["chunk_size_bytes"]) == ("f16", 4, CHUNK)
    assert found["indexed"] is True
    assert found["strategies"] == {"byte-plane-zstd": 4}


def test_containers_of_others_have_no_index_and_chunks_of_any_size(files):
    (found,) = files(VECTORS / "mix.f32.c256.qatc")
    assert found["indexed"] is False and found["chunk_size_bytes"] == 1024
    assert sum(found["strategies"].values()) == found["chunks"] > 1
    assert len(found["strategies"]) > 1


def test_an_empty_container_has_no_ratio(files, tmp_path):
    (tmp_path / "x.qatc").write_bytes(empty_container(DType.BF16))
    (found,) = files(tmp_path / "x.qatc")
    assert (found["logical_bytes"], found["stored_bytes"], found["ratio"]) == (0, 72, None)


def test_a_bare_payload_is_one_chunk(files, tmp_path):
    (tmp_path / "x.qatq").write_bytes(encode_payload(b"abcd", DType.F32, level=Level.FAST, strategy=1))
    (found,) = files(tmp_path / "x.qatq")
    assert (found["kind"], found["dtype"], found["chunks"], found["chunk_size_bytes"]) == ("payload", "f32", 1, 4)
    assert found["strategies"] == {"raw-bits": 1}


def test_a_payload_of_another_mode_has_the_name_of_the_mode(files):
    (found,) = files(VECTORS / "mode-phase1-q4.qatq")
    assert (found["dtype"], found["strategies"]) == ("f32", {"phase1-q4": 1})


def test_a_raw_file_is_raw(files, tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    (found,) = files(tmp_path / "x")
    assert set(found) == KEYS
    assert (found["kind"], found["dtype"], found["logical_bytes"], found["ratio"]) == ("raw", None, 3, 1.0)


def test_nothing_is_decoded(files, tmp_path):
    path = tmp_path / "x.qatc"
    path.write_bytes(encode_container(bf16_bytes(CHUNK), DType.BF16, values_per_chunk=CHUNK))
    (before,) = files(path)
    flip(path, 1000)
    assert files(path) == [before]


def test_a_directory_is_every_container_below_it(files, tmp_path):
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("b.qatc", "a.qatc", "sub/c.qatc", "sub/deep/d.qatc"):
        (tmp_path / name).write_bytes(empty_container(DType.BF16))
    (tmp_path / "raw").write_bytes(b"raw")
    (tmp_path / "link.qatc").symlink_to("a.qatc")
    (tmp_path / "directory.qatc").mkdir()
    os.mkfifo(tmp_path / "fifo.qatc")
    found = [os.path.relpath(one["path"], tmp_path) for one in files(tmp_path)]
    assert found == ["a.qatc", "b.qatc", "sub/c.qatc", "sub/deep/d.qatc"]


def test_a_backing_directory_also_has_what_waits_and_what_was_lost(info, tmp_path):
    with Store(tmp_path, StoreOptions()) as store:
        with store.create(b"x", 0o644) as handle:
            handle.write(b"abcd", 0)
        store.sync()
        with store.create(b"y", 0o644) as handle:
            handle.write(b"abcd", 0)
            waiting = info(tmp_path)
    assert [one["path"] for one in waiting["files"]] == [str(tmp_path / "x.qatc"), str(tmp_path / "y.qatc")]
    assert waiting["backings"] == [{"path": str(tmp_path), "pending_files": 1, "lost_files": []}]
    (tmp_path / ".qatqfs" / "lost+found" / "z.qatc").write_bytes(empty_container(DType.BF16))
    later = info(tmp_path)
    assert [one["path"] for one in later["files"]] == [str(tmp_path / "x.qatc"), str(tmp_path / "y.qatc")]
    assert later["backings"] == [{"path": str(tmp_path), "pending_files": 0, "lost_files": ["z.qatc"]}]


def test_a_backing_directory_below_the_given_one_has_no_object_of_its_own(info, tmp_path):
    (tmp_path / "backing").mkdir()
    with Store(tmp_path / "backing", StoreOptions()) as store:
        store.create(b"x", 0o644).close()
    found = info(tmp_path)
    assert [one["path"] for one in found["files"]] == [str(tmp_path / "backing" / "x.qatc")]
    assert found["backings"] == []


def test_a_backing_directory_of_another_format_is_refused(qatqfs, tmp_path):
    (tmp_path / ".qatqfs").mkdir()
    (tmp_path / ".qatqfs" / "format").write_text("qatqfs backing directory, format 99\n")
    result = qatqfs("info", tmp_path)
    assert result.status == 2 and "format 99" in result.error


def test_damage_to_headers_is_one_line_and_status_1_and_the_others_are_shown(qatqfs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.qatc").write_bytes(empty_container(DType.BF16))
    flip(tmp_path / "a.qatc", 0)
    result = qatqfs("info", "--json", tmp_path)
    assert result.status == 1
    assert result.error == f"{tmp_path / 'a.qatc'}: container magic is not QATC"
    found = json.loads(result.out)
    assert [one["path"] for one in found["files"]] == [str(tmp_path / "b.qatc")]
    assert found["failed"] == 1 and found["total"]["files"] == 1


def test_the_table_is_aligned_and_a_summary_follows(qatqfs, tmp_path):
    (tmp_path / "a-long-name.qatc").write_bytes(
        encode_container(bf16_bytes(5 * CHUNK), DType.BF16, values_per_chunk=CHUNK // 2)
    )
    (tmp_path / "b.qatc").write_bytes(empty_container(DType.F32))
    result = qatqfs("info", tmp_path)
    heading, first, second, summary = result.out.splitlines()
    for column in ("DTYPE", "STRATEGIES"):
        at = heading.index(column)
        assert all(line[at - 1] == " " != line[at] for line in (first, second))
    assert "20.0 KiB" in first and "byte-plane-zstd 5" in first
    assert summary.startswith("2 files: 20.0 KiB stored in ") and ", ratio 0." in summary


def test_raw_files_in_a_directory_are_counted_and_not_listed(qatqfs, info, tmp_path):
    (tmp_path / "x.qatc").write_bytes(empty_container(DType.BF16))
    for name in ("a.json", "b.bin"):
        (tmp_path / name).write_bytes(bytes(1000))
    found = info(tmp_path)
    assert [one["path"] for one in found["files"]] == [str(tmp_path / "x.qatc")]
    assert found["total"] == {
        "files": 3,
        "raw_files": 2,
        "logical_bytes": 2000,
        "stored_bytes": 2072,
        "ratio": pytest.approx(2072 / 2000),
    }
    assert qatqfs("info", tmp_path).out.splitlines()[-1] == "3 files (2 raw): 2.0 KiB stored in 2.0 KiB, ratio 1.0360"


def test_bare_payloads_in_a_directory_are_listed(files, tmp_path):
    (tmp_path / "x.qatq").write_bytes(encode_payload(b"abcd", DType.F32, level=Level.FAST, strategy=1))
    assert [one["kind"] for one in files(tmp_path)] == ["payload"]


def test_an_empty_directory_has_no_files(qatqfs, info, tmp_path):
    assert qatqfs("info", tmp_path).out == "0 files: 0 B stored in 0 B\n"
    assert info(tmp_path)["files"] == []


def test_after_a_refusal_there_is_no_total_of_nothing(qatqfs, tmp_path):
    assert qatqfs("info", tmp_path / "missing").out == ""
    (tmp_path / "x").write_bytes(b"raw")
    assert qatqfs("info", tmp_path / "missing", tmp_path / "x").out.endswith("; 1 could not be read\n")
