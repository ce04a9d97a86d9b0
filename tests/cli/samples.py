"""Content for the tests of the command line."""

import hashlib
import os
from pathlib import Path

import numpy as np

VECTORS = Path(__file__).parent.parent / "data" / "vectors"
CHUNK = 4096
"""Chunk size that the tests encode with, so that small files have several chunks."""


def bf16_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes of plausible bf16 tensor values, of any length."""
    values = np.random.default_rng(seed).normal(size=size // 2 + 1).astype("<f4")
    return (values.view("<u4") >> 16).astype("<u2").tobytes()[:size]


def flip(path: Path, offset: int) -> None:
    """Damage one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(data)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(directory: Path) -> set[str]:
    """Every name below a directory, hidden and temporary ones too."""
    return {os.path.relpath(path, directory) for path in directory.rglob("*")}
