"""A cache that holds a bounded number of pages and keeps the others in files. Its work is done in a process of its own.

A page is what a block of tokens leaves in one layer. Every token's attention goes through all pages in the same order,
which for a policy that throws out what was used longest ago means that nothing is ever found. So the pages that came
first stay, and the others take turns in one place.
"""

import contextlib
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from demo_lib.transformer import F32, Shape

from serving_lib.blocks import KINDS, Kind
from serving_lib.jobs import Job, do_job
from serving_lib.model import Model, tokenise


class PageFiles:
    """Pages in files, one for each block with the pages of all layers; read and written without the page cache.

    Args:
        directory: where they are.
        page_bytes: of one page.
        direct: pass O_DIRECT, so that the kernel keeps no copy.
    """

    def __init__(self, directory: Path, page_bytes: int, *, direct: bool) -> None:
        self._directory = directory
        self._flags = os.O_DIRECT if direct else 0
        self._buffer = mmap.mmap(-1, page_bytes)  # O_DIRECT wants whole memory pages
        self.moved_in = self.moved_out = 0

    def put(self, layer: int, block: int, content: bytes) -> None:
        """Write a page."""
        self._buffer[:] = content
        with self._opened(block, os.O_WRONLY | os.O_CREAT) as fd:
            if os.pwrite(fd, self._buffer, layer * len(self._buffer)) != len(self._buffer):
                raise OSError("a page was written in part")
        self.moved_out += 1

    def get(self, layer: int, block: int) -> memoryview:
        """Read a page; what is returned is valid until the next one is read or written."""
        with self._opened(block, os.O_RDONLY) as fd:
            if os.preadv(fd, [self._buffer], layer * len(self._buffer)) != len(self._buffer):
                raise OSError("a page was read in part")
        self.moved_in += 1
        return memoryview(self._buffer)

    @contextlib.contextmanager
    def _opened(self, block: int, flags: int) -> Iterator[int]:
        fd = os.open(self._directory / f"block-{block:05}.bf16", flags | self._flags, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


class PagedCache:
    """K/V pages of one sequence, at most some of them in memory, in the dtype of the cache.

    Args:
        shape: of the model.
        kind: of the values.
        block_tokens: tokens in a page.
        limit: full pages that may be in memory, ``None`` for all.
        files: where the others are.
    """

    def __init__(self, shape: Shape, kind: Kind, block_tokens: int, limit: int | None, files: PageFiles | None) -> None:
        self.block_tokens = block_tokens
        self.length = 0
        self._kind = kind
        self._limit = limit
        self._files = files
        self._page_shape = (2, block_tokens, shape.kv_heads, shape.head_dim)
        self._resident: dict[tuple[int, int], bytes] = {}
        self._filling = [np.zeros(self._page_shape, kind.stored) for _ in range(shape.layers)]
        self._adding = 0

    @property
    def resident_pages(self) -> int:
        """Full pages in memory."""
        return len(self._resident)

    def begin(self, tokens: int) -> None:
        """See :class:`~serving_lib.model.Cache`."""
        if self.length % self.block_tokens + tokens > self.block_tokens:
            raise ValueError(f"{tokens} tokens from {self.length} on are in two blocks")
        self._adding = tokens
        self.length += tokens

    def put(self, layer: int, key: F32, value: F32) -> None:
        """See :class:`~serving_lib.model.Cache`."""
        stop = self._filled()
        page = self._filling[layer]
        for index, values in enumerate((key, value)):
            page[index, stop - self._adding : stop] = values.astype(self._kind.values)

    def views(self, layer: int) -> Iterator[tuple[F32, F32]]:
        """See :class:`~serving_lib.model.Cache`; keeps the layer's last page once it is full and was seen."""
        block = (self.length - 1) // self.block_tokens
        for number in range(block):
            yield self._by_head(np.frombuffer(self._page(layer, number), self._kind.stored).reshape(self._page_shape))
        page = self._filling[layer]
        yield self._by_head(page[:, : self._filled()])
        if self._filled() == self.block_tokens:
            self._keep(layer, block, page.tobytes())

    def sums(self) -> list[str]:
        """Return the SHA-256 of every full page, layer by layer."""
        blocks = self.length // self.block_tokens
        pages = (self._page(layer, block) for layer in range(len(self._filling)) for block in range(blocks))
        return [hashlib.sha256(page).hexdigest() for page in pages]

    def _filled(self) -> int:
        return (self.length - 1) % self.block_tokens + 1

    def _by_head(self, page: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> tuple[F32, F32]:
        key, value = page.astype(np.float32).transpose(0, 2, 1, 3)
        return key, value

    def _keep(self, layer: int, block: int, content: bytes) -> None:
        if self._limit is None or len(self._resident) < self._limit:
            self._resident[layer, block] = content
        else:
            assert self._files is not None
            self._files.put(layer, block, content)

    def _page(self, layer: int, block: int) -> bytes | memoryview:
        found = self._resident.get((layer, block))
        if found is None:
            assert self._files is not None
            return self._files.get(layer, block)
        return found


def work(job: Job) -> Job:
    """Take a prompt in and go on from it; say how that went."""
    shape, kind, limit = Shape(**job["shape"]), KINDS["bf16"], job["limit"]
    page_bytes = 2 * job["block_tokens"] * shape.kv_width * np.dtype(kind.stored).itemsize
    files = None if limit is None else PageFiles(Path(job["directory"]), page_bytes, direct=job["direct"])
    cache = PagedCache(shape, kind, job["block_tokens"], limit, files)
    model = Model(shape, job["seed"])
    tokens = tokenise(Path(job["text"]).read_bytes(), job["prompt"])
    for logits in model.prefill(tokens, cache):
        last = logits
    tokens = [*tokens, model.draw(last, len(tokens))]
    started = time.perf_counter()
    for longer in model.generate(tokens, job["steps"], cache):
        tokens = longer
    seconds = time.perf_counter() - started
    moved = (files.moved_in, files.moved_out) if files else (0, 0)
    return {
        "tokens": tokens[job["prompt"] :],
        "token_s": seconds / job["steps"],
        "pages": len(sums := cache.sums()),
        "sums": sums,
        "resident": cache.resident_pages,
        "moved_in": moved[0],
        "moved_out": moved[1],
        "page_bytes": page_bytes,
    }


if __name__ == "__main__":
    do_job(work)
