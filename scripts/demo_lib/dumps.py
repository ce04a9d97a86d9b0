"""One K/V cache as the files that inference runtimes make of it.

Every dump knows its exact bytes, so that what is read back can be compared. It also knows how an ordinary program
writes it. Nothing here knows that the target is a qatqfs mount.
"""

import hashlib
import io
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from demo_lib.transformer import F32

DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
BLOCK_TOKENS = 16
"""Tokens in a block of a paged cache, vLLM's default."""

Writer = Callable[[Path], None]


@dataclass(frozen=True)
class Dump:
    """A file to store: its path in the mount, the table row it belongs to, its bytes and its writer."""

    name: str
    row: str
    program: str
    content: bytes
    write: Writer
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.content).hexdigest())


def all_dumps(cache: F32, scratch: Path) -> list[Dump]:
    """Return every dump of a cache [layers, 2, kv_heads, tokens, head_dim].

    ``scratch`` is an existing directory outside the mount; it receives the files that ``cp`` copies from.
    """
    dumps: list[Dump] = []
    for label, dtype in DTYPES.items():
        values = cache.astype(dtype)
        dumps += _per_layer(values, label)
        dumps.append(_packed(values, label, scratch))
    bf16 = cache.astype(ml_dtypes.bfloat16)
    dumps += _paged(bf16)
    dumps.append(_safetensors(bf16))
    dumps.append(_npy(cache))
    return dumps


def _by_tofile(name: str, row: str, array: NDArray[np.generic]) -> Dump:
    array = np.ascontiguousarray(array)
    return Dump(name, row, "numpy.tofile", array.tobytes(), lambda path: array.tofile(path))


def _per_layer(values: NDArray[np.generic], label: str) -> Iterator[Dump]:
    """K and V of each layer as [tokens, kv_heads * head_dim], one file each."""
    layers, _, kv_heads, tokens, head_dim = values.shape
    row = f"layers/*.{label} ({2 * layers} files)"
    for layer in range(layers):
        for index, kind in enumerate("kv"):
            rows = values[layer, index].transpose(1, 0, 2).reshape(tokens, kv_heads * head_dim)
            yield _by_tofile(f"layers/{layer:02}.{kind}.{label}", row, rows)


def _packed(values: NDArray[np.generic], label: str, scratch: Path) -> Dump:
    """The whole cache in one file, in the order of its axes, copied into place by cp."""
    name = f"packed.{label}"
    source = scratch / name
    source.write_bytes(values.tobytes())
    return Dump(name, name, "cp", values.tobytes(), lambda path: _run_cp(source, path))


def _run_cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--", source, target], check=True, start_new_session=True, timeout=300)


def _paged(values: NDArray[np.generic]) -> Iterator[Dump]:
    """Per layer [2, blocks, 16, kv_heads, head_dim], as vLLM keeps it, blocks in the order of allocation.

    The names say nothing about the dtype, so qatqfs has to find it from the data.
    """
    layers, _, kv_heads, tokens, head_dim = values.shape
    blocks = tokens // BLOCK_TOKENS
    order = np.random.default_rng(16).permutation(blocks)
    for layer in range(layers):
        by_token = values[layer, :, :, : blocks * BLOCK_TOKENS].transpose(0, 2, 1, 3)
        paged = by_token.reshape(2, blocks, BLOCK_TOKENS, kv_heads, head_dim)[:, order]
        yield _by_tofile(f"paged/{layer:02}.bin", f"paged/*.bin ({layers} files)", paged)


def _safetensors(values: NDArray[np.generic]) -> Dump:
    tensors = {
        f"layers.{layer}.{kind}": np.ascontiguousarray(values[layer, index])
        for layer in range(values.shape[0])
        for index, kind in enumerate(("key", "value"))
    }
    name = "kv.safetensors"
    return Dump(
        name,
        name,
        "safetensors",
        safetensors.numpy.save(tensors),
        lambda path: safetensors.numpy.save_file(tensors, path),
    )


def _npy(values: F32) -> Dump:
    buffer = io.BytesIO()
    np.save(buffer, values)
    name = "kv.npy"
    return Dump(name, name, "numpy.save", buffer.getvalue(), lambda path: np.save(path, values))
