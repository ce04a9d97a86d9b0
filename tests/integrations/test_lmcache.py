"""The serde for LMCache: with stand-ins for its blocks everywhere, with LMCache itself where that is installed.

LMCache runs here without a GPU from its wheel alone (``pip install --no-deps lmcache``) beside torch, numba, aiofiles,
aiohttp, requests, cachetools, cryptography, sortedcontainers, opentelemetry-sdk, prometheus_client and msgspec.
"""

import json
import math
import select
import subprocess
import sys
import threading
import time
from argparse import Namespace
from dataclasses import dataclass, field

import numpy as np
import pytest
from strict_decoder import decode_container as decode_strictly

from qatqfs.codec import QatcError, encode_container
from qatqfs.codec.dtypes import DType
from qatqfs.codec.level import Level
from qatqfs.integrations import lmcache as integration
from qatqfs.integrations.lmcache import ContainerDeserializer, ContainerSerializer, create_serde


@dataclass(frozen=True)
class Torch:
    """A stand-in for a torch dtype."""

    name: str
    itemsize: int

    def __str__(self) -> str:
        return f"torch.{self.name}"


F32, F16, BF16 = Torch("float32", 4), Torch("float16", 2), Torch("bfloat16", 2)
FP8, INT8, UINT8, F64 = Torch("float8_e4m3fn", 1), Torch("int8", 1), Torch("uint8", 1), Torch("float64", 8)
STORED = {F32: "f32", F16: "f16", BF16: "bf16", FP8: "bf16", INT8: "bf16", UINT8: "bf16", F64: "f32"}
SHAPE = (2, 3, 64, 128)


@dataclass
class Block:
    """A stand-in for a MemoryObj."""

    byte_array: bytearray
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[Torch] = field(default_factory=list)

    def get_shapes(self) -> list[tuple[int, ...]]:
        return self.shapes

    def get_dtypes(self) -> list[Torch]:
        return self.dtypes


def content(count: int, dtype: Torch, seed: int = 0) -> bytes:
    """Bytes of plausible values."""
    values = np.random.default_rng(seed).normal(size=count).astype("<f4")
    if dtype is F16:
        return values.astype("<f2").tobytes()
    if dtype is BF16:
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    if dtype.itemsize == 1:
        return (values * 20).astype(np.int8).tobytes()
    return values.astype("<f8").tobytes() if dtype is F64 else values.tobytes()


def block_of(*tensors: tuple[tuple[int, ...], Torch]) -> Block:
    raw = b"".join(content(math.prod(shape), dtype, seed) for seed, (shape, dtype) in enumerate(tensors))
    return Block(bytearray(raw), [shape for shape, _ in tensors], [dtype for _, dtype in tensors])


def stored(block: Block, serializer: ContainerSerializer) -> Block:
    """Serialize a block as LMCache does: into memory of the estimated size, of which a part is used."""
    target = Block(bytearray(b"\xee" * serializer.estimate_serialized_size(block)))
    size = serializer.serialize(block, target, None)
    assert 0 < size <= len(target.byte_array)
    return Block(target.byte_array[:size])


@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_a_block_comes_back_to_the_bit_and_any_decoder_restores_it(dtype):
    block = block_of((SHAPE, dtype))
    container = stored(block, ContainerSerializer())
    assert len(container.byte_array) < len(block.byte_array)
    found = decode_strictly(bytes(container.byte_array))
    assert (found.raw, found.dtype) == (bytes(block.byte_array), STORED[dtype])
    target = Block(bytearray(len(block.byte_array)))
    ContainerDeserializer().deserialize(container, target, None)
    assert target.byte_array == block.byte_array


def test_memory_behind_the_container_plays_no_part():
    block = block_of((SHAPE, BF16))
    container = stored(block, ContainerSerializer())
    container.byte_array += b"\xee" * 5000
    target = Block(bytearray(len(block.byte_array)))
    ContainerDeserializer().deserialize(container, target, None)
    assert target.byte_array == block.byte_array


def test_the_container_is_as_small_as_encode_makes_it():
    block = block_of(((1, 1, 4096, 512), BF16))
    size = len(stored(block, ContainerSerializer()).byte_array)
    assert size == pytest.approx(len(encode_container(block.byte_array, DType.BF16)), rel=0.005)


def test_the_level_reaches_the_encoder():
    block = block_of(((1, 30_000), BF16))
    block.byte_array[:] = np.arange(30_000, dtype="<u2").tobytes()  # "fast" looks for no differences
    sizes = [len(stored(block, ContainerSerializer(level)).byte_array) for level in (Level.SMALL, Level.FAST)]
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize(
    ("tensors", "dtype"),
    [
        ([(SHAPE, BF16), ((2, 1, 64, 16), FP8)], "bf16"),
        ([((2, 1, 64, 16), BF16), (SHAPE, F32)], "f32"),
        ([(SHAPE, F32), ((3,), INT8)], "bf16"),  # no whole number of f32 values
    ],
    ids=["bf16 and fp8", "mostly f32", "f32 of an odd length"],
)
def test_blocks_of_several_tensors_have_the_dtype_of_most_bytes(tensors, dtype):
    block = block_of(*tensors)
    container = stored(block, ContainerSerializer())
    assert decode_strictly(bytes(container.byte_array)).dtype == dtype
    target = Block(bytearray(len(block.byte_array)))
    ContainerDeserializer().deserialize(container, target, None)
    assert target.byte_array == block.byte_array


