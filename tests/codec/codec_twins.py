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


def filtered(raw: bytes, width: int, kind: str, stride: int) -> bytes:
    """Each element with the one before taken out of it: ``xor`` with that ``stride`` before, or ``difference``."""
    words = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
    for i in range(len(words) - 1, stride - 1, -1):
        before = words[i - stride]
        words[i] = words[i] ^ before if kind == "xor" else (words[i] - before) % 2**32
    return b"".join(word.to_bytes(width, "little") for word in words)


def runs_of(data: bytes, longest: int, least_repeat: int, unit: int = 1) -> list[tuple[int, int, bytes]]:
    """(token, units, operand) as the writer of format section 9 cuts them; ``least_repeat`` 0 for no repeat runs."""
    units = [data[i : i + unit] for i in range(0, len(data), unit)]

    def repeat_starts(i: int) -> bool:
        part = units[i : i + least_repeat]
        return least_repeat > 0 and len(part) == least_repeat and len(set(part)) == 1

    runs, i = [], 0
    while i < len(units):
        j = i + 1
        if not any(units[i]):
            while j < len(units) and j - i < longest and not any(units[j]):
                j += 1
            runs.append((0, j - i, b""))
        elif repeat_starts(i):
            while j < len(units) and j - i < longest and units[j] == units[i]:
                j += 1
            runs.append((2, j - i, units[i]))
        else:
            while j < len(units) and j - i < longest and any(units[j]) and not repeat_starts(j):
                j += 1
            runs.append((1, j - i, b"".join(units[i:j])))
        i = j
    return runs


def byte_runs(data: bytes) -> bytes:
    return b"".join(bytes([t]) + n.to_bytes(2, "big") + operand for t, n, operand in runs_of(data, 65535, 4))


def packed_runs(data: bytes) -> bytes:
    return b"".join(bytes([t << 6 | n - 1]) + operand for t, n, operand in runs_of(data, 64, 3))


def word_runs(data: bytes) -> bytes:
    return b"".join(bytes([t]) + n.to_bytes(2, "big") + operand for t, n, operand in runs_of(data, 65535, 0, 4))


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
