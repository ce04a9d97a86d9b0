"""The element types of the format: f32, f16 and bf16."""

import enum


class DType(enum.Enum):
    """An element type. The two 16-bit ones encode alike; only the label differs."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"

    width: int
    """Bytes of one element."""
    wire: bytes
    """The three dtype bytes of an exact body (format section 3)."""
    label: str
    """``f32``, ``f16`` or ``bf16``."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.width = 4 if label == "f32" else 2
        self.wire = {"f32": b"\x00\x00\x00", "f16": b"\x01\x02\x00", "bf16": b"\x02\x02\x00"}[label]

    @classmethod
    def parse(cls, text: str) -> "DType":
        """Return the dtype with one of these names: f32, fp32, float32, f16, fp16, float16, half, bf16, bfloat16.

        Raises:
            ValueError: for any other word.
        """
        try:
            return _NAMES[text.strip().lower()]
        except KeyError:
            raise ValueError(f"unknown dtype {text!r}, expected f32, f16 or bf16") from None

    @classmethod
    def from_wire(cls, wire: bytes) -> "DType":
        """Return the dtype of three wire bytes.

        Raises:
            ValueError: if they stand for no dtype.
        """
        try:
            return _WIRE[bytes(wire)]
        except KeyError:
            raise ValueError(f"no dtype has the wire bytes {bytes(wire).hex(' ')}") from None


_WIRE = {dtype.wire: dtype for dtype in DType}
_NAMES = {
    "f32": DType.F32,
    "fp32": DType.F32,
    "float32": DType.F32,
    "f16": DType.F16,
    "fp16": DType.F16,
    "float16": DType.F16,
    "half": DType.F16,
    "bf16": DType.BF16,
    "bfloat16": DType.BF16,
}
