"""Decide what a draft is made of: unmodified chunks are copied from the base, the others are encoded."""

import itertools
from dataclasses import dataclass

from qatqfs.codec import MAX_CHUNKS, DType, Level, QatcError
from qatqfs.store.counters import Counters
from qatqfs.store.encoding.chunks import StreamEncoder
from qatqfs.store.encoding.workers import Payloads
from qatqfs.store.options import StoreOptions
from qatqfs.store.reading.container import ContainerFile, io_error
from qatqfs.store.staging.draft import Draft
from qatqfs.store.staging.snapshot import Snapshot, SnapshotLost
from qatqfs.store.staging.view import chunks_of
from qatqfs.store.tensors.dtype import choose_dtype
from qatqfs.store.tensors.header import NO_HEADER, Sampler, TensorHeader, read_header


@dataclass(frozen=True, slots=True)
class Plan:
    """The container that a snapshot becomes.

    Attributes:
        dtype: of its values.
        chunk_size: raw bytes of a chunk.
        header: what the content says about its tensors.
        base: the container whose unmodified chunks are copied, ``None`` to encode everything.
    """

    dtype: DType
    chunk_size: int
    header: TensorHeader
    base: ContainerFile | None = None


def make_plan(
    snapshot: Snapshot, draft: Draft | None, path: bytes, explicit: DType | None, options: StoreOptions
) -> Plan:
    """Choose dtype and chunk size: those of what is encoded already, unless another dtype was asked for.

    Args:
        snapshot: the content.
        draft: the chunks that were encoded ahead, if any.
        path: the file's logical path.
        explicit: dtype that an attribute or a rule names.
        options: of the store.

    Raises:
        OSError: reading samples of the content failed.
    """
    size, chunk_size = snapshot.size, snapshot.chunk_size

    def sample(offset: int, length: int) -> bytes:
        return bytes(snapshot.read(offset, min(offset + length, size), final=False))

    base = snapshot.view.base
    if base is not None and base.length and size and size <= chunk_size * MAX_CHUNKS:
        dtype = base.container.dtype
        aligned = base.chunk_size_of(options.chunk_size) == (chunk_size, True) and chunk_size % dtype.width == 0
        if aligned and explicit in (None, dtype) and _any_unmodified(snapshot):
            return Plan(dtype, chunk_size, _header_if_readable(size, sample), base)

    header = read_header(size, sample)
    dtype = choose_dtype(path, size, sample, explicit=explicit, header=header)
    # A draft with another element width was misled by the beginning of the file, a header or zeros.
    if draft is not None and explicit in (None, draft.dtype) and draft.dtype.width == dtype.width:
        return Plan(draft.dtype, draft.chunk_size, header)
    return Plan(dtype, options.chunk_size, header)


def _header_if_readable(size: int, sample: Sampler) -> TensorHeader:
    """Read the header of a content whose first chunk may be damaged in the base."""
    try:
        return read_header(size, sample)
    except OSError:  # a damaged chunk is copied as it is, and the others can still be committed
        return NO_HEADER


def _any_unmodified(snapshot: Snapshot) -> bool:
    return any(snapshot.is_unmodified(chunk) for chunk in range(chunks_of(snapshot.size, snapshot.chunk_size)))


def payloads_of(
    snapshot: Snapshot, plan: Plan, level: Level, old: Draft | None, stale: set[int], counters: Counters
) -> Payloads:
    """Return a function that makes the payloads of a snapshot.

    Args:
        snapshot: the content.
        plan: for the snapshot.
        level: effort of the encoder.
        old: a draft that has some of the payloads already.
        stale: chunks of that draft that changed since.
        counters: count what is encoded.
    """
    total = chunks_of(snapshot.size, plan.chunk_size)
    encoder = StreamEncoder(plan.dtype, level)
    alike = old if old is not None and (old.dtype, old.chunk_size) == (plan.dtype, plan.chunk_size) else None
    indexed = total > 1 or snapshot.size % plan.dtype.width != 0

    def known(chunk: int) -> bytes | None:
        if plan.base is not None and snapshot.is_unmodified(chunk):
            try:
                return plan.base.container.raw_chunk(chunk)
            except QatcError as err:
                raise io_error(f"chunk {chunk} cannot be taken over: {err}") from err
        if alike is not None and chunk < alike.count and chunk not in stale:
            return alike.payload(chunk)
        return None

    zeros: list[bytes] = []

    def known_or_hole(chunk: int) -> bytes | None:
        payload = known(chunk)
        if payload is None and snapshot.chunk_size == plan.chunk_size and chunk < total - 1 and snapshot.is_hole(chunk):
            if not zeros:
                zeros.append(StreamEncoder(plan.dtype, level).encode_one(bytes(plan.chunk_size)))
            return zeros[0]
        return payload

    def encoded(first: int, stop: int) -> list[bytes]:
        raw = snapshot.read(first * plan.chunk_size, min(stop * plan.chunk_size, snapshot.size))
        parts = [raw[start : start + plan.chunk_size] for start in range(0, len(raw), plan.chunk_size)]
        widths = plan.header.row_widths_of_chunks(range(first, stop), plan.chunk_size, plan.dtype)
        whole = len(parts) - (stop == total)
        result = encoder.encode(parts[:whole], widths[:whole])
        result += [encoder.encode_one(part, widths[-1], appendable=indexed) for part in parts[whole:]]
        for part, payload in zip(parts, result, strict=True):
            note_encoded(counters, len(part), payload)
        return result

    def payloads(first: int, stop: int) -> list[bytes]:
        if snapshot.cancelled:
            raise SnapshotLost("the file was cut or removed")
        result: list[bytes] = []
        there = [known_or_hole(chunk) for chunk in range(first, stop)]
        for missing, chunks in itertools.groupby(range(first, stop), key=lambda chunk: there[chunk - first] is None):
            some = list(chunks)
            if missing:
                result += encoded(some[0], some[-1] + 1)
            else:
                result += [payload for chunk in some if (payload := there[chunk - first]) is not None]
        return result

    return payloads


def note_encoded(counters: Counters, size: int, payload: bytes) -> None:
    """Count an encoded chunk, which has ``size`` raw bytes."""
    counters.add("chunks_encoded")
    counters.add("encoded_raw_bytes", size)
    counters.add("encoded_stored_bytes", len(payload))
