"""The four public fixtures of the reference codec, generated: raw little-endian f32.

u32 arithmetic is modulo 2**32, f32 arithmetic rounds at every step. sin and cos may differ by an ulp between
machines.
"""

import numpy as np


def _lcg(state: int) -> int:
    return (1664525 * state + 1013904223) % 2**32


def _bf16_like(values: np.ndarray) -> bytes:
    """Clear the low 16 bits of each f32 pattern."""
    return (values.astype("<f4").view("<u4") & np.uint32(0xFFFF0000)).tobytes()


def ramp() -> bytes:
    """bf16-kv-ramp-64x8x16."""
    values, state = [], 0x51415451
    for i in range(8192):
        state = _lcg(state)
        base = np.float32(state >> 16) / np.float32(65535) * np.float32(2) - np.float32(1)
        values.append(base * np.float32(0.75) + np.float32(i % 257 - 128) / np.float32(512))
    return _bf16_like(np.array(values, np.float32))


def wave() -> bytes:
    """bf16-kv-wave-128x8x16."""
    i = np.arange(16384, dtype=np.float32)
    slow = np.cos(i / np.float32(211)) * np.float32(0.125)
    return _bf16_like(np.sin(i / np.float32(37)) * np.float32(0.5) + slow)


def noisy() -> bytes:
    """f32-noisy-pass-through-64x12x16."""
    bits, state = [], 0x9E3779B9
    for i in range(12288):
        state = _lcg(state ^ i)
        bits.append(state & 0x80000000 | 124 + state % 6 << 23 | state & 0x7FFFFF)
    return np.array(bits, "<u4").tobytes()


def stress() -> bytes:
    """stress-signed-zero-nan-inf."""
    special = [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7FA12345, 0x3F800000, 0xBF800000]
    return np.array([special[i % 8] ^ i & 0xFF for i in range(4096)], "<u4").tobytes()


FIXTURES = {
    "bf16-kv-ramp-64x8x16": ramp,
    "bf16-kv-wave-128x8x16": wave,
    "f32-noisy-pass-through-64x12x16": noisy,
    "stress-signed-zero-nan-inf": stress,
}
