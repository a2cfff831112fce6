"""What the lowering knows of one ONNX tensor: where it is in the file, in which order, in which integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.backends.coral import layout
from edgec.backends.coral.quantization import Quantization

FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, eq=False)
class Value:
    """An ONNX tensor as the file holds it.

    Attributes:
        name: the ONNX tensor's.
        shape: ONNX shape.
        order: memory order of the file's tensor (:mod:`edgec.backends.coral.layout`).
        stored: shape of the file's tensor; as many elements as ``shape``.
        place: the file's tensor; -1 for a constant, which is written when an operator asks for it.
        data: a constant's contents, in ONNX's shape and order.
        quantization: ``None`` for a float tensor.
        half: whether the model stores a constant's float32 numbers as float16.
        dtype: type of the numbers that the tensor stands for: float32, quantized or not, or integers and booleans,
            which are in the file as they are.
    """

    name: str
    shape: tuple[int, ...]
    order: layout.Order
    stored: tuple[int, ...]
    place: int = -1
    data: np.ndarray | None = None
    quantization: Quantization | None = None
    half: bool = False
    dtype: np.dtype = FLOAT32

    def __post_init__(self) -> None:
        assert self.quantization is None or self.dtype.kind == "f", f"'{self.name}': what has a scale stands for floats"

    @property
    def is_constant(self) -> bool:
        """Whether the contents are known."""
        return self.data is not None

    def reshaped(self, shape: Sequence[int]) -> Value:
        """The same memory seen in another ONNX shape: ONNX's Reshape, for free."""
        data = None if self.data is None else self.data.reshape(tuple(shape))
        return replace(self, shape=tuple(shape), data=data)

    @property
    def is_number(self) -> bool:
        """Whether it stands for floats, and not for integers or booleans."""
        return self.dtype.kind == "f"

    def known(self) -> np.ndarray:
        """A constant's contents."""
        assert self.data is not None, self.name
        return self.data

    def real(self) -> np.ndarray:
        """A constant's contents as float32."""
        if self.quantization is None:
            return np.asarray(self.known(), np.float32)
        return self.quantization.real(self.known())


def constant(name: str, data: np.ndarray, quantization: Quantization | None = None, half: bool = False) -> Value:
    """A value known when the file is written."""
    shape = tuple(data.shape)
    real = quantization is not None or data.dtype.kind == "f"
    dtype = FLOAT32 if real else data.dtype
    return Value(name, shape, layout.row_major(shape), shape, -1, data, quantization, half, dtype)