@pytest.mark.parametrize("shape", [(), (0, 4), (7,), (5, 3)])
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_noise_of_any_shape_fits_the_estimate(shape, dtype):
    noise = np.random.default_rng(1).bytes(math.prod(shape) * dtype.itemsize)
    block = Block(bytearray(noise), [shape], [dtype])
    container = stored(block, ContainerSerializer(chunk_size=4))
    target = Block(bytearray(len(noise)))
    ContainerDeserializer().deserialize(container, target, None)
    assert target.byte_array == noise


def test_damage_is_an_error_and_not_other_bytes():
    block = block_of((SHAPE, BF16))
    container = stored(block, ContainerSerializer())
    container.byte_array[len(container.byte_array) // 2] ^= 1
    with pytest.raises(QatcError):
        ContainerDeserializer().deserialize(container, Block(bytearray(len(block.byte_array))), None)


@pytest.mark.parametrize("difference", [-2, 2])
def test_a_block_of_another_size_is_refused(difference):
    block = block_of((SHAPE, BF16))
    container = stored(block, ContainerSerializer())
    with pytest.raises(ValueError, match="bytes"):
        ContainerDeserializer().deserialize(container, Block(bytearray(len(block.byte_array) + difference)), None)


def test_threads_may_share_a_serializer():
    serializer = ContainerSerializer()
    blocks = [block_of(((2, 2, 64, 128), dtype)) for dtype in (BF16, F16, F32, FP8) for _ in range(4)]
    results: dict[int, bytearray] = {}

    def work(number: int) -> None:
        target = Block(bytearray(len(blocks[number].byte_array)))
        for _ in range(5):
            ContainerDeserializer().deserialize(stored(blocks[number], serializer), target, None)
        results[number] = target.byte_array

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(blocks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: block.byte_array for number, block in enumerate(blocks)}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"levle": "fast"}, "no setting 'levle'"),
        ({"level": "best"}, "unknown level 'best'"),
        ({"chunk_size": 10}, "multiple of 4"),
        ({"chunk_size": "256K"}, "chunk_size"),
        ({"max_workers": 0}, "max_workers"),
        ({"verify": "no"}, "verify"),
    ],
)
def test_a_wrong_setting_is_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        create_serde(settings)


def test_importing_it_imports_neither_lmcache_nor_torch():
    code = "import sys, qatqfs.integrations.lmcache; print({'lmcache', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"


def test_a_name_that_it_has_not_is_no_reason_to_import_lmcache():
    with pytest.raises(AttributeError, match="Nonsense"):
        integration.Nonsense  # noqa: B018


# ---- with LMCache itself


@pytest.fixture(scope="module")
def lmcache():
    """What is needed of LMCache, which takes seconds to import."""
    torch = pytest.importorskip("torch")
    api = pytest.importorskip("lmcache.v1.distributed.api")
    wrapper = pytest.importorskip("lmcache.v1.distributed.l2_adapters.serde_wrapper")
    from lmcache.v1.distributed import config, l1_manager, l2_adapters, serde
    from lmcache.v1.distributed.l2_adapters import config as adapter_config

    return Namespace(
        torch=torch,
        api=api,
        serde=serde,
        wrapper=wrapper,
        create_adapter=l2_adapters.create_l2_adapter,
        parse=adapter_config.parse_args_to_l2_adapters_config,
        l1_config=config,
        l1_manager=l1_manager,
    )


@pytest.fixture
def storage(lmcache, tmp_path):
    """LMCache's first tier, and its fs adapter with our serde, from a configuration as users write it."""
    spec = {
        "type": "plugin",
        "module_path": "qatqfs.integrations.lmcache",
        "class_name": "ContainerFSAdapter",
        "adapter_params": {"base_path": str(tmp_path / "kv")},
        "serde": {"type": "qatqfs", "level": "balanced", "max_workers": 2},
    }
    (config,) = lmcache.parse(Namespace(l2_adapter=[json.dumps(spec)])).adapters
    memory = lmcache.l1_config.L1MemoryManagerConfig(size_in_bytes=64 << 20, use_lazy=False, shm_name="")
    l1 = lmcache.l1_manager.L1Manager(lmcache.l1_config.L1ManagerConfig(memory_config=memory))
    adapter = lmcache.wrapper.SerdeL2AdapterWrapper(
        inner=lmcache.create_adapter(config, l1.get_l1_memory_desc()),
        serde=lmcache.serde.create_serde_processor(config.serde_config),
        l1_manager=l1,
    )
    yield Namespace(l1=l1, adapter=adapter, directory=tmp_path / "kv", lmcache=lmcache)
    adapter.close()
    l1.close()


