"""AveragePool whose window is dilated (opset 19): a depthwise convolution with equal weights.

onnxruntime makes an integer pool of it between integers and then refuses its attribute, TFLite has no such window, and
opsets 13 and 17 have no such AveragePool. A convolution with weights of one over the window's size is the same. Where
padding does not count, a constant factor for each position makes up for the taps that lie outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Graph, Node, Variable
from edgec.passes.framework.context import Context
from edgec.passes.framework.legalization import Legalization

# Few runtimes convolve over three.
_MOST_AXES = 2


@dataclass(frozen=True)
class DilatedPooling(Legalization):
    """Computes AveragePool with a dilated window by a depthwise convolution."""

    name: ClassVar[str] = "dilated-pooling"
    words: ClassVar[str] = "computed by a depthwise convolution"

    def rewrite(self, graph: Graph, ctx: Context) -> int:
        return pool_by_convolution(graph)


def pool_by_convolution(graph: Graph) -> int:
    """Rewrites such AveragePools, where shapes are known and windows end inside; returns how many were changed."""
    return sum(
        _rewrite(graph, node)
        for node in list(graph.nodes)
        if node.op == "AveragePool" and any(step != 1 for step in node.attrs.get("dilations") or ())
    )


def _rewrite(graph: Graph, node: Node) -> bool:
    x, attrs = node.inputs[0], node.attrs
    shape = [size for size in x.shape or () if isinstance(size, int)]
    whole = attrs.get("ceil_mode", 0) == 0 and attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    if not whole or x.dtype != np.float32 or len(shape) < 3 or len(shape) != len(x.shape or ()):
        return False
    window = list(attrs["kernel_shape"])
    rank, channels = len(window), shape[1]
    if rank > _MOST_AXES:
        return False
    pads = (
        list(attrs.get("pads") or [0] * (2 * rank)) if attrs.get("auto_pad", "NOTSET") == "NOTSET" else [0] * 2 * rank
    )
    strides, dilations = list(attrs.get("strides") or [1] * rank), list(attrs["dilations"])
    weights = np.full((channels, 1, *window), 1 / prod(window), np.float32)
    average = graph.op(
        "Conv",
        [x, graph.const(f"{node.name}.weights", weights)],
        name=f"{node.name}.convolution",
        before=node,
        kernel_shape=window,
        dilations=dilations,
        strides=strides,
        pads=pads,
        group=channels,
    )
    _like(average, node)
    if any(pads) and not attrs.get("count_include_pad", 0):
        inside = np.ones(())
        for axis in range(rank):
            positions = (pads[axis], shape[2 + axis], pads[rank + axis])
            taps = _inside(positions, window[axis], dilations[axis], strides[axis])
            inside = np.multiply.outer(inside, taps)
        factors = (prod(window) / inside).astype(np.float32)[None, None]
        factor = graph.const(f"{node.name}.factors", factors)
        average = graph.op("Mul", [average, factor], name=f"{node.name}.counted", before=node)
        _like(average, node)
    graph.replace(node, average)
    return True


def _inside(positions: tuple[int, int, int], window: int, dilation: int, stride: int) -> np.ndarray:
    """How many taps of each window along an axis lie inside; 1 at least, for a window that is all padding.

    Args:
        positions: in the padding before, inside, in the padding behind.
        window, dilation, stride: along the axis.
    """
    before, size, _ = positions
    windows = (sum(positions) - dilation * (window - 1) - 1) // stride + 1
    taps = np.arange(windows)[:, None] * stride - before + np.arange(window) * dilation
    return np.maximum(((taps >= 0) & (taps < size)).sum(axis=1), 1)


def _like(tensor: Variable, node: Node) -> None:
    shape = node.outputs[0].shape
    tensor.dtype, tensor.shape = np.dtype(np.float32), None if shape is None else list(shape)
