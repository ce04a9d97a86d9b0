"""Byte planes of the C extension, with their filters, against their plain twins on every instruction set."""

import random

import pytest
from codec_twins import canonical, filtered, planes_of, raw_of_planes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qatqfs.codec import _native
from qatqfs.codec.planes import Transform

NAMES = {Transform.XOR: "xor", Transform.DIFFERENCE: "difference"}
FORMS = [
    (2, Transform.NONE, 1),
    *((2, Transform.XOR, stride) for stride in (1, 2, 3, 7, 16, 64, 100, 5000, 10**9)),
    (4, Transform.NONE, 1),
    (4, Transform.XOR, 1),
    (4, Transform.DIFFERENCE, 1),
]
BLOCK = 4096  # elements that the kernel merges before it undoes the filter in them
COUNTS = [*range(70), 127, 128, 129, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17]

pytestmark = pytest.mark.usefixtures("instruction_set")


def planes_by_hand(raw: bytes, width: int, kind: Transform, stride: int) -> bytes:
    return planes_of(filtered(raw, width, NAMES[kind], stride) if kind else raw, width)


def check(raw: bytes, width: int, kind: Transform, stride: int) -> None:
    planes, back = bytearray(len(raw)), bytearray(len(raw))
    _native.split_planes(raw, planes, width, kind, stride)
    assert planes == planes_by_hand(raw, width, kind, stride)
    _native.merge_planes(planes, back, width, kind, stride)
    assert back == raw


@pytest.mark.parametrize(("width", "kind", "stride"), FORMS)
def test_planes_split_and_merge_like_a_loop_at_every_size(width: int, kind: Transform, stride: int) -> None:
    for n in COUNTS:
        check(random.Random(n).randbytes(n * width), width, kind, stride)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([f for f in FORMS if f[1]]), st.integers(1, 300), st.binary(max_size=2000), st.integers(0, 7))
def test_planes_of_any_values_at_any_alignment(
    form: tuple[int, Transform, int], stride: int, data: bytes, offset: int
) -> None:
    width, kind, _ = form
    stride = stride if width == 2 else 1
    raw = memoryview(data)[: len(data) // width * width]
    planes, back = bytearray(len(raw) + offset), bytearray(len(raw) + offset)
    _native.split_planes(raw, memoryview(planes)[offset:], width, kind, stride)
    assert planes[offset:] == planes_by_hand(bytes(raw), width, kind, stride)
    _native.merge_planes(memoryview(planes)[offset:], memoryview(back)[offset:], width, kind, stride)
    assert back[offset:] == raw
    assert planes[:offset] == back[:offset] == bytes(offset)


@pytest.mark.parametrize("width", [2, 4])
def test_merging_is_the_definition_and_not_only_the_inverse(width: int) -> None:
    planes = random.Random(width).randbytes(width * 1001)
    back = bytearray(len(planes))
    _native.merge_planes(planes, back, width)
    assert back == raw_of_planes(planes, width)


@pytest.mark.parametrize("width", [2, 4])
def test_swapping_reverses_each_element(width: int) -> None:
    for n in COUNTS:
        raw = random.Random(n).randbytes(n * width)
        out = bytearray(len(raw))
        _native.swap_elements(raw, out, width)
        assert out == canonical(raw, width)


@pytest.mark.parametrize(("raw", "planes", "width"), [(4, 6, 2), (6, 6, 4), (6, 6, 3), (3, 3, 2), (8, 8, 8)])
@pytest.mark.parametrize("kernel", [_native.split_planes, _native.merge_planes, _native.swap_elements])
def test_sizes_that_do_not_fit_are_refused(kernel, raw: int, planes: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        kernel(bytes(raw), bytearray(planes), width)


@pytest.mark.parametrize(
    ("width", "kind", "stride"),
    [
        (2, Transform.DIFFERENCE, 1),
        (4, Transform.XOR, 2),
        (4, Transform.DIFFERENCE, 2),
        (2, Transform.XOR, 0),
        (2, 3, 1),
        (2, -1, 1),
    ],
)
def test_filters_that_are_not_of_the_format_are_refused(width: int, kind: int, stride: int) -> None:
    for kernel in (_native.split_planes, _native.merge_planes):
        with pytest.raises(ValueError, match="filter"):
            kernel(bytes(8), bytearray(8), width, kind, stride)
