"""What a layer reads and computes at single positions: the rows of the regression that its weights are the solution of.

At a position p of its output a layer computes ``kernel[g, o, i, t] * patch[g, i, t]`` summed over i and t, plus a bias,
whatever its strides, padding, dilation and groups; a transposed convolution, too, whose patch is zero at the taps that
do not meet an input there. Positions are counted over samples and spatial axes together.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.ir.graph import Node
from edgec.passes.factorization.layers import Layer


def count(layer: Layer, computed: tuple[int, ...]) -> int:
    """How many positions an output of that shape has."""
    return math.prod(computed) // (layer.groups * layer.out)


def outputs(layer: Layer, values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """What the layer computes at some positions: (positions, groups, out)."""
    rows = _vectors(layer, values)[positions] if not layer.taps else _at(values, positions)
    return rows.reshape(len(positions), layer.groups, layer.out)


def inputs(
    layer: Layer, node: Node, values: np.ndarray, computed: tuple[int, ...], positions: np.ndarray
) -> np.ndarray:
    """What the layer reads for some positions of its output.

    Args:
        layer: its kernel says which taps there are.
        node: the reader of the layer's weights that is looked at.
        values: what the node reads.
        computed: the shape of what it computes.
        positions: ascending or not, (positions,).

    Returns:
        (positions, groups, in, taps), the taps of all spatial axes on one.
    """
    if not layer.taps:
        read = values.T if node.op == "Gemm" and node.attrs.get("transA") else values
        return _vectors(layer, read)[positions].reshape(len(positions), 1, layer.into, 1)
    sample, *places = np.unravel_index(positions, (computed[0], *computed[2:]))
    source = np.zeros((len(positions), 1), np.intp)
    valid = np.ones((len(positions), 1), bool)
    for axis, place in enumerate(places):
        at, inside = _sources(layer, node, axis, np.asarray(place), values.shape[2 + axis], computed[2 + axis])
        source = (source[:, :, None] * values.shape[2 + axis] + at[:, None, :]).reshape(len(positions), -1)
        valid = (valid[:, :, None] & inside[:, None, :]).reshape(len(positions), -1)
    flat = values.reshape(*values.shape[:2], -1)
    read = flat[np.asarray(sample)[:, None], :, source] * valid[:, :, None]
    return read.reshape(len(positions), -1, layer.groups, layer.into).transpose(0, 2, 3, 1)


def _sources(
    layer: Layer, node: Node, axis: int, place: np.ndarray, before: int, behind: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which input each tap of an axis meets at places of the output, and whether there is one: (places, taps) each."""
    spatial, taps = len(layer.taps), layer.taps[axis]
    stride = int(node.attrs.get("strides", [1] * spatial)[axis])
    dilation = int(node.attrs.get("dilations", [1] * spatial)[axis])
    reach = dilation * np.arange(taps)
    if layer.transposed:
        spread = place[:, None] + _transposed_padding(node, axis, taps, stride, dilation, before, behind) - reach
        at, inside = spread // stride, spread % stride == 0
    else:
        at = place[:, None] * stride - _padding(node, axis, taps, stride, dilation, before, behind) + reach
        inside = np.ones_like(at, bool)
    inside = inside & (at >= 0) & (at < before)
    return np.where(inside, at, 0), inside


def _padding(node: Node, axis: int, taps: int, stride: int, dilation: int, before: int, behind: int) -> int:
    """How far in front of the input a convolution starts on an axis."""
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = max((behind - 1) * stride + dilation * (taps - 1) + 1 - before, 0)
        return total // 2 if auto == "SAME_UPPER" else total - total // 2
    return int(node.attrs["pads"][axis]) if auto == "NOTSET" and "pads" in node.attrs else 0


def _transposed_padding(node: Node, axis: int, taps: int, stride: int, dilation: int, before: int, behind: int) -> int:
    """How much a transposed convolution cuts off in front on an axis."""
    auto = node.attrs.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER") or "output_shape" in node.attrs:
        more = int(node.attrs["output_padding"][axis]) if "output_padding" in node.attrs else 0
        total = max(stride * (before - 1) + more + dilation * (taps - 1) + 1 - behind, 0)
        return total - total // 2 if auto == "SAME_LOWER" or auto == "NOTSET" else total // 2
    return int(node.attrs["pads"][axis]) if auto == "NOTSET" and "pads" in node.attrs else 0


def _vectors(layer: Layer, values: np.ndarray) -> np.ndarray:
    """The vectors that a matrix is multiplied with, or makes: (vectors, features)."""
    if layer.kind == "matmul_left":
        values = values.swapaxes(-1, -2) if values.ndim > 1 else values
    return values.reshape(-1, values.shape[-1])


def _at(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The channels of (samples, channels, *spatial) at some positions: (positions, channels)."""
    flat = values.reshape(*values.shape[:2], -1)
    sample, place = np.divmod(positions, flat.shape[2])
    return flat[sample, :, place]
