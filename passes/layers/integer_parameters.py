"""The scale and zero-point of a QuantizeLinear or DequantizeLinear, in every form that ONNX has had.

Opset 10 has one scale for a tensor; 13 one for each position of ``axis`` as well; 19 floats of 8 bits, and half floats
on the other side; 21 integers of 4 and 16 bits, and one scale for each block of ``block_size`` values along ``axis``;
23 floats of 4 bits. A scale for the whole tensor may be a number, or a vector of one. Source: ONNX's operator
documentation, QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Node, constant_of
from edgec.ir.stored import numpy_dtype


@dataclass(frozen=True)
class IntegerParameters:
    """``real = scale * (integer - zero_point)``.

    Attributes:
        scale: positive; one for all, for each position of ``axis``, or for each block.
        zero_point: shaped as the scale is.
        axis: of a vector of scales, or of the blocks.
        block: how many values along ``axis`` share a scale; 0 where there are no blocks.
        integers: their type.
        given: the type of the reals.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    block: int
    integers: np.dtype
    given: np.dtype

    @property
    def single(self) -> bool:
        """Whether there is one scale for the whole tensor, be it a number or a vector of one."""
        return self.scale.size == 1

    @property
    def begins_at_zero(self) -> bool:
        """Whether the least integer of every channel stands for 0."""
        least = _limits(self.integers)
        return least is not None and bool((self.zero_point == least[0]).all())

    def same(self, other: IntegerParameters) -> bool:
        """Whether both stand for the same reals."""
        if self.single and other.single:
            alike = self.scale.reshape(()) == other.scale.reshape(())
            return bool(alike and self.zero_point.reshape(()) == other.zero_point.reshape(()))
        layout = (self.axis, self.block, self.scale.shape) == (other.axis, other.block, other.scale.shape)
        return layout and bool((self.scale == other.scale).all() and (self.zero_point == other.zero_point).all())

    def fault(self, shape: Sequence[int]) -> str | None:
        """Why scales do not fit a tensor of that shape; ``None`` where they do."""
        if self.single:
            return None
        words = f"scales of shape {list(self.scale.shape)}"
        if not -len(shape) <= self.axis < len(shape):
            return f"has {words} along axis {self.axis} of a tensor of {len(shape)} dimensions"
        axis = self.axis % len(shape)
        if not self.block:
            fits = self.scale.ndim == 1 and self.scale.size == shape[axis]
            return None if fits else f"has {words} for {shape[axis]} positions of axis {axis}"
        blocks = [-(-size // self.block) if place == axis else size for place, size in enumerate(shape)]
        fits = list(self.scale.shape) == blocks
        return None if fits else f"has {words} where blocks of {self.block} along axis {axis} want {blocks}"

    def reals(self, integers: np.ndarray) -> np.ndarray:
        """What stored integers stand for."""
        scale, zero = (self._spread(one, integers.shape) for one in (self.scale, self.zero_point))
        return ((integers.astype(np.float64) - zero) * scale).astype(self.given)

    def largest(self, shape: Sequence[int | None] | None) -> np.ndarray:
        """The largest real, as the scale's type: a number, or an array that broadcasts to ``shape``.

        The shape need be known only where there is more than one scale.
        """
        limits = _limits(self.integers)
        assert limits is not None, "floats do not begin at zero"
        steps = np.float64(limits[1] - limits[0])
        if self.single:
            return np.asarray(self.scale.reshape(()) * steps, self.scale.dtype)
        if shape is None or (self.block and None in shape):
            return np.asarray(self.scale.max() * steps, self.scale.dtype)
        return (self._spread(self.scale, [size or 0 for size in shape]) * steps).astype(self.scale.dtype)

    def _spread(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """One value for each element, or what broadcasts to that, float64."""
        values = values.astype(np.float64)
        if self.single:
            return values.reshape(())
        axis = self.axis % len(shape)
        if self.block:
            return np.repeat(values, self.block, axis).take(np.arange(shape[axis]), axis)
        return values.reshape([-1 if place == axis else 1 for place in range(len(shape))])


def parameters_of(node: Node) -> IntegerParameters | None:
    """Those of a QuantizeLinear or DequantizeLinear; ``None`` where the network computes them."""
    stored = node.inputs[1:3]
    if any(tensor.name and not isinstance(tensor, Constant) for tensor in stored):
        return None
    scale = constant_of(stored[0]).values
    zero = constant_of(stored[1]).values if len(stored) > 1 and stored[1].name else None
    wanted = int(node.attrs.get("output_dtype", 0))
    if node.op == "QuantizeLinear":
        integers = zero.dtype if zero is not None else numpy_dtype(wanted) if wanted else np.dtype(np.uint8)
        given = scale.dtype
    else:
        source = node.inputs[0].dtype
        integers = zero.dtype if zero is not None else np.dtype(source) if source is not None else np.dtype(np.uint8)
        given = numpy_dtype(wanted) if wanted else scale.dtype
    zeros = np.zeros(scale.shape) if zero is None else zero.astype(np.float64)
    if zeros.size == 1:
        zeros = np.full(scale.shape, zeros.reshape(()))
    axis, block = int(node.attrs.get("axis", 1)), int(node.attrs.get("block_size", 0))
    return IntegerParameters(scale, zeros, axis, block, integers, given)


def _limits(dtype: np.dtype) -> tuple[int, int] | None:
    """The least and the greatest integer of a type, 4-bit ones too; ``None`` for floats."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}.get(dtype.name)
