"""Words that users write for dtypes and levels, and errors that can be shown and sent elsewhere."""

import copy
import pickle
import subprocess
import sys

import pytest

from qatqfs.codec import (
    ChecksumMismatch,
    DType,
    InvalidScale,
    Level,
    LimitExceeded,
    MixedDtypes,
    PayloadTooShort,
    QatcError,
    without_frames,
)


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ("f32 fp32 float32 F32", DType.F32),
        ("f16 fp16 float16 half Half", DType.F16),
        ("bf16 bfloat16 BF16", DType.BF16),
    ],
)
def test_dtypes_have_names(words: str, dtype: DType) -> None:
    assert {DType.parse(word) for word in words.split()} == {dtype}
    assert DType.parse(dtype.label) is dtype
    assert DType.from_wire(dtype.wire) is dtype


@pytest.mark.parametrize("word", ["", "f64", "int8", "f32le"])
def test_other_words_are_no_dtype(word: str) -> None:
    with pytest.raises(ValueError, match="dtype"):
        DType.parse(word)


@pytest.mark.parametrize("wire", [b"", b"\0\0", b"\1\2", b"\1\2\1", b"\3\2\0", b"\0\0\0\0"])
def test_other_bytes_are_no_dtype(wire: bytes) -> None:
    with pytest.raises(ValueError, match="wire"):
        DType.from_wire(wire)


def test_widths_are_bytes_of_an_element() -> None:
    assert [dtype.width for dtype in (DType.F32, DType.F16, DType.BF16)] == [4, 2, 2]


def test_levels_have_names() -> None:
    assert [Level.parse(word) for word in ("fast", "Balanced", "SMALL")] == list(Level)
    assert [level.label for level in Level] == ["fast", "balanced", "small"]
    with pytest.raises(ValueError, match="level"):
        Level.parse("9")


@pytest.mark.parametrize(
    "error",
    [
        PayloadTooShort(3, 28),
        InvalidScale(0x80000000),
        ChecksumMismatch(1, 2),
        LimitExceeded("chunks", 3, 2),
        MixedDtypes("f16", "f32"),
    ],
)
def test_errors_are_value_errors_that_can_be_copied_and_pickled(error: QatcError) -> None:
    assert isinstance(error, ValueError)
    assert str(error)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert str(again) == str(error)


def test_an_error_without_frames_has_none_in_its_cause_nor_in_what_was_handled_meanwhile() -> None:
    def raised(error: Exception, cause: Exception | None = None) -> Exception:
        with pytest.raises(type(error)):
            raise error from cause
        return error

    error, handled = OSError("told"), KeyError("handled")
    cause = raised(ValueError("cause"), raised(InvalidScale(0)))
    try:
        raise handled
    except KeyError:
        raised(error, cause)
    chain = [error, cause, cause.__cause__, handled]
    assert error.__context__ is handled
    assert all(one.__traceback__ for one in chain)
    assert without_frames(error) is error
    assert [one.__traceback__ for one in chain] == [None] * 4


def test_a_big_endian_machine_is_told_so_at_import() -> None:
    code = "import sys; sys.byteorder = 'big'; import qatqfs.codec"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: qatqfs works on little-endian machines only" in done.stderr
