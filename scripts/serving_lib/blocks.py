"""K/V blocks: in memory as the model computes with them, in files as a runtime dumps them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
from demo_lib.transformer import F32, Shape


@dataclass(frozen=True)
class Kind:
    """How a cache holds its values.

    Attributes:
        name: for people.
        values: dtype that each value is rounded to.
        stored: dtype in the files.
        suffix: of the files; it tells qatqfs the dtype.
    """

    name: str
    values: type[np.generic]
    stored: type[np.generic]
    suffix: str

    def round(self, values: F32) -> F32:
        """Return values as the cache holds them."""
        return values.astype(self.values).astype(np.float32)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("f32", np.float32, np.float32, "f32"),
        Kind("f16", np.float16, np.float16, "f16"),
        Kind("bf16", ml_dtypes.bfloat16, ml_dtypes.bfloat16, "bf16"),
        Kind("bf16 in f32", ml_dtypes.bfloat16, np.float32, "f32"),
    )
}


class ResidentCache:
    """Blocks that are all in memory, as f32 of what the kind rounds to.

    Args:
        shape: of the model.
        kind: of the values.
        block_tokens: tokens in a block.

    Attributes:
        length: tokens that are in the cache.
    """

    def __init__(self, shape: Shape, kind: Kind, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.length = 0
        self._shape = shape
        self._kind = kind
        self._blocks: list[F32] = []
        self._adding = 0

    def begin(self, tokens: int) -> None:
        """See :class:`~serving_lib.model.Cache`."""
        start = self.length % self.block_tokens
        if start + tokens > self.block_tokens:
            raise ValueError(f"{tokens} tokens from {self.length} on are in two blocks")
        if start == 0:
            self._blocks.append(self._empty_block())
        self._adding = tokens
        self.length += tokens

    def put(self, layer: int, key: F32, value: F32) -> None:
        """See :class:`~serving_lib.model.Cache`."""
        stop = (self.length - 1) % self.block_tokens + 1
        for index, values in enumerate((key, value)):
            place = self._blocks[-1][layer, index, :, stop - self._adding : stop]
            place[:] = self._kind.round(values).transpose(1, 0, 2)

    def views(self, layer: int) -> Iterator[tuple[F32, F32]]:
        """See :class:`~serving_lib.model.Cache`."""
        for number, block in enumerate(self._blocks):
            count = self._count(number)
            yield block[layer, 0, :, :count], block[layer, 1, :, :count]

    def content(self, number: int) -> bytes:
        """Return a block as it is in its file: [layers, 2, tokens, kv_heads, head_dim]."""
        used = self._blocks[number][:, :, :, : self._count(number)]
        return used.transpose(0, 1, 3, 2, 4).astype(self._kind.stored).tobytes()

    def add(self, content: bytes) -> None:
        """Put the block that comes next into the cache, from what its file has."""
        shape = self._shape
        values = np.frombuffer(content, self._kind.stored)
        by_token = values.reshape(shape.layers, 2, -1, shape.kv_heads, shape.head_dim)
        tokens = by_token.shape[2]
        block = self._empty_block()
        block[:, :, :, :tokens] = by_token.transpose(0, 1, 3, 2, 4)
        self._blocks.append(block)
        self.length += tokens

    def _count(self, number: int) -> int:
        return min(self.block_tokens, self.length - number * self.block_tokens)

    def _empty_block(self) -> F32:
        shape = self._shape
        return np.zeros((shape.layers, 2, shape.kv_heads, self.block_tokens, shape.head_dim), np.float32)


def block_path(directory: Path, number: int, kind: Kind) -> Path:
    """Return where a block's file is."""
    return directory / f"block-{number:05}.{kind.suffix}"


def write_file(path: Path, content: bytes) -> None:
    """Write a file under a name of its own and rename it, as runtimes do."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
