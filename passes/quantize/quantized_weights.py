"""Weights and biases as integers.

Weights are symmetric int8 without -128, one scale for each output channel or one for all; biases are int32 with the
scale of the accumulator, float32(input scale x weight scale), and zero-point 0. Sources: TensorFlow Lite 8-bit
quantization specification; ONNX DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Node, constant_of, static_shape
from edgec.passes.layers.linear import output_channels
from edgec.passes.quantize.recover.weight_pairs import WANTED, largest_pair, multiplies_pairs, rows
from edgec.passes.quantize.scales.affine_parameters import bounded_scale

#: The largest integer of a weight, by whether 7 bits are asked for.
LIMIT = {False: 127, True: 63}
#: A bias of 2^30 steps leaves half of an int32 accumulator to the products.
LARGEST_BIAS = 2.0**30
_LARGEST_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Layer:
    """The quantized parameters of one operator.

    Attributes:
        weight: int8, shaped as the weights are.
        scale: float32, one for each index of ``axis``, or a single one (no dimension).
        axis: dimension of the output channels; ``None`` where there is one scale.
        bias: int32, one for each output channel; ``None`` where there is no bias or it stays float.
        bias_scale: float32, one for each output channel, or a single one.
        widened: channels whose weight scale was enlarged so that their bias fits.
    """

    weight: np.ndarray
    scale: np.ndarray
    axis: int | None
    bias: np.ndarray | None
    bias_scale: np.ndarray | None
    widened: int


def channel_axis(node: Node) -> int | None:
    """The dimension of a node's weights that is the output channel; ``None`` where they have no such dimension.

    For a ConvTranspose with groups it holds the channels of one group: equal places of all groups share a scale.
    """
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    return 1 if len(static_shape(node.inputs[1])) == 2 else None


def quantize_parameters(
    node: Node,
    input_scale: float,
    *,
    per_channel: bool,
    integer_bias: bool,
    reduce_range: bool = False,
    pairs: bool = False,
) -> Layer:
    """The integers of a node's weights and bias.

    Args:
        node: a Conv, ConvTranspose, Gemm or MatMul whose weights are a constant. A Gemm's ``alpha`` and ``beta`` are
            taken into the weights and the bias.
        input_scale: of the activation that the weights meet.
        per_channel: a scale for each output channel where the weights have such a dimension.
        integer_bias: quantize the bias too.
        reduce_range: use 7 bits.
        pairs: no two neighbours are large together (:mod:`.weight_pairs`).

    Raises:
        InputError: a weight or a bias is not finite.
    """
    weights = _finite(constant_of(node.inputs[1]))
    if node.op == "Gemm" and node.attrs.get("alpha", 1.0) != 1.0:
        weights = weights * np.float32(node.attrs["alpha"])
    bias = float_bias(node)
    axis = channel_axis(node) if per_channel else None
    limit = LIMIT[reduce_range]
    scale = weight_scales(weights, axis, limit)
    if pairs and multiplies_pairs(node, weights.shape):
        largest = largest_pair(rows(node, weights)).astype(np.float64)
        scale = bounded_scale(np.maximum(scale, (largest if axis is not None else largest.max(initial=0.0)) / WANTED))
    widened = 0
    if bias is not None and integer_bias:
        groups = int(node.attrs.get("group", 1)) if node.op == "ConvTranspose" else 1
        needed = np.abs(bias.astype(np.float64)) / (input_scale * LARGEST_BIAS)
        needed = needed.reshape(groups, -1).max(axis=0) if axis is not None else needed.max()
        too_small = scale < needed
        widened = int(np.count_nonzero(too_small))
        scale = bounded_scale(np.where(too_small, needed, scale))
    integers = _integers(weights, scale, axis, limit)
    if bias is None or not integer_bias:
        return Layer(integers, scale, axis, None, None, widened)
    bias_scale = (np.float32(input_scale) * scale).astype(np.float32)
    if axis is not None and bias.size != scale.size:
        bias_scale = np.tile(bias_scale, bias.size // scale.size)
    # Only a bias that no scale can hold (bounded_scale) is cut here.
    steps = np.rint(bias.astype(np.float64) / bias_scale.astype(np.float64)).clip(-_LARGEST_INT32, _LARGEST_INT32)
    return Layer(integers, scale, axis, steps.astype(np.int32), bias_scale, widened)


def float_bias(node: Node) -> np.ndarray | None:
    """A node's bias, one float32 for each output channel, with a Gemm's ``beta`` in it."""
    if node.op == "MatMul" or len(node.inputs) < 3 or not node.inputs[2].name:
        return None
    bias = np.broadcast_to(
        _finite(constant_of(node.inputs[2])).reshape(-1), (output_channels(node, static_shape(node.inputs[1])),)
    )
    return bias * np.float32(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else bias


def weight_scales(weights: np.ndarray, axis: int | None, limit: int = 127) -> np.ndarray:
    """The float32 scales at which the largest weight of each index of ``axis`` becomes ``limit``.

    A channel without any weight gets the scale of the largest one, so that its bias has steps like the others'.
    """
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis)
    empty = np.float32(0)
    largest = np.maximum(weights.max(axis=others, initial=empty), -weights.min(axis=others, initial=empty)).astype(
        np.float64
    )
    overall = float(np.max(largest, initial=0.0)) or 1.0
    return bounded_scale(np.where(largest > 0, largest, overall) / limit)


def _integers(weights: np.ndarray, scale: np.ndarray, axis: int | None, limit: int) -> np.ndarray:
    if axis is not None:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])
    steps = np.divide(weights, scale, dtype=np.float32)
    np.rint(steps, out=steps)
    return np.clip(steps, -limit, limit, out=steps).astype(np.int8)


def _finite(constant: Constant) -> np.ndarray:
    values: np.ndarray = constant.values
    if not (np.isfinite(values.min(initial=0)) and np.isfinite(values.max(initial=0))):
        raise InputError(
            f"weight '{constant.name}'", "has values that are not finite", "train or export the network again"
        )
    return values
