"""Normalizations that TensorRT does not know, or knows in another form only, by means and variances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgec.backends.tensorrt.spelling import Writer, is_read, rewrites
from edgec.ir.graph import Tensor, Variable

# Before opset 21 GroupNormalization has a scale for each group; from then on one for each channel.
_SCALE_OF_CHANNELS = 21


@rewrites("LayerNormalization", "layer-norm-statistics")
def layer_normalization(write: Writer) -> bool:
    """Mean and variance over the axes from ``axis`` on, then scale and bias."""
    x, node = write.node.inputs[0], write.node
    rank = write.dimensions(x)
    if rank is None:
        return False
    axes = list(range(int(node.attrs.get("axis", -1)) % len(rank), len(rank)))
    mean, centred, inverse = _statistics(write, x, axes, float(node.attrs.get("epsilon", 1e-5)))
    result = _affine(write, write.op("Mul", "normal", centred, inverse), write.input(1), write.input(2))
    return write.done(result, mean, inverse)


@rewrites("RMSNormalization")
def rms_normalization(write: Writer) -> bool:
    """x over the root of its mean square over the axes from ``axis`` on, then the scale."""
    x, node = write.node.inputs[0], write.node
    rank = write.dimensions(x)
    if rank is None:
        return False
    axes = list(range(int(node.attrs.get("axis", -1)) % len(rank), len(rank)))
    inverse = _inverse(write, write.op("Mul", "squares", x, x), axes, float(node.attrs.get("epsilon", 1e-5)))
    return write.done(_affine(write, write.op("Mul", "normal", x, inverse), write.input(1), None))


@rewrites("GroupNormalization")
def group_normalization(write: Writer) -> bool:
    """InstanceNormalization of the groups, then a scale and bias for each channel, or before opset 21 each group."""
    x, node, shape = write.node.inputs[0], write.node, write.shape()
    if shape is None or len(shape) < 2:
        return False
    groups, channels, epsilon = int(node.attrs["num_groups"]), shape[1], float(node.attrs.get("epsilon", 1e-5))
    # 0 stands for the batch, whose size a profile may open.
    grouped = write.op("Reshape", "grouped", x, write.integers("grouped.shape", [0, groups, -1]))
    ones, zeros = (write.array(label, np.full(groups, value, write.dtype)) for label, value in (("ones", 1), ("no", 0)))
    normal = write.op("InstanceNormalization", "normal", grouped, ones, zeros, epsilon=epsilon)
    scale, bias = write.input(1), write.input(2)
    assert scale is not None and bias is not None, "both are required"
    if write.graph.opset < _SCALE_OF_CHANNELS:
        normal = _scaled(write, normal, scale, bias, [groups, 1])
        return write.done(write.op("Reshape", "ungrouped", normal, write.integers("shape", [0, *shape[1:]])))
    back = write.op("Reshape", "ungrouped", normal, write.integers("shape", [0, *shape[1:]]))
    return write.done(_scaled(write, back, scale, bias, [channels] + [1] * (len(shape) - 2)))


@rewrites("instance-norm-form")
def instance_normalization(write: Writer) -> bool:
    """Mean and variance over the positions of each sample's channels, then scale and bias."""
    x, node = write.node.inputs[0], write.node
    shape = write.dimensions(x)
    if shape is None or len(shape) < 2:
        return False
    axes = list(range(2, len(shape)))
    _, centred, inverse = _statistics(write, x, axes, float(node.attrs.get("epsilon", 1e-5)))
    normal = write.op("Mul", "normal", centred, inverse)
    return write.done(_scaled(write, normal, node.inputs[1], node.inputs[2], [-1] + [1] * len(axes)))


@rewrites("MeanVarianceNormalization")
def mean_variance_normalization(write: Writer) -> bool:
    """(x - mean) / (deviation + 1e-9), as ONNX's function body has it."""
    x = write.node.inputs[0]
    axes = [int(axis) for axis in write.node.attrs.get("axes", [0, 2, 3])]
    centred = write.op("Sub", "centred", x, write.reduced("ReduceMean", "mean", x, axes))
    variance = write.reduced("ReduceMean", "variance", write.op("Mul", "squares", centred, centred), axes)
    deviation = write.op("Add", "least", write.op("Sqrt", "deviation", variance), write.number("epsilon", 1e-9))
    return write.done(write.op("Div", "normal", centred, deviation))


@rewrites("batch-norm-training")
def batch_normalization(write: Writer) -> bool:
    """Normalized by the batch's own mean and variance; the running ones follow, where they are read."""
    x, node = write.node.inputs[0], write.node
    shape = write.dimensions(x)
    if shape is None:
        return False
    axes = [axis for axis in range(len(shape)) if axis != 1]
    mean, centred, inverse = _statistics(write, x, axes, float(node.attrs.get("epsilon", 1e-5)))
    column = [-1] + [1] * (len(shape) - 2)
    result = _scaled(write, write.op("Mul", "normal", centred, inverse), node.inputs[1], node.inputs[2], column)
    running: list[Tensor] = []
    if any(is_read(write.graph, tensor) for tensor in node.outputs[1:]):
        squares = write.op("Mul", "spread", centred, centred)
        variance = write.reduced("ReduceMean", "batch.variance", squares, axes)
        momentum = float(node.attrs.get("momentum", 0.9))
        for label, old, new in (("mean", node.inputs[3], mean), ("variance", node.inputs[4], variance)):
            kept = write.op("Mul", f"{label}.kept", old, write.number(f"{label}.momentum", momentum))
            flat = write.op("Reshape", f"{label}.flat", new, write.integers(f"{label}.shape", [-1]))
            added = write.op("Mul", f"{label}.added", flat, write.number(f"{label}.rest", 1 - momentum))
            running.append(write.op("Add", f"{label}.running", kept, added))
    return write.done(result, *running)


def _statistics(write: Writer, x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Variable, Variable, Variable]:
    """The mean, what is left without it, and one over the standard deviation."""
    mean = write.reduced("ReduceMean", "mean", x, axes)
    centred = write.op("Sub", "centred", x, mean)
    return mean, centred, _inverse(write, write.op("Mul", "squares", centred, centred), axes, epsilon)


def _inverse(write: Writer, squares: Tensor, axes: Sequence[int], epsilon: float) -> Variable:
    variance = write.reduced("ReduceMean", "variance", squares, axes)
    least = write.op("Add", "least", variance, write.number("epsilon", epsilon))
    return write.op("Div", "inverse", write.number("one", 1.0), write.op("Sqrt", "deviation", least))


def _affine(write: Writer, x: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if scale is None else write.op("Mul", "scaled", x, scale)
    return scaled if bias is None else write.op("Add", "shifted", scaled, bias)


def _scaled(write: Writer, x: Tensor, scale: Tensor, bias: Tensor, shape: Sequence[int]) -> Variable:
    """Scale and bias in a shape that broadcasts."""
    wide = write.reshaped("scale", scale, shape)
    return write.op("Add", "shifted", write.op("Mul", "scaled", x, wide), write.reshaped("bias", bias, shape))
