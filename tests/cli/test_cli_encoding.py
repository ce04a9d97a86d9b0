"""Logical files to containers, as ``qatqfs encode`` writes them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from strict_decoder import decode_container

from qatqfs.cli.encoding import ShortReadError, write_container
from qatqfs.codec import MAX_CHUNKS, DType, Level, LimitExceeded


def test_more_chunks_than_a_container_may_have_are_refused_before_any_work() -> None:
    def read_at(offset: int, size: int) -> bytes:
        raise AssertionError("it was read")

    with ThreadPoolExecutor(1) as executor, pytest.raises(LimitExceeded, match="1048577 chunks"):
        write_container(
            -1,
            read_at,
            4 * MAX_CHUNKS + 1,
            DType.BF16,
            chunk_size=4,
            level=Level.FAST,
            executor=executor,
            workers=1,
        )


def encoded(path: Path, content: bytes, size: int, **settings) -> bytes:
    """Encode what a file claims to have and return its container."""
    with path.open("wb") as file, ThreadPoolExecutor(2) as executor:
        write_container(
            file.fileno(),
            lambda offset, length: content[offset : offset + length],
            size,
            DType.BF16,
            chunk_size=4096,
            level=Level.FAST,
            executor=executor,
            workers=2,
            **settings,
        )
    return path.read_bytes()


def test_chunks_come_in_order_and_progress_adds_up(tmp_path: Path) -> None:
    content, done = bytes(range(256)) * 200 + b"cut", []
    container = encoded(tmp_path / "x.qatc", content, len(content), progress=done.append)
    assert decode_container(container).raw[: len(content)] == content
    assert done == [4096] * 12 + [len(content) - 12 * 4096]


def test_a_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShortReadError, match="the file ends at 9000 bytes, not at 20000"):
        encoded(tmp_path / "x.qatc", bytes(9000), 20_000)
