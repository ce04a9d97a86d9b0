"""Chunks to payloads, as the store does it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mounted import errno_of

from qatqfs.codec import MAX_CHUNKS, DType, EncodingFault, Level, LimitExceeded, Memory, decode_payload
from qatqfs.store.encoding import chunks as encoder
from qatqfs.store.encoding.chunks import encode_chunk, encode_chunks, write_container

CHUNK = 8192


def chunks(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal(CHUNK // 2, np.float32).view("<u4") >> 16).astype("<u2").tobytes() for _ in range(count)
    ]


def test_each_chunk_is_encoded_with_its_own_row_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    raws, widths = chunks(6), [(), (), (64,), (64,), (32, 64), ()]
    real, seen = encoder.encode_payloads, []

    def noting(some: Sequence[bytes], *args: object, row_widths: Sequence[int], **settings: object) -> list[bytes]:
        seen.append((len(some), row_widths))
        return real(some, *args, row_widths=row_widths, **settings)

    monkeypatch.setattr(encoder, "encode_payloads", noting)
    payloads = encode_chunks(raws, DType.BF16, Level.BALANCED, row_widths=widths, memory=Memory())
    assert [decode_payload(payload) for payload in payloads] == raws
    assert seen == [(2, ()), (2, (64,)), (1, (32, 64)), (1, ())]


@pytest.mark.parametrize("level", list(Level))
def test_many_chunks_are_encoded_as_each_alone(level: Level) -> None:
    raws = chunks(5)
    found = encode_chunks(raws, DType.BF16, level, row_widths=[()] * 5, memory=Memory())
    alone = Memory()
    assert found == [encode_chunk(raw, DType.BF16, level, memory=alone) for raw in raws]


def test_what_cannot_be_decoded_again_is_an_error_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*args: object, **settings: object) -> list[bytes]:
        raise EncodingFault("other values came back")

    monkeypatch.setattr(encoder, "encode_payloads", faulty)
    assert errno_of(encode_chunks, chunks(2), DType.BF16, Level.FAST, row_widths=[(), ()], memory=Memory()) == "EIO"


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
