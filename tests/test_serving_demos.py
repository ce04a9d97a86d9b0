"""The demos that serve: migration and paging run to their end, notice what is wrong, and leave nothing behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounted import qatqfs_mountpoints

pytest.importorskip("ml_dtypes")
pytest.importorskip("lz4.frame")

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import migrate_demo  # noqa: E402
import paging_demo  # noqa: E402
from demo_lib.session import DemoError  # noqa: E402
from demo_lib.transformer import Shape  # noqa: E402
from serving_lib.blocks import KINDS, ResidentCache  # noqa: E402
from serving_lib.model import Model, tokenise  # noqa: E402
from serving_lib.paging import PagedCache, PageFiles  # noqa: E402

SHAPE = Shape(layers=2, heads=4, kv_heads=2, head_dim=64, hidden=128)
TEXT = b"in the beginning was the word and the word was many words " * 8


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPTS / script, *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=280)


@pytest.mark.fuse
@pytest.mark.slow
def test_a_sequence_that_moves_there_and_back_goes_on_as_if_it_had_not(tmp_path):
    done = run("migrate_demo.py", "--quick", "--json", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = {each["kind"]: each for each in json.loads(done.stdout)}
    assert set(results) == {"f32", "f16", "bf16", "bf16 in f32"}
    for each in results.values():
        assert each["equal_after"] == [16, 32, 64, 128]
        assert each["shipped_bytes"] < each["zstd_bytes"] < each["raw_bytes"]
        assert each["shipped_bytes"] < 0.95 * each["planes_zstd_bytes"]
    assert results["bf16"]["shipped_bytes"] <= 0.88 * results["bf16"]["zstd_bytes"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fuse
def test_blocks_in_a_mount_give_the_same_tokens_in_less_memory():
    if not Path("/dev/shm").is_dir() or paging_demo.filesystem_of(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs")
    before = set(Path("/dev/shm").iterdir())
    done = run("paging_demo.py", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    memory, plain, mount = json.loads(done.stdout)
    assert memory["resident"] == memory["pages"] and memory["moved_in"] == 0
    for each in (plain, mount):
        assert each["resident"] == memory["pages"] // 4
        assert each["moved_out"] == each["pages"] - each["resident"] > 0
        assert each["moved_in"] > each["moved_out"]
    assert plain["stored_bytes"] >= plain["paged_bytes"]
    assert mount["stored_bytes"] < mount["paged_bytes"] / 1.4
    assert not [path for path in set(Path("/dev/shm").iterdir()) - before if path.name.startswith("qatqfs-demo-")]


@pytest.mark.fuse
def test_a_demo_that_is_ended_leaves_neither_mounts_nor_files(tmp_path):
    command = [sys.executable, SCRIPTS / "migrate_demo.py", "--dir", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not qatqfs_mountpoints(tmp_path) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (130, "migrate-demo: interrupted\n")
    assert qatqfs_mountpoints(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fuse
def test_a_tier_that_is_not_in_memory_is_refused():
    if paging_demo.filesystem_of(SCRIPTS) == "tmpfs":
        pytest.skip("everything is on tmpfs here")
    done = run("paging_demo.py", "--quick", "--dir", SCRIPTS)
    assert done.returncode == 1
    assert done.stderr.startswith(f"paging-demo: FAILED: {SCRIPTS} is on ") and done.stderr.count("\n") == 1


def test_tokens_that_differ_are_noticed():
    migrate_demo.compare([1, 2, 3], [1, 2, 3], "away")
    with pytest.raises(DemoError, match="away: the tokens differ after 1 equal ones"):
        migrate_demo.compare([1, 9, 3], [1, 2, 3], "away")
    with pytest.raises(DemoError, match="after 2 equal ones"):
        migrate_demo.compare([1, 2], [1, 2, 3], "away")


def test_a_block_that_differs_in_one_bit_gives_other_logits():
    """So that equal tokens say something about the blocks."""
    model, tokens = Model(SHAPE, 1), tokenise(TEXT, 32)
    served = ResidentCache(SHAPE, KINDS["bf16"], 32)
    list(model.prefill(tokens, served))
    content = served.content(0)
    damaged = bytearray(content)
    damaged[-2] ^= 1
    logits = []
    for each in (content, bytes(damaged)):
        cache = ResidentCache(SHAPE, KINDS["bf16"], 32)
        cache.add(each)
        logits.append(model.run([7], 32, cache).tobytes())
    assert logits[0] != logits[1]


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_blocks_come_back_from_their_files_as_they_are(kind):
    model, tokens = Model(SHAPE, 1), tokenise(TEXT, 50)
    served, resumed = (ResidentCache(SHAPE, kind, 32) for _ in range(2))
    list(model.prefill(tokens, served))
    for number in range(2):
        resumed.add(served.content(number))
    assert resumed.length == served.length == 50
    assert [resumed.content(number) for number in range(2)] == [served.content(number) for number in range(2)]
    assert model.run([7], 50, resumed).tobytes() == model.run([7], 50, served).tobytes()


def test_a_paged_cache_holds_no_more_pages_than_it_may(tmp_path):
    tokens = tokenise(TEXT, 64)
    page_bytes = 2 * 16 * SHAPE.kv_width * 2
    unbounded = PagedCache(SHAPE, KINDS["bf16"], 16, None, None)
    bounded = PagedCache(SHAPE, KINDS["bf16"], 16, 3, PageFiles(tmp_path, page_bytes, direct=False))
    logits = [list(Model(SHAPE, 1).prefill(tokens, cache))[-1].tobytes() for cache in (unbounded, bounded)]
    assert logits[0] == logits[1]
    assert unbounded.resident_pages == 8 and bounded.resident_pages == 3
    assert unbounded.sums() == bounded.sums() and len(set(unbounded.sums())) == 8
