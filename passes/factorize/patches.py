"""What a layer reads and computes at single positions: the rows of the regression that its weights are the solution of.

At a position p of its output a layer computes ``kernel[g, o, i, t] * patch[g, i, t]`` summed over i and t, plus a bias,
whatever its strides, padding, dilation and groups; a transposed convolution, too, whose patch is zero at the taps that
do not meet an input there. Positions are counted over samples and spatial axes together.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.ir.graph import Node
from edgec.passes.factorize.layers import Layer
from edgec.passes.layers.windows import Window


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
    window = Window.of(node, layer.weight.shape, values.shape, computed)
    sample, *places = np.unravel_index(positions, (computed[0], *computed[2:]))
    at = np.stack(places, axis=1)
    elements = window.elements(at, np.arange(math.prod(layer.taps)))
    size = np.array(values.shape[2:])
    inside = np.all((elements >= 0) & (elements < size), axis=2) & window.meets(at)
    source = np.ravel_multi_index(tuple(np.moveaxis(elements.clip(0, size - 1), 2, 0)), tuple(size))
    flat = values.reshape(*values.shape[:2], -1)
    read = flat[np.asarray(sample)[:, None], :, source] * inside[:, :, None]
    return read.reshape(len(positions), -1, layer.groups, layer.into).transpose(0, 2, 3, 1)


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
