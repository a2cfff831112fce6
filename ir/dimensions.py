"""Arithmetic on shapes that several operators share."""

from __future__ import annotations

import math
from collections.abc import Sequence


def reshaped(target: Sequence[int], shape: Sequence[int], allow_zero: bool = False) -> list[int]:
    """The shape that Reshape gives: 0 copies a dimension, -1 takes what is left."""
    dims = [shape[i] if d == 0 and not allow_zero else int(d) for i, d in enumerate(target)]
    if -1 in dims:
        place = dims.index(-1)
        rest = math.prod(d for i, d in enumerate(dims) if i != place)
        dims[place] = math.prod(shape) // rest if rest else 0
    return dims


def same_padding(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> tuple[int, int]:
    """What auto_pad SAME puts before and behind an axis of ``size`` elements: the output has ceil(size / stride)."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def windows(size: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int], ceil: bool) -> int:
    """How many windows a pooling has along an axis.

    Source: the ONNX operators' text: with ``ceil_mode`` a last window that would start in the padding at the end is
    left out.
    """
    span = size + sum(pads) - ((kernel - 1) * dilation + 1)
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + pads[0] else count
