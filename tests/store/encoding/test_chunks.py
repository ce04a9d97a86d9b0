"""Chunks to payloads, as the store does it."""

from collections.abc import Sequence

import numpy as np
import pytest
from mounted import errno_of

from qatqfs.codec import DType, EncodingFault, Level, decode_payload
from qatqfs.store.encoding import chunks as encoder
from qatqfs.store.encoding.chunks import StreamEncoder

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
    payloads = StreamEncoder(DType.BF16, Level.BALANCED).encode(raws, widths)
    assert [decode_payload(payload) for payload in payloads] == raws
    assert seen == [(2, ()), (2, (64,)), (1, (32, 64)), (1, ())]


@pytest.mark.parametrize("level", list(Level))
def test_many_chunks_are_encoded_as_each_alone(level: Level) -> None:
    raws = chunks(5)
    found = StreamEncoder(DType.BF16, level).encode(raws, [()] * 5)
    alone = StreamEncoder(DType.BF16, level)
    assert found == [alone.encode_one(raw) for raw in raws]


def test_what_cannot_be_decoded_again_is_an_error_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*args: object, **settings: object) -> list[bytes]:
        raise EncodingFault("other values came back")

    monkeypatch.setattr(encoder, "encode_payloads", faulty)
    assert errno_of(StreamEncoder(DType.BF16, Level.FAST).encode, chunks(2), [(), ()]) == "EIO"


def test_a_last_value_that_is_cut_is_padded_with_zeros() -> None:
    payload = StreamEncoder(DType.F32, Level.FAST).encode_one(b"123456")
    assert decode_payload(payload) == b"123456\0\0"
