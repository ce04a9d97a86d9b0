"""A serde for LMCache's L2 adapters (its multiprocess mode): blocks are stored as containers, without a mount.

A storage adapter of LMCache can use a *serde*, which turns a block in memory into bytes and back. This serde writes
QATC containers, which any decoder restores exactly. It verifies every checksum when it reads one. To load it, name
this module in an adapter of type ``plugin`` (``--l2-adapter``)::

    {"type": "plugin", "module_path": "qatqfs.integrations.lmcache", "class_name": "ContainerFSAdapter",
     "adapter_params": {"base_path": "/data/kv"}, "serde": {"type": "qatqfs"}}

:class:`ContainerFSAdapter` is LMCache's own ``fs`` adapter with the same parameters. In addition it loads files that
are shorter than the memory that was reserved for them. Containers differ in length, and the ``fs`` adapter of LMCache
0.5 treats such a file as cut off. Its ``use_odirect`` gains nothing here: it works only for files of whole disk blocks,
and is not used for others. The serde has these settings besides ``type``: ``level`` (``fast``, ``balanced`` or
``small``), ``chunk_size`` (bytes), ``verify`` (decode each chunk once before it is stored; default true) and
``max_workers`` (threads).

LMCache and torch are imported only when they are needed. So :class:`ContainerSerializer` and
:class:`ContainerDeserializer` can be used and tested without them.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from qatqfs.codec import (
    DEFAULT_CHUNK_BYTES,
    DType,
    Level,
    Memory,
    decode_into,
    encode_into,
    encoded_size_bound,
)
from qatqfs.codec.stride import row_widths

SERDE_TYPE = "qatqfs"
"""Name of the serde in LMCache's configuration."""
_DTYPES = {"torch.float32": DType.F32, "torch.float16": DType.F16, "torch.bfloat16": DType.BF16}
_ADAPTER, _ADAPTER_CONFIG = "ContainerFSAdapter", "ContainerFSAdapterConfig"


class Layout(Protocol):
    """LMCache's MemoryLayoutDesc: shapes and torch dtypes of the consecutive tensors in a block."""

    shapes: Sequence[Sequence[int]]
    dtypes: Sequence[Any]


class Block(Protocol):
    """The part of LMCache's MemoryObj that is used here."""

    @property
    def byte_array(self) -> Any:
        """Return the block's memory."""
        ...

    def get_shapes(self) -> Sequence[Sequence[int]]:
        """Return the shapes of its tensors."""
        ...

    def get_dtypes(self) -> Sequence[Any]:
        """Return their torch dtypes."""
        ...


