"""Pooling that TFLite's windows do not do: over three dimensions, dilated, or of powers; one axis after the other.

The greatest, and the sum, of a window are those along one axis of those along the others. Along an axis they are those
of a few strided slices, one for each tap. Sources: ONNX operators MaxPool, AveragePool, LpPool and LRN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from edgec.backends.coral.legalize import rewrites
from edgec.backends.coral.steps import Steps, is_float, sizes
from edgec.ir.graph import Graph, Node, Tensor, Variable

# Taps of a window along one axis.
_MOST_TAPS = 32


@dataclass(frozen=True)
class _Axis:
    """How windows lie along one axis.

    Attributes:
        axis: of the tensor.
        size, output: of the input and of the output along it.
        kernel, stride, dilation: of the windows.
        before, behind: padding.
    """

    axis: int
    size: int
    output: int
    kernel: int
    stride: int
    dilation: int
    before: int
    behind: int

    @property
    def overhang(self) -> int:
        """How far the last window reaches past the padding."""
        reach = (self.output - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
        return max(reach - self.before - self.size - self.behind, 0)

    def taps(self, padded: bool) -> np.ndarray:
        """How many taps of each window lie on the input, or on it and its padding: (output,)."""
        places = np.arange(self.output)[:, None] * self.stride + np.arange(self.kernel) * self.dilation - self.before
        low, high = (-self.before, self.size + self.behind) if padded else (0, self.size)
        return ((places >= low) & (places < high)).sum(axis=1)


def _axes(node: Node) -> list[_Axis] | None:
    shape = sizes(node.inputs[0])
    if shape is None:
        return None
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    rank = len(kernel)
    strides = [int(s) for s in node.attrs.get("strides") or [1] * rank]
    dilations = [int(d) for d in node.attrs.get("dilations") or [1] * rank]
    pads = [int(p) for p in node.attrs.get("pads") or [0] * (2 * rank)]
    auto = node.attrs.get("auto_pad", "NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if max(kernel) > _MOST_TAPS:
        return None
    axes = []
    for place in range(rank):
        size, reach = shape[2 + place], (kernel[place] - 1) * dilations[place] + 1
        before, behind, stride = pads[place], pads[rank + place], strides[place]
        if auto == "VALID":
            before = behind = 0
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max((ceil(size / stride) - 1) * stride + reach - size, 0)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            behind = total - before
        whole = ceil if node.attrs.get("ceil_mode", 0) else floor
        output = whole((size + before + behind - reach) / stride) + 1
        if node.attrs.get("ceil_mode", 0) and (output - 1) * stride >= size + before:
            output -= 1  # a window must begin inside
        if output < 1:
            return None
        axes.append(_Axis(2 + place, size, output, kernel[place], stride, dilations[place], before, behind))
    return axes


def _joined(steps: Steps, x: Tensor, op: str, axes: Sequence[_Axis], filling: float) -> Tensor:
    """``op`` over each window, one axis after the other, with padding of a number that does not count."""
    for one in axes:
        shape = sizes(x)
        assert shape is not None
        behind = one.behind + one.overhang
        if one.before or behind:
            pads = np.zeros((2, len(shape)), np.int64)
            pads[:, one.axis] = one.before, behind
            label = f"{one.axis}"
            amounts = steps.integers(f"pads{label}", pads.reshape(-1))
            x = steps("Pad", x, amounts, steps.number(filling, x.dtype), mode="constant")
            shape[one.axis] += one.before + behind
            x.shape = list(shape)
        span = (one.output - 1) * one.stride + 1
        shape[one.axis] = one.output
        result: Tensor | None = None
        for tap in range(one.kernel):
            start = tap * one.dilation
            part = steps.sliced(x, one.axis, start, start + span, one.stride)
            part.shape = list(shape)
            if result is None:
                result = part
            else:
                result = steps(op, result, part)
                result.shape = list(shape)
        assert result is not None
        x = result
    return x


def _beyond_tflite(node: Node) -> bool:
    """Whether windows are of three dimensions, or dilated."""
    return len(node.attrs["kernel_shape"]) > 2 or any(int(step) != 1 for step in node.attrs.get("dilations") or ())


@rewrites("MaxPool")
def max_pool(graph: Graph, node: Node) -> bool:
    """The greatest of each window, with padding of the least float."""
    read = any(t.outputs or t in graph.outputs for t in node.outputs[1:])
    if not is_float(node) or read or not _beyond_tflite(node):
        return False
    axes = _axes(node)
    if axes is None:
        return False
    least = float(np.finfo(np.float32).min)
    steps = Steps(graph, node)
    result = _joined(steps, node.inputs[0], "Max", axes, least)
    graph.replace(node, [result, *node.outputs[1:]])
    return True


@rewrites("AveragePool")
def average_pool(graph: Graph, node: Node) -> bool:
    """The sum of each window by how many of its taps count."""
    if not is_float(node) or not _beyond_tflite(node):
        return False
    axes = _axes(node)
    if axes is None:
        return False
    steps = Steps(graph, node)
    total = _joined(steps, node.inputs[0], "Add", axes, 0.0)
    counts = np.ones(())
    for one in axes:
        counts = np.multiply.outer(counts, one.taps(bool(node.attrs.get("count_include_pad", 0))))
    share = graph.const(f"{node.name}.share", (1.0 / np.maximum(counts, 1)).astype(np.float32))
    return steps.done(steps("Mul", total, share))


@rewrites("LpPool")
def lp_pool(graph: Graph, node: Node) -> bool:
    """The root of the sum of powers of each window; of a plain one, a sum by way of the average."""
    order, axes = int(node.attrs.get("p", 2)), _axes(node)
    if not is_float(node) or axes is None:
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    powers: Tensor = steps("Abs", x) if order != 2 else steps("Mul", x, x)
    if order > 2:
        powers = steps("Pow", powers, float(order))
    if isinstance(powers, Variable):
        powers.shape = None if x.shape is None else list(x.shape)
    plain = len(axes) == 2 and not _beyond_tflite(node) and not any(one.overhang for one in axes)
    if plain:
        pads = [one.before for one in axes] + [one.behind for one in axes]
        window = {"kernel_shape": [one.kernel for one in axes], "strides": [one.stride for one in axes], "pads": pads}
        mean = steps("AveragePool", powers, count_include_pad=1, **window)
        total: Tensor = steps("Mul", mean, float(np.prod(window["kernel_shape"])))
    else:
        total = _joined(steps, powers, "Add", axes, 0.0)
    if order == 1:
        return steps.done(total)
    return steps.done(steps("Sqrt", total) if order == 2 else steps("Pow", total, 1.0 / order))


@rewrites("LRN")
def local_response(graph: Graph, node: Node) -> bool:
    """x by a power of the sum of squares of its neighbours among the channels: a 1x1 convolution with a band."""
    shape, x = sizes(node.inputs[0]), node.inputs[0]
    if not is_float(node) or shape is None or len(shape) < 3:
        return False
    size, channels = int(node.attrs["size"]), shape[1]
    offset = np.arange(channels)[None] - np.arange(channels)[:, None]
    band = ((offset >= -((size - 1) // 2)) & (offset <= size // 2)).astype(np.float32)
    scale = float(node.attrs.get("alpha", 1e-4)) / size
    steps = Steps(graph, node)
    weights = graph.const(
        f"{node.name}.band", (band * np.float32(scale)).reshape(channels, channels, *[1] * len(shape[2:]))
    )
    base = steps("Add", steps("Conv", steps("Mul", x, x), weights), float(node.attrs.get("bias", 1.0)))
    return steps.done(steps("Div", x, steps("Pow", base, float(node.attrs.get("beta", 0.75)))))
