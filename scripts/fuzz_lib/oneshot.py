"""libzstd's one-shot decoder, called without any code of qatqfs: the oracle for zstd data (format section 4.5).

It calls the library that the extension is linked with, because other versions may decode some damaged frames to other
bytes.
"""

import ctypes

from qatqfs.codec import _native  # loads the library

_decompress = ctypes.CDLL(_native.__file__).ZSTD_decompress
_decompress.restype = ctypes.c_size_t


def one_shot(data: bytes, size: int) -> bytes | None:
    """Return the content of zstd frames, ``None`` unless it is exactly so many bytes."""
    out = ctypes.create_string_buffer(size + 1)
    made: int = _decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data)))
    return out.raw[:size] if made == size else None
