"""verify: every kind of damage is found, named and counted, and nothing else is."""

import json
import os

import pytest
from samples import CHUNK, VECTORS, bf16_bytes, flip

from qatqfs.cli import verify
from qatqfs.codec import DType, empty_container, encode_container, encode_payload
from qatqfs.store import Store, StoreOptions

MANIFEST = json.loads((VECTORS / "manifest.json").read_text())


@pytest.fixture
def stored(tmp_path):
    """A sound container of five chunks."""
    path = tmp_path / "x.qatc"
    path.write_bytes(encode_container(bf16_bytes(5 * CHUNK), DType.BF16, values_per_chunk=CHUNK // 2))
    return path


def offsets(path) -> list[int]:
    """Where the length fields of a container's chunks are."""
    data, found, at = path.read_bytes(), [], 32
    while at < len(data):
        found.append(at)
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return found


def test_a_sound_container_is_one_summary_line(qatqfs, stored):
    result = qatqfs("verify", stored)
    assert (result.status, result.err) == (0, "")
    size = stored.stat().st_size / 1024
    assert result.out == f"1 file checked ({size:.1f} KiB stored), none damaged\n"


@pytest.mark.parametrize("vector", MANIFEST["good"], ids=lambda vector: vector["name"])
def test_what_the_reference_wrote_is_sound(qatqfs, vector):
    assert qatqfs("verify", VECTORS / vector["name"]).status == 0


@pytest.mark.parametrize("vector", MANIFEST["bad"], ids=lambda vector: vector["name"])
def test_what_the_reference_refuses_is_damaged(qatqfs, vector):
    result = qatqfs("verify", VECTORS / vector["name"])
    assert (result.status, result.err) == (1, "")
    assert result.out.startswith(f"{VECTORS / vector['name']}: ")
    assert result.out.endswith(", 1 file damaged\n")


def test_each_damaged_chunk_is_a_line_with_its_offsets(qatqfs, stored):
    at = offsets(stored)
    for chunk in (1, 3):
        flip(stored, at[chunk] + 500)
    result = qatqfs("verify", stored)
    assert result.status == 1 and result.err == ""
    *lines, summary = result.out.splitlines()
    assert [line.rpartition(": ")[0].split(": ")[:2] for line in lines] == [
        [str(stored), f"chunk {chunk} (logical offset {chunk * CHUNK}, stored offset {at[chunk]}) is damaged"]
        for chunk in (1, 3)
    ]
    assert summary.endswith("1 file damaged")


def test_json_has_the_same(qatqfs, stored, tmp_path):
    at = offsets(stored)
    flip(stored, at[2] + 500)
    (tmp_path / "raw").write_bytes(b"raw")
    result = qatqfs("verify", "--json", tmp_path)
    found = json.loads(result.out)
    assert result.status == 1
    (damage,) = found["corrupt"]
    assert damage.pop("reason")
    assert damage == {"path": str(stored), "chunk": 2, "offset": at[2], "logical_offset": 2 * CHUNK}
    assert (found["files"], found["raw_files"], found["notices"]) == (1, 1, [])
    assert found["stored_bytes"] == stored.stat().st_size


def test_a_directory_is_checked_all_the_way_down(qatqfs, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("x.qatc", "a/y.qatc", "a/b/z.qatc"):
        (tmp_path / name).write_bytes(empty_container(DType.F32))
    (tmp_path / "a" / "p.qatq").write_bytes(encode_payload(b"abcd", DType.F32))
    flip(tmp_path / "a" / "b" / "z.qatc", 50)
    flip(tmp_path / "a" / "p.qatq", 25)
    result = qatqfs("verify", tmp_path)
    assert result.status == 1
    first, second, summary = result.out.splitlines()
    assert first.startswith(f"{tmp_path / 'a' / 'p.qatq'}: ") and second.startswith(f"{tmp_path / 'a/b/z.qatc'}: ")
    assert summary.startswith("4 files checked (") and summary.endswith(", 2 files damaged")


def test_raw_files_are_counted_only(qatqfs, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"whatever")
    result = qatqfs("verify", tmp_path)
    assert (result.status, result.out) == (0, "0 files checked (0 B stored), none damaged; 2 files raw, no checksum\n")


def test_a_raw_file_beside_its_container_is_a_notice(qatqfs, tmp_path):
    for name in ("x", "x.qatc", "y.qatc", "z", "y.qatc.qatc"):
        (tmp_path / name).write_bytes(empty_container(DType.F32))
    result = qatqfs("verify", tmp_path)
    assert result.status == 0
    notices = [line for line in result.out.splitlines() if line.startswith("notice: ")]
    assert len(notices) == 1
    assert f"{tmp_path / 'x'}: there are a raw file and a container {tmp_path / 'x.qatc'}" in notices[0]


def test_of_a_backing_directory_lost_and_found_is_checked_and_staging_is_not(qatqfs, tmp_path):
    with Store(tmp_path, StoreOptions()) as store:
        store.create(b"x", 0o644).close()
    private = tmp_path / ".qatqfs"
    lost = private / "lost+found" / "lost.qatc"
    lost.write_bytes(empty_container(DType.F32))
    (private / "staging" / "junk.qatc").write_bytes(b"junk")
    (tmp_path / "sub").mkdir()
    assert qatqfs("verify", tmp_path).out.startswith("2 files checked (144 B stored), none damaged\n")
    flip(lost, 50)
    result = qatqfs("verify", tmp_path)
    assert result.status == 1 and result.out.startswith(
        f"{lost}: chunk 0 (logical offset 0, stored offset 32) is damaged: "
    )


def test_a_directory_of_users_that_has_the_private_name_is_checked(qatqfs, tmp_path):
    (tmp_path / "sub" / ".qatqfs").mkdir(parents=True)
    (tmp_path / "sub" / ".qatqfs" / "x.qatc").write_bytes(empty_container(DType.F32))
    assert qatqfs("verify", tmp_path).out.startswith("1 file checked")


def test_symlinks_are_followed_only_when_they_are_named(qatqfs, stored, tmp_path):
    (tmp_path / "directory").mkdir()
    link = tmp_path / "directory" / "link.qatc"
    link.symlink_to(stored)
    assert qatqfs("verify", tmp_path / "directory").out.startswith("0 files checked")
    assert qatqfs("verify", link).out.startswith("1 file checked")


def test_what_cannot_be_read_is_status_2_but_damage_is_still_status_1(qatqfs, stored, tmp_path):
    missing = qatqfs("verify", tmp_path / "missing", stored)
    assert (missing.status, missing.error) == (2, f"{tmp_path / 'missing'}: No such file or directory")
    assert missing.out.startswith("1 file checked") and missing.out.endswith("none damaged; 1 could not be checked\n")
    flip(stored, 500)
    assert qatqfs("verify", tmp_path / "missing", stored).status == 1


def test_after_a_refusal_there_is_no_total_of_nothing(qatqfs, tmp_path):
    assert qatqfs("verify", tmp_path / "missing").out == ""
    found = json.loads(qatqfs("verify", "--json", tmp_path / "missing").out)
    assert (found["files"], found["failed"]) == (0, 1)


def test_a_file_that_cannot_be_read_is_not_among_those_checked(qatqfs, stored, tmp_path, monkeypatch):
    (tmp_path / "y.qatc").write_bytes(stored.read_bytes())
    original = verify.Source

    def source(path):
        if path.endswith("y.qatc"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(verify, "Source", source)
    result = qatqfs("verify", tmp_path)
    assert (result.status, result.error) == (2, f"{tmp_path / 'y.qatc'}: Permission denied")
    assert result.out.startswith("1 file checked (")
    assert result.out.endswith("none damaged; 1 could not be checked\n")


def test_a_file_that_vanishes_meanwhile_is_no_damage(qatqfs, stored, tmp_path, monkeypatch):
    original = verify.look

    def look_and_remove(*arguments):
        found = original(*arguments)
        stored.unlink()
        return found

    monkeypatch.setattr(verify, "look", look_and_remove)
    result = qatqfs("verify", tmp_path)
    assert (result.status, result.err) == (0, "")


def test_a_file_that_was_rewritten_in_place_meanwhile_is_looked_at_again(qatqfs, stored, monkeypatch):
    sound = stored.read_bytes()
    flip(stored, 500)
    os.utime(stored, ns=(1, 1))
    original = verify.verify_container

    def finish_writing(*arguments, **settings):
        problems = list(original(*arguments, **settings))
        stored.write_bytes(sound)
        return problems

    monkeypatch.setattr(verify, "verify_container", finish_writing)
    assert qatqfs("verify", stored).status == 0


def test_nothing_is_changed(qatqfs, tmp_path, stored):
    flip(stored, 500)
    before = (stored.read_bytes(), stored.stat().st_mtime_ns, sorted(os.listdir(tmp_path)))
    qatqfs("verify", tmp_path)
    assert (stored.read_bytes(), stored.stat().st_mtime_ns, sorted(os.listdir(tmp_path))) == before
