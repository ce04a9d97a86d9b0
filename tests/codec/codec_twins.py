"""Obvious twins of what the codec does fast, as oracles: loops over bytes, one step at a time."""

import struct
import zlib
from collections.abc import Callable


def fnv1a64(data: bytes, state: int = 0xCBF29CE484222325) -> int:
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return state


def planes_of(raw: bytes, width: int) -> bytes:
    n = len(raw) // width
    return bytes(raw[i * width + width - 1 - p] for p in range(width) for i in range(n))


def raw_of_planes(planes: bytes, width: int) -> bytes:
    n = len(planes) // width
    return bytes(planes[(width - 1 - b) * n + i] for i in range(n) for b in range(width))


def canonical(raw: bytes, width: int) -> bytes:
    return b"".join(raw[i : i + width][::-1] for i in range(0, len(raw), width))


def payload(
    dtype_wire: bytes, strategy: int, count: int, checksum: int, data: bytes, scale: bytes = b"\x3f\x80\0\0"
) -> bytes:
    head = b"QATQ\x01\x04\0\0" + count.to_bytes(8, "big") + scale + checksum.to_bytes(8, "big")
    return head + b"QEX1" + bytes([strategy]) + dtype_wire + data


def container(payloads: list[bytes], total: int) -> bytes:
    body = b"".join(len(p).to_bytes(4, "big") + p for p in payloads)
    head = b"QATC\x02\x04\0\0" + total.to_bytes(8, "big") + len(payloads).to_bytes(4, "big") + bytes(4)
    return head + fnv1a64(body).to_bytes(8, "big") + body


def index_frame(true_length: int, state: int, per_chunk: int, wire: bytes, lengths: list[int]) -> bytes:
    """The frame written from its table in the docstring of qatqfs.codec.index_frame."""
    size = 60 + 4 * len(lengths)
    checked = struct.pack("<II", 0x184D2A5B, size - 8) + b"QATQFSi1" + struct.pack("<QQ", true_length, state)
    checked += struct.pack("<II", per_chunk, len(lengths)) + wire + b"\0"
    checked += b"".join(struct.pack("<I", length) for length in lengths) + struct.pack("<I", size)
    return checked + struct.pack("<I", zlib.crc32(checked)) + b"QATQFSix"


class CountingReader:
    """A read_at over bytes that remembers what was read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.calls: list[tuple[int, int]] = []

    def __call__(self, offset: int, size: int) -> bytes:
        self.calls.append((offset, size))
        return self.data[offset : offset + size]


def read_at(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]
