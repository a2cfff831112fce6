"""From the range of a tensor's values to the scale and zero-point of its integers.

``real = scale * (integer - zero_point)``, as ONNX's QuantizeLinear and DequantizeLinear have it. The nudge that makes
zero exact is that of Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (CVPR 2018), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

# A scale is kept within these bounds, so that the product of two (a bias has that) is a normal float32.
LEAST_SCALE = 2.0**-62
LARGEST_SCALE = 2.0**62


@dataclass(frozen=True)
class Range:
    """The least and the greatest value of a tensor, in the network's own units."""

    low: float
    high: float

    @staticmethod
    def of(values: np.ndarray) -> Range:
        """The range of known values; (0, 0) where there are none."""
        return Range(float(values.min()), float(values.max())) if values.size else Range(0.0, 0.0)

    @property
    def width(self) -> float:
        """Of what is quantized: the range with zero in it."""
        return max(self.high, 0.0) - min(self.low, 0.0)

    def union(self, other: Range) -> Range:
        """The least range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))

    def times(self, factor: float) -> Range:
        """Both ends moved from zero by a positive factor."""
        return Range(factor * self.low, factor * self.high)


@dataclass(frozen=True)
class Parameters:
    """One scale and zero-point for a whole tensor.

    Attributes:
        scale: a positive float32, as the model stores it.
        zero_point: the integer that stands for zero.
        dtype: ``int8`` or ``uint8``.
    """

    scale: float
    zero_point: int
    dtype: Literal["int8", "uint8"]

    @property
    def range(self) -> Range:
        """What the integers can stand for."""
        limits = np.iinfo(self.dtype)
        return Range(self.scale * (limits.min - self.zero_point), self.scale * (limits.max - self.zero_point))

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """What the integers make of float32 values."""
        limits = np.iinfo(self.dtype)
        steps = np.rint(values / np.float32(self.scale))
        steps.clip(limits.min - self.zero_point, limits.max - self.zero_point, out=steps)
        return steps * np.float32(self.scale)

    def covers(self, values: Range) -> bool:
        """Whether the integers reach as far as ``values``, to within one step (1 is out of reach of 255 / 256)."""
        reach, slack = self.range, self.scale * (1 + 1e-6)
        return values.low >= reach.low - slack and values.high <= reach.high + slack


def parameters(values: Range, dtype: Literal["int8", "uint8"], *, symmetric: bool = False) -> Parameters:
    """The 8-bit integers for values of that range.

    The range is widened to hold zero, which gets an integer of its own: padding and rectified values are exact. A
    tensor that is zero throughout gets the integers of the range from 0 to 1.

    Args:
        values: finite.
        dtype: type of the integers.
        symmetric: zero is the middle of the integers (0 for int8, 128 for uint8), and the least int8 is not used.
    """
    limits = np.iinfo(dtype)
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    if low == high:
        high = 1.0
    if symmetric:
        middle = (int(limits.min) + int(limits.max) + 1) // 2
        return Parameters(_scale(max(-low, high), int(limits.max) - middle), middle, dtype)
    steps = int(limits.max) - int(limits.min)
    scale = _scale(high - low, steps)
    if low == 0.0:
        zero_point = int(limits.min)
    elif high == 0.0:
        zero_point = int(limits.max)
    else:
        zero_point = int(np.clip(np.rint(limits.min - low / scale), limits.min, limits.max))
    return Parameters(scale, zero_point, dtype)


def bounded_scale(scale: np.ndarray) -> np.ndarray:
    """``scale`` as float32, within the bounds of what can be multiplied."""
    return np.clip(scale, LEAST_SCALE, LARGEST_SCALE).astype(np.float32)


def _scale(width: float, steps: int) -> float:
    """The greatest float32 whose ``steps`` multiple, rounded to float32, does not pass ``width``.

    So the integers after a clip to [0, 6] stand for nothing above 6, and a runtime may leave the clip to saturation.
    """
    scale = np.float32(np.clip(width / steps, LEAST_SCALE, LARGEST_SCALE))
    while scale > LEAST_SCALE and float(scale * np.float32(steps)) > width:
        scale = np.nextafter(scale, np.float32(0))
    return float(scale)
