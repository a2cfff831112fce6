"""Where a Resize takes its values: for each output element of an axis, the input elements and their weights.

Arithmetic on coordinates is in float32, as in onnxruntime: which of two neighbours is nearest hangs on its rounding.
Source: the ONNX operator's text for Resize 10 to 19.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """What a Resize says of all its axes.

    Attributes:
        mode: ``nearest``, ``linear`` or ``cubic``.
        coordinates: how an output index becomes a place in the input.
        nearest: which neighbour is nearest.
        cubic_a: the coefficient of the cubic.
        exclude_outside: whether elements outside weigh nothing, rather than being those at the edge.
        antialias: widen linear and cubic windows when shrinking.
    """

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Attributes:
        size, output: elements before and behind.
        scale: output over input, as the node gives it.
        window: the part of the input that tf_crop_and_resize takes, in shares of it.
    """

    size: int
    output: int
    scale: float
    window: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Taps:
    """For each output element the input elements that it is made of.

    Attributes:
        places: (output, taps), within the input.
        weights: (output, taps) float32; ``None`` where each is one element as it is.
        outside: which output elements lie outside the input; ``None`` where none can.
    """

    places: np.ndarray
    weights: np.ndarray | None
    outside: np.ndarray | None


def taps(axis: Axis, sampling: Sampling) -> Taps:
    """The taps of one axis."""
    at = _coordinates(axis, sampling.coordinates)
    outside = (at < 0) | (at > axis.size - 1) if sampling.coordinates == "tf_crop_and_resize" else None
    if sampling.mode == "nearest":
        places = _ROUNDED[sampling.nearest](at).astype(np.int64)[:, None]
        return Taps(np.clip(places, 0, axis.size - 1), None, outside)
    shrink = np.float32(min(axis.scale, 1.0)) if sampling.antialias else np.float32(1)
    reach = 1 if sampling.mode == "linear" else 2
    first = int(np.floor(np.float32(-reach) / shrink)) + 1
    base = np.floor(at)
    steps = np.arange(first, 2 - first, dtype=np.float32)
    places = (base[:, None] + steps).astype(np.int64)
    distance = np.abs(steps - (at - base)[:, None]) * shrink
    weights = np.clip(1 - distance, 0, 1) if reach == 1 else _cubic(distance, np.float32(sampling.cubic_a))
    if sampling.exclude_outside:
        weights = weights * ((places >= 0) & (places < axis.size))
    if sampling.exclude_outside or sampling.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(places, 0, axis.size - 1), weights.astype(np.float32), outside)


def _cubic(distance: np.ndarray, a: np.float32) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0)).astype(np.float32)


def _coordinates(axis: Axis, kind: str) -> np.ndarray:
    x = np.arange(axis.output, dtype=np.float32)
    scale, half = np.float32(axis.scale), np.float32(0.5)
    size, output = axis.size, axis.output
    if kind == "asymmetric":
        return x / scale
    if kind == "tf_half_pixel_for_nn":
        return (x + half) / scale
    if kind == "align_corners":
        return x * np.float32(size - 1) / np.float32(output - 1) if output > 1 else np.zeros_like(x)
    if kind == "tf_crop_and_resize":
        start, end = (np.float32(share) for share in axis.window)
        if output > 1:
            return start * np.float32(size - 1) + x * (end - start) * np.float32(size - 1) / np.float32(output - 1)
        return np.full_like(x, half * (start + end) * np.float32(size - 1))
    if kind == "pytorch_half_pixel" and output == 1:
        return np.zeros_like(x)
    plain = (x + half) / scale - half
    if kind == "half_pixel_symmetric":
        return np.float32(size / 2 * (1 - output / (float(scale) * size))) + plain
    return plain


_ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda at: np.ceil(at - np.float32(0.5)),
    "round_prefer_ceil": lambda at: np.floor(at + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
