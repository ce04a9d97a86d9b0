"""What a reader refuses although the format allows it. The defaults are those of the reference (format section 8)."""

from dataclasses import dataclass

from qatqfs.codec.container import (
    CONTAINER_HEADER_SIZE,
    MAX_CHUNKS,
    MAX_PAYLOAD_BYTES,
    MAX_TOTAL_VALUES,
    MIN_CHUNK_SIZE,
    ContainerHeader,
)
from qatqfs.codec.errors import InvalidContainer, LimitExceeded
from qatqfs.codec.payload import MAX_VALUES


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest sizes that a reader accepts.

    Attributes:
        max_chunk_values: values in one chunk. The reader may have to allocate their raw bytes.
        max_payload_bytes: encoded bytes of one chunk.
        max_chunks: number of chunks, ``None`` for any.
        max_total_values: values in all chunks together, ``None`` for any number.
        max_walked_chunks: chunks of a container without a valid index, ``None`` for any number. A reader has to find
            each of them, and needs 16 bytes of memory for each.
    """

    max_chunk_values: int = MAX_VALUES
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    max_chunks: int | None = MAX_CHUNKS
    max_total_values: int | None = MAX_TOTAL_VALUES
    max_walked_chunks: int | None = None

    def check(self, header: ContainerHeader, size: int) -> None:
        """Compare the claims of a header with what a file of ``size`` bytes can hold, and with the limits.

        Raises:
            InvalidContainer: the file has no room for so many chunks, or they have none for so many values.
            LimitExceeded: a limit is exceeded.
        """
        if header.chunk_count > (size - CONTAINER_HEADER_SIZE) // MIN_CHUNK_SIZE:
            raise InvalidContainer(f"{size} bytes have no room for {header.chunk_count} chunks")
        if self.max_chunks is not None and header.chunk_count > self.max_chunks:
            raise LimitExceeded("chunks in a container", header.chunk_count, self.max_chunks)
        if self.max_total_values is not None and header.total_values > self.max_total_values:
            raise LimitExceeded("values in a container", header.total_values, self.max_total_values)
        if header.total_values > header.chunk_count * MAX_VALUES:
            raise InvalidContainer(f"{header.chunk_count} chunks cannot hold {header.total_values} values")

    def check_walk(self, header: ContainerHeader) -> None:
        """Raise LimitExceeded if there are too many chunks to find each by a walk."""
        if self.max_walked_chunks is not None and header.chunk_count > self.max_walked_chunks:
            raise LimitExceeded("chunks in a container without an index", header.chunk_count, self.max_walked_chunks)


UNLIMITED = Limits(max_chunks=None, max_total_values=None)
"""For files of any size, also those of more than 2**32 values, which the reference refuses by default."""
