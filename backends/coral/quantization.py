"""Scales and zero-points, and the arithmetic that keeps TFLite's integers equal to the QDQ graph's.

Source: TensorFlow Lite 8-bit quantization specification; ONNX QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isinf

import numpy as np

INT8_LOW, INT8_HIGH = -128, 127

#: (scale, zero-point) that TFLite prescribes for the int8 output of an operator.
FIXED_OUTPUT = {
    "LOGISTIC": (1 / 256, -128),
    "SOFTMAX": (1 / 256, -128),
    "TANH": (1 / 128, 0),
}


@dataclass(frozen=True, eq=False)
class Quantization:
    """``real = scale * (integer - zero_point)``.

    Attributes:
        scale: float32, one for the tensor or one for each index of ``axis``.
        zero_point: int64, as many.
        axis: ONNX dimension that per-channel scales run along.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return self.scale.size > 1

    def same(self, other: Quantization | None) -> bool:
        """Whether both read every integer alike, up to a float32's last bits."""
        return (
            other is not None
            and self.scale.shape == other.scale.shape
            and (not self.per_channel or self.axis == other.axis)
            and bool(np.array_equal(self.zero_point, other.zero_point))
            and bool(np.allclose(self.scale, other.scale, rtol=1e-6, atol=0))
        )

    def real(self, integers: np.ndarray) -> np.ndarray:
        """Dequantizes an array in ONNX's dimensions: float32."""
        return self.exact(integers).astype(np.float32)

    def exact(self, integers: np.ndarray) -> np.ndarray:
        """Dequantizes to float64, which keeps an int32 bias whole."""
        scale, zero_point = self._along(integers.ndim)
        return (integers.astype(np.float64) - zero_point) * np.float64(scale)

    def integers(self, real: np.ndarray) -> np.ndarray:
        """Quantizes to int8, rounding half to even and saturating, as QuantizeLinear does."""
        scale, zero_point = self._along(real.ndim)
        scaled = np.rint(np.asarray(real, np.float32) / scale.astype(np.float32)) + zero_point
        return np.clip(scaled, INT8_LOW, INT8_HIGH).astype(np.int8)

    def clamps_to(self, low: float, high: float) -> bool:
        """Whether int8 saturation alone does what clipping to ``[low, high]`` before quantizing would do."""
        scale, zero_point = float(self.scale[0]), int(self.zero_point[0])
        below = isinf(low) or round(low / scale) + zero_point <= INT8_LOW
        above = isinf(high) or round(high / scale) + zero_point >= INT8_HIGH
        return below and above

    def _along(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        if not self.per_channel:
            return self.scale[0], self.zero_point[0]
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def per_tensor(scale: float, zero_point: int) -> Quantization:
    """One scale and zero-point for a whole tensor."""
    return Quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))


def covering(values: np.ndarray) -> Quantization:
    """The int8 quantization of a known array with the least error; exact for a single number."""
    values = np.asarray(values, np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low == high:
        return per_tensor(abs(low) / INT8_HIGH or 1.0, 0)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (INT8_HIGH - INT8_LOW)
    return per_tensor(scale, int(np.clip(round(INT8_LOW - low / scale), INT8_LOW, INT8_HIGH)))


def exactly(values: np.ndarray) -> Quantization:
    """A symmetric scale that is a whole part of every number, where there is one; else :func:`covering`."""
    top = float(np.abs(values).max())
    for steps in range(INT8_HIGH, 0, -1):
        scaled = values.astype(np.float64) / (top / steps)
        if np.allclose(scaled, np.rint(scaled), rtol=0, atol=1e-5):
            return per_tensor(top / steps, 0)
    return covering(values)


def shifted_to_int8(integers: np.ndarray, quantization: Quantization) -> tuple[np.ndarray, Quantization]:
    """uint8 data as int8: the same reals, every integer and zero-point less by 128."""
    if integers.dtype != np.uint8:
        return integers, quantization
    moved = (integers.astype(np.int16) + INT8_LOW).astype(np.int8)
    return moved, Quantization(quantization.scale, quantization.zero_point + INT8_LOW, quantization.axis)


def bias_integers(real: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A bias in steps of input scale times weight scale: int32, saturating."""
    steps = np.rint(real.astype(np.float64) / scale.astype(np.float64))
    limit = np.iinfo(np.int32)
    return np.clip(steps, limit.min, limit.max).astype(np.int32)


UNBOUNDED = (-inf, inf)