def wait(descriptor: int, result):
    """Wait for a task of an adapter, whose end its event descriptor tells."""
    from lmcache.v1.platform import consume_fd

    deadline = time.monotonic() + 60
    while not (found := result()):
        assert time.monotonic() < deadline, "the adapter does not answer"
        if select.select([descriptor], [], [], 1.0)[0]:
            consume_fd(descriptor)
    return found


def key_of(storage, number: int):
    return storage.lmcache.api.ObjectKey(chunk_hash=number.to_bytes(16, "big"), model_name="tiny/model", kv_rank=0)


def reserve(storage, key, shape, dtype):
    layout = storage.lmcache.api.MemoryLayoutDesc(shapes=[storage.lmcache.torch.Size(shape)], dtypes=[dtype])
    return storage.l1.reserve_write(keys=[key], is_temporary=[False], layout_desc=layout, tag="test")[key][1]


def values_of(storage, dtype, seed: int = 0):
    torch = storage.lmcache.torch
    found = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return found.to(dtype) if dtype.is_floating_point else (found * 20).to(dtype)


def store(storage, key, values) -> None:
    block = reserve(storage, key, SHAPE, values.dtype)
    block.tensor.copy_(values)
    task = storage.adapter.submit_store_task([key], [block])
    done = wait(storage.adapter.get_store_event_fd(), storage.adapter.pop_completed_store_tasks)
    assert done[task].is_successful()


def load(storage, key, dtype, number: int = 1000):
    """Load into another block of the first tier; returns its bytes, or nothing if it is a miss."""
    block = reserve(storage, key_of(storage, number), SHAPE, dtype)
    task = storage.adapter.submit_load_task([key], [block])
    descriptor = storage.adapter.get_load_event_fd()
    found = wait(descriptor, lambda: [each] if (each := storage.adapter.query_load_result(task)) is not None else [])
    return bytes(block.byte_array) if found[0].test(0) else None


DTYPES = ["float32", "float16", "bfloat16", "float8_e4m3fn", "uint8"]


@pytest.mark.parametrize("name", DTYPES)
def test_lmcache_stores_and_loads_through_its_fs_adapter(storage, name):
    dtype = getattr(storage.lmcache.torch, name)
    values = values_of(storage, dtype)
    raw = values.contiguous().view(storage.lmcache.torch.uint8).numpy().tobytes()
    store(storage, key_of(storage, 1), values)
    (path,) = storage.directory.glob("*.data")
    assert decode_strictly(path.read_bytes()).raw == raw
    assert load(storage, key_of(storage, 1), dtype) == raw
    expected = len(encode_container(raw, DType.parse(STORED.get(Torch(name, dtype.itemsize), "bf16"))))
    assert path.stat().st_size == pytest.approx(expected, rel=0.005)


def test_for_lmcache_a_damaged_block_is_a_miss(storage):
    dtype = storage.lmcache.torch.bfloat16
    store(storage, key_of(storage, 1), values_of(storage, dtype))
    (path,) = storage.directory.glob("*.data")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert load(storage, key_of(storage, 1), dtype) is None


def test_for_lmcache_a_block_that_is_cut_off_is_a_miss(storage):
    dtype = storage.lmcache.torch.bfloat16
    store(storage, key_of(storage, 1), values_of(storage, dtype))
    (path,) = storage.directory.glob("*.data")
    path.write_bytes(path.read_bytes()[:-1])
    assert load(storage, key_of(storage, 1), dtype) is None


def test_for_lmcache_a_block_that_is_not_there_is_a_miss(storage):
    assert load(storage, key_of(storage, 1), storage.lmcache.torch.bfloat16) is None


def test_without_a_serde_a_file_that_is_cut_off_stays_a_miss(lmcache, storage, tmp_path):
    spec = {
        "type": "plugin",
        "module_path": "qatqfs.integrations.lmcache",
        "class_name": "ContainerFSAdapter",
        "adapter_params": {"base_path": str(tmp_path / "raw")},
    }
    (config,) = lmcache.parse(Namespace(l2_adapter=[json.dumps(spec)])).adapters
    adapter = lmcache.create_adapter(config, None)
    plain = Namespace(l1=storage.l1, adapter=adapter, lmcache=lmcache)
    try:
        dtype = lmcache.torch.bfloat16
        store(plain, key_of(plain, 1), values_of(plain, dtype))
        assert load(plain, key_of(plain, 1), dtype) is not None
        (path,) = (tmp_path / "raw").glob("*.data")
        path.write_bytes(path.read_bytes()[:-1])
        assert load(plain, key_of(plain, 1), dtype, number=1001) is None
    finally:
        adapter.close()
