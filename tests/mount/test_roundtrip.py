"""The main job: what programs write into the mount they read back bit for bit, and BACKING holds less."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mounted import QATQFS, drop_page_cache, mounted
from strict_decoder import canonical_layout, decode_container

pytestmark = pytest.mark.fuse

CHUNK = 256 * 1024
SIZES = [0, 1, 2, 3, 5, CHUNK - 1, CHUNK, CHUNK + 1, 10_000_001]
REFERENCE_SHARE = 0.7729  # of raw, over the corpus, by the reference encoder


def tensor(size: int) -> bytes:
    rng = np.random.default_rng(size)
    return (rng.normal(size=size // 2 + 1).astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()[:size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_size_comes_back_after_unmount_and_cache_drop(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        for size in SIZES:
            (mount.path / f"t{size}").write_bytes(tensor(size))
            assert (mount.path / f"t{size}").stat().st_size == size
        mount.remount()
        drop_page_cache()
        for size in SIZES:
            assert (mount.path / f"t{size}").stat().st_size == size
            assert sha256((mount.path / f"t{size}").read_bytes()) == sha256(tensor(size))
    for size in SIZES:
        decoded = decode_container((tmp_path / f"backing/t{size}.qatc").read_bytes())
        assert decoded.raw == tensor(size) + b"\0" * (size % 2)
        assert canonical_layout(decoded)


def test_every_size_comes_back_through_encode_and_decode(tmp_path: Path) -> None:
    inputs = []
    for size in SIZES:
        inputs.append(tmp_path / f"t{size}")
        inputs[-1].write_bytes(tensor(size))
    (tmp_path / "enc").mkdir()
    (tmp_path / "dec").mkdir()
    subprocess.run([*QATQFS, "encode", "--output-dir", tmp_path / "enc", *inputs], check=True)
    subprocess.run([*QATQFS, "decode", "--output-dir", tmp_path / "dec", *(tmp_path / "enc").iterdir()], check=True)
    for size in SIZES:
        assert (tmp_path / f"dec/t{size}").read_bytes() == tensor(size)


def test_the_corpus_comes_back_and_takes_less_room_than_the_references_containers(
    tmp_path: Path, shared_data: Path
) -> None:
    corpus = shared_data / "corpus"
    expected = {f["file"]: f["sha256"] for f in json.loads((corpus / "manifest.json").read_text())["files"]}
    with mounted(tmp_path) as mount:
        for name in expected:
            shutil.copyfile(corpus / name, mount.path / name)
        mount.remount()
        drop_page_cache()
        for name, digest in expected.items():
            assert sha256((mount.path / name).read_bytes()) == digest
    raw = sum((corpus / name).stat().st_size for name in expected)
    stored = sum((tmp_path / f"backing/{name}.qatc").stat().st_size for name in expected)
    assert stored < REFERENCE_SHARE * raw
    for name, digest in expected.items():
        container = tmp_path / f"backing/{name}.qatc"
        decoded = decode_container(container.read_bytes())
        assert canonical_layout(decoded)
        assert sha256(decoded.raw) == digest
        if name.endswith("le"):
            assert name.endswith(f"{decoded.dtype}le")
        subprocess.run([*QATQFS, "decode", "-o", tmp_path / "out", container], check=True)
        assert sha256((tmp_path / "out").read_bytes()) == digest
        os.unlink(tmp_path / "out")


def test_containers_put_into_backing_by_hand_show_up_decoded(tmp_path: Path) -> None:
    data = tensor(1_000_000)
    (tmp_path / "x.bf16").write_bytes(data)
    (tmp_path / "backing/sub").mkdir(parents=True)
    target = tmp_path / "backing/sub/x.bf16.qatc"
    subprocess.run([*QATQFS, "encode", "--chunk-size", "4K", "-o", target, tmp_path / "x.bf16"], check=True)
    with mounted(tmp_path) as mount:
        assert os.listdir(mount.path / "sub") == ["x.bf16"]
        assert (mount.path / "sub/x.bf16").read_bytes() == data


def test_unmodified_programs_read_and_write_their_tensors(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(128, 1000)).astype(np.float32)
    with mounted(tmp_path) as mount:
        values.tofile(mount.path / "a.f32")
        np.save(mount.path / "b.npy", values)
        subprocess.run(["cp", mount.path / "b.npy", mount.path / "c.npy"], check=True)
        mount.remount()
        assert np.array_equal(np.fromfile(mount.path / "a.f32", np.float32).reshape(values.shape), values)
        assert np.array_equal(np.load(mount.path / "b.npy", mmap_mode="r"), values)
        assert np.array_equal(np.load(mount.path / "c.npy"), values)
        mapped = np.memmap(mount.path / "a.f32", np.float32, mode="r+", shape=values.shape)
        mapped[5] = 42.0
        mapped.flush()
        del mapped
        mount.remount()
        changed = np.fromfile(mount.path / "a.f32", np.float32).reshape(values.shape)
        assert (changed[5] == 42.0).all()
        assert np.array_equal(np.delete(changed, 5, 0), np.delete(values, 5, 0))
