"""The four public fixtures of the reference codec, made from their descriptions.

``lcg(s) = 1664525 * s + 1013904223`` modulo 2**32; f32 arithmetic rounds at every step; "bf16-like" clears the low
16 bits of an f32. The last bit of sin and cos is the platform's.
"""

import numpy as np

REFERENCE_BYTES = {"ramp": 12509, "wave": 7554, "noisy": 32108, "stress": 199}
"""What the reference codec's smallest payload of each takes."""


def _lcg(state: int) -> int:
    return (1664525 * state + 1013904223) & 0xFFFFFFFF


def _bf16_like(values: np.ndarray) -> bytes:
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).astype("<u4").tobytes()


def ramp() -> bytes:
    state = 0x51415451
    bases = []
    for _ in range(8192):
        state = _lcg(state)
        bases.append(state >> 16)
    f32 = np.float32
    base = np.array(bases, f32) / f32(65535) * f32(2) - f32(1)
    step = ((np.arange(8192) % 257).astype(f32) - f32(128)) / f32(512)
    return _bf16_like(base * f32(0.75) + step)


def wave() -> bytes:
    i, f32 = np.arange(16384).astype(np.float32), np.float32
    return _bf16_like(np.sin(i / f32(37)) * f32(0.5) + np.cos(i / f32(211)) * f32(0.125))


def noisy() -> bytes:
    state = 0x9E3779B9
    words = []
    for i in range(12288):
        state = _lcg(state ^ i)
        words.append(state & 0x80000000 | (124 + state % 6) << 23 | state & 0x7FFFFF)
    return np.array(words, "<u4").tobytes()


def stress() -> bytes:
    patterns = [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7FA12345, 0x3F800000, 0xBF800000]
    return np.array([patterns[i % 8] ^ (i & 0xFF) for i in range(4096)], "<u4").tobytes()


FIXTURES = {"ramp": ramp, "wave": wave, "noisy": noisy, "stress": stress}
