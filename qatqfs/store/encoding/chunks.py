"""Encode chunks as payloads, and verify each payload at once.

What is encoded here soon becomes the only copy of somebody's data. So each payload is decoded right after it was made,
and compared with the bytes it was made from. A fault of the encoder or of the machine's memory is noticed while these
bytes still exist.
"""

import errno
import itertools
import operator
from collections.abc import Sequence

from qatqfs.codec import DType, EncodingFault, Level, Memory, encode_payload, encode_payloads

Buffer = bytes | bytearray | memoryview


class StreamEncoder:
    """Encodes the chunks of one stream of values, such as one file.

    It remembers what earlier chunks taught, so that later ones need less search. Any number of threads may share it.

    Args:
        dtype: of the values.
        level: effort.
        verified: decode each payload and compare.
    """

    def __init__(self, dtype: DType, level: Level, *, verified: bool = True) -> None:
        self._dtype = dtype
        self._level = level
        self._verified = verified
        self._memory = Memory()

    def encode(self, chunks: Sequence[Buffer], row_widths: Sequence[Sequence[int]]) -> list[bytes]:
        """Return the payloads of consecutive chunks, none of them the last of a file.

        The payloads are those that :meth:`encode_one` returns, made in fewer calls that hold the interpreter's lock.

        Args:
            chunks: raw bytes of each, whole values only.
            row_widths: for each chunk the elements that a row may have. They are hints, which may be wrong.

        Raises:
            OSError: EIO when a payload does not decode to its chunk. The encoder or the machine's memory is at fault.
        """
        payloads: list[bytes] = []
        for widths, group in itertools.groupby(zip(chunks, row_widths, strict=True), key=operator.itemgetter(1)):
            some = [chunk for chunk, _ in group]
            try:
                payloads += encode_payloads(
                    some,
                    self._dtype,
                    level=self._level,
                    row_widths=widths,
                    memory=self._memory,
                    verified=self._verified,
                )
            except EncodingFault as err:
                raise OSError(errno.EIO, str(err)) from err
        return payloads

    def encode_one(self, chunk: Buffer, row_widths: Sequence[int] = (), *, appendable: bool = False) -> bytes:
        """Return the payload of one chunk, which may be the last of a file.

        A last value that is cut is padded with zeros. The index frame has the true length.

        Args:
            chunk: raw bytes.
            row_widths: elements that a row may have. They are hints, which may be wrong.
            appendable: an index frame is going to follow, see :func:`qatqfs.codec.encode_payload`.

        Raises:
            OSError: as :meth:`encode`.
        """
        if len(chunk) % self._dtype.width:
            chunk = bytes(chunk) + bytes(-len(chunk) % self._dtype.width)
        try:
            return encode_payload(
                chunk,
                self._dtype,
                level=self._level,
                appendable=appendable,
                row_widths=row_widths,
                memory=self._memory,
                verified=self._verified,
            )
        except EncodingFault as err:
            raise OSError(errno.EIO, str(err)) from err