class ContainerSerializer:
    """Encodes blocks. Any number of threads may use it at once.

    Args:
        level: how hard to search for a smaller form.
        chunk_size: raw bytes in each chunk of a container, a multiple of 4.
        verify: decode every chunk again and compare it before the block counts as encoded.

    Raises:
        ValueError: the chunk size is not legal.
    """

    def __init__(
        self, level: Level = Level.BALANCED, *, chunk_size: int = DEFAULT_CHUNK_BYTES, verify: bool = True
    ) -> None:
        if chunk_size < DType.F32.width or chunk_size % DType.F32.width:
            raise ValueError(f"chunk_size must be a multiple of {DType.F32.width} bytes, not {chunk_size}")
        self._level = level
        self._chunk_size = chunk_size
        self._verify = verify
        self._memories: dict[tuple[DType, tuple[int, ...]], Memory] = {}

    def serialize(self, src: Block, dst: Block, key: object) -> int:
        """Encode a block into the memory of another; return the number of bytes used.

        Raises:
            EncodingFault: a decoded chunk differs from the original.
            ValueError: the memory is too small.
        """
        raw = _memory_of(src)
        shapes, dtypes = src.get_shapes(), src.get_dtypes()
        dtype = _dtype(shapes, dtypes, len(raw))
        widths = _row_widths(shapes, dtypes, dtype)
        # Similar blocks have similar chunks, so their lessons are kept. A lesson that is lost in a race does no harm.
        memory = self._memories.setdefault((dtype, widths), Memory())
        return encode_into(
            raw,
            _memory_of(dst),
            dtype,
            values_per_chunk=self._chunk_size // dtype.width,
            level=self._level,
            row_widths=widths,
            memory=memory,
            verified=self._verify,
        )

    def estimate_serialized_size(self, layout_desc: Layout) -> int:
        """Return the largest encoded size in bytes of a block with a layout."""
        size = _size(layout_desc.shapes, layout_desc.dtypes)
        dtype = _dtype(layout_desc.shapes, layout_desc.dtypes, size)
        return encoded_size_bound(size, dtype, values_per_chunk=self._chunk_size // dtype.width)


class ContainerDeserializer:
    """Decodes blocks. Any number of threads may use it at once."""

    def deserialize(self, src: Block, dst: Block, key: object) -> None:
        """Decode a block from the memory of another, which may be longer than the container in it.

        Raises:
            QatcError: the container is damaged; LMCache then treats the block as missing.
            ValueError: the container holds a block of another size.
        """
        out = _memory_of(dst)
        size = decode_into(_memory_of(src), out)
        if size != len(out):
            raise ValueError(f"the container holds {size} bytes, the block {len(out)}")


def create_serde(settings: Mapping[str, object]) -> Any:
    """Return LMCache's SerdeProcessor for the settings in its configuration.

    Raises:
        ImportError: LMCache is not installed, or is too old to have serdes.
        ValueError: a setting is unknown or wrong.
    """
    known: dict[str, object] = {
        "level": "balanced",
        "chunk_size": DEFAULT_CHUNK_BYTES,
        "verify": True,
        "max_workers": 1,
    }
    unknown = sorted(set(settings).difference(known))
    if unknown:
        raise ValueError(f"the {SERDE_TYPE} serde has no setting {unknown[0]!r}; it has {', '.join(known)}")
    chosen = known | dict(settings)
    verify = chosen["verify"]
    if not isinstance(verify, bool):
        raise ValueError(f"verify of the {SERDE_TYPE} serde must be true or false, not {verify!r}")
    level = Level.parse(str(chosen["level"]))
    chunk_size, workers = _positive(chosen, "chunk_size"), _positive(chosen, "max_workers")
    serializer = ContainerSerializer(level, chunk_size=chunk_size, verify=verify)
    processor: Any = _lmcache("serde").AsyncSerdeProcessor
    return processor(serializer, ContainerDeserializer(), max_workers=workers)


def _positive(settings: Mapping[str, object], name: str) -> int:
    value = settings[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} of the {SERDE_TYPE} serde must be a whole number above zero, not {value!r}")
    return value


def register() -> None:
    """Register the serde with LMCache in this process, if it is not registered yet.

    Raises:
        ImportError: LMCache is not installed, or is too old to have serdes.
    """
    serdes = _lmcache("serde")
    if SERDE_TYPE not in serdes.get_registered_serde_types():
        serdes.register_serde_factory(SERDE_TYPE, create_serde)


def __getattr__(name: str) -> Any:
    """Make the adapter and register the serde when LMCache first asks for the adapter."""
    if name not in (_ADAPTER, _ADAPTER_CONFIG):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register()
    adapters = _lmcache("l2_adapters.fs_l2_adapter")
    globals()[_ADAPTER] = _adapter_class(adapters)
    globals()[_ADAPTER_CONFIG] = adapters.FSL2AdapterConfig
    return globals()[name]


def _adapter_class(adapters: Any) -> type:
    base: Any = adapters.FSL2Adapter

    class ContainerFSAdapter(base):  # type: ignore[misc]  # its class is known only at run time
        """LMCache's fs adapter, for files that may be shorter than the memory that a serde reserves for them."""

        def __init__(self, config: Any, l1_memory_desc: object = None) -> None:
            super().__init__(config)

        def submit_load_task(self, keys: list[Any], objects: list[Any]) -> Any:
            """Load files, and use only as much of each block's memory as its file is long."""
            for key, block in zip(keys, objects, strict=True):
                if not _is_plain_memory(block):
                    continue  # without a serde, a shorter file is cut off
                try:
                    size = os.stat(self._key_to_path(key)).st_size
                except OSError:
                    continue  # the load itself reports the missing file
                if size <= block.get_physical_size():
                    block.set_used_size(size)
            return super().submit_load_task(keys, objects)

    return ContainerFSAdapter


def _lmcache(name: str) -> Any:
    """Import a module of LMCache's distributed storage."""
    import importlib

    try:
        return importlib.import_module(f"lmcache.v1.distributed.{name}")
    except ImportError as err:
        raise ImportError(f"LMCache 0.5 or later is needed, with all that it requires: {err}") from err


def _memory_of(block: Block) -> memoryview:
    return memoryview(block.byte_array).cast("B")


def _is_plain_memory(block: Block) -> bool:
    """Whether a block holds bytes for a serde instead of tensors."""
    (shape, *_), (dtype, *more) = block.get_shapes(), block.get_dtypes()
    return str(dtype) == "torch.uint8" and len(shape) == 1 and not more


def _size(shapes: Sequence[Sequence[int]], dtypes: Sequence[Any]) -> int:
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in zip(shapes, dtypes, strict=True))


def _dtype(shapes: Sequence[Sequence[int]], dtypes: Sequence[Any], size: int) -> DType:
    """Return the dtype of the container: that of most of the bytes, or else one of a fitting width."""
    largest = max(zip(shapes, dtypes, strict=True), key=lambda each: _size([each[0]], [each[1]]), default=None)
    if largest is None:
        return DType.BF16
    found = _DTYPES.get(str(largest[1]))
    if found is None:  # for example 8-bit values: byte planes of pairs
        found = DType.F32 if largest[1].itemsize >= DType.F32.width else DType.BF16
    return DType.BF16 if size % found.width and found is DType.F32 else found


def _row_widths(shapes: Sequence[Sequence[int]], dtypes: Sequence[Any], dtype: DType) -> tuple[int, ...]:
    """Return the possible row widths in elements, from the first tensor with elements as wide as the container's."""
    shape = next((s for s, d in zip(shapes, dtypes, strict=True) if d.itemsize == dtype.width), ())
    return row_widths(shape)
