"""Sampling at computed places: GridSample and DeformConv by GATHER of pixels, AffineGrid, Col2Im and MaxUnpool.

A pixel is a row of its channels. What lies between pixels is a sum of those around it, weighted axis by axis; what lies
outside is zero, the border's, or reflected. Sources: ONNX operators of these names and their reference implementation;
cubic weights with a = -0.75 as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np

from edgec.backends.coral.legalize import known, rewrites
from edgec.backends.coral.steps import Steps, is_float, sizes
from edgec.ir.graph import Graph, Node, Tensor, Variable

# Places are computed in float32, which holds whole numbers so far.
_MOST_PIXELS = 1 << 24
_CUBIC = -0.75


def _text(node: Node, key: str, usual: str) -> str:
    value = node.attrs.get(key, usual)
    return value.decode() if isinstance(value, bytes) else str(value)


class _Axis:
    """Pixels along one axis around a coordinate.

    Args:
        steps: of the node.
        at: the coordinate in pixels, any shape.
        size: how many pixels there are.
        mode: ``nearest``, ``linear`` or ``cubic``.
        padding: ``zeros``, ``border`` or ``reflection``.
        low, high: what ``reflection`` reflects at.
    """

    def __init__(self, steps: Steps, at: Variable, size: int, mode: str, padding: str, low: float, high: float) -> None:
        self._steps, self._size, self._padding, self._bounds = steps, size, padding, (low, high)
        if mode == "nearest":
            at = steps("Round", at)
        if padding == "reflection":
            at = self._reflected(at)
        elif padding == "border":
            outside = steps("Or", steps("Less", at, low), steps("Greater", at, high))
            at = steps("Where", outside, steps("Min", steps("Max", at, 0.0), float(size - 1)), at)
        if mode == "nearest":
            self.taps = [self._tap(at, None)]
            return
        base = steps("Floor", at)
        part = steps("Sub", at, base)
        if mode == "linear":
            weights = [(0, steps("Sub", 1.0, part)), (1, part)]
        else:
            weights = [(offset, self._cubic(part, offset)) for offset in (-1, 0, 1, 2)]
        self.taps = [self._tap(steps("Add", base, float(offset)), weight) for offset, weight in weights]

    def _tap(self, index: Variable, weight: Variable | None) -> tuple[Variable, Variable | None]:
        """A pixel's index, which is one that there is, and its weight."""
        steps, last = self._steps, float(self._size - 1)
        if self._padding == "zeros":
            inside = steps("And", steps("GreaterOrEqual", index, 0.0), steps("LessOrEqual", index, last))
            factor = steps.cast(inside, np.float32)
            assert isinstance(factor, Variable)
            weight = factor if weight is None else steps("Mul", weight, factor)
        elif self._padding == "reflection":
            index = self._reflected(index)
        return steps("Min", steps("Max", index, 0.0), last), weight

    def _reflected(self, at: Variable) -> Variable:
        """Back and forth between the bounds."""
        steps, (low, high) = self._steps, self._bounds
        span = high - low
        if span <= 0:
            return steps("Mul", at, 0.0)
        away = steps("Mod", steps("Abs", steps("Sub", at, low)), 2 * span, fmod=1)
        return steps("Add", steps("Min", away, steps("Sub", 2 * span, away)), low)

    def _cubic(self, part: Variable, offset: int) -> Variable:
        """The weight of the pixel at ``offset`` from the one in front of the coordinate, ``part`` behind that."""
        steps, a = self._steps, _CUBIC
        apart = steps("Add", part, float(-offset)) if offset <= 0 else steps("Sub", float(offset), part)
        if offset in (0, 1):
            inner = steps("Sub", steps("Mul", apart, a + 2), a + 3)
            return steps("Add", steps("Mul", steps("Mul", inner, apart), apart), 1.0)
        inner = steps("Add", steps("Mul", steps("Sub", steps("Mul", apart, a), 5 * a), apart), 8 * a)
        return steps("Sub", steps("Mul", inner, apart), 4 * a)


def _sampled(steps: Steps, rows: Tensor, axes: Sequence[_Axis], space: Sequence[int], offset: np.ndarray) -> Variable:
    """The pixels at the axes' coordinates, (count, channels).

    Args:
        steps: of the node.
        rows: the images' pixels one after the other, (images x pixels, channels).
        axes: of an image; their coordinates are vectors, (count,).
        space: pixels along each axis.
        offset: for each coordinate where its image begins among the rows, (count,).
    """
    strides = [prod(space[place + 1 :]) for place in range(len(space))]
    start = steps.graph.const(f"{steps.node.name}.start", offset.astype(np.float32))
    total: Variable | None = None
    for taps in product(*(axis.taps for axis in axes)):
        place: Tensor = start
        weight: Variable | None = None
        for (index, factor), stride in zip(taps, strides, strict=True):
            place = steps("Add", place, steps("Mul", index, float(stride)) if stride > 1 else index)
            if factor is not None:
                weight = factor if weight is None else steps("Mul", weight, factor)
        pixels = steps("Gather", rows, steps.cast(place, np.int32), axis=0)
        pixels.dtype = rows.dtype
        if weight is not None:
            pixels = steps("Mul", pixels, steps.reshaped(weight, [len(offset), 1]))
        total = pixels if total is None else steps("Add", total, pixels)
    assert total is not None
    return total


@rewrites("GridSample")
def grid_sample(graph: Graph, node: Node) -> bool:
    """Pixels at the places of a grid, -1 and 1 being the image's ends."""
    x, grid = node.inputs
    shape, places = sizes(x), sizes(grid)
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(_text(node, "mode", "linear"), _text(node, "mode", "linear"))
    if not is_float(node) or shape is None or places is None or prod([shape[0], *shape[2:]]) > _MOST_PIXELS:
        return False
    space, wanted, channels = shape[2:], places[1:-1], shape[1]
    count, pixels = prod(places[:-1]), prod(space)
    steps, rank = Steps(graph, node), len(space)
    align = bool(node.attrs.get("align_corners", 0))
    flat = steps.reshaped(grid, [count, rank])
    axes = []
    for place, size in enumerate(space):
        along = steps.reshaped(steps.sliced(flat, 1, rank - 1 - place, rank - place), [count])
        scale, shift = ((size - 1) / 2, (size - 1) / 2) if align else (size / 2, (size - 1) / 2)
        at = steps("Add", steps("Mul", along, scale), shift)
        low, high = (0.0, size - 1.0) if align else (-0.5, size - 0.5)
        axes.append(_Axis(steps, at, size, mode, _text(node, "padding_mode", "zeros"), low, high))
    turned = steps("Transpose", steps.reshaped(x, [shape[0], channels, pixels]), perm=[0, 2, 1])
    rows = steps.reshaped(turned, [shape[0] * pixels, channels])
    offset = np.repeat(np.arange(shape[0]) * pixels, prod(wanted))
    sampled = steps.reshaped(_sampled(steps, rows, axes, space, offset), [shape[0], *wanted, channels])
    return steps.done(steps("Transpose", sampled, perm=[0, rank + 1, *range(1, rank + 1)]))


@rewrites("AffineGrid")
def affine_grid(graph: Graph, node: Node) -> bool:
    """The places of an image's pixels, known, times the matrices."""
    theta, size = node.inputs[0], known(node.inputs[1])
    if not is_float(node) or size is None:
        return False
    batch, _, *space = (int(n) for n in size.reshape(-1))
    rank, steps = len(space), Steps(graph, node)
    align = bool(node.attrs.get("align_corners", 0))
    ends = [np.linspace(-1, 1, n) if align and n > 1 else (2 * np.arange(n) + 1) / n - 1 for n in space]
    places = np.stack([*reversed(np.meshgrid(*ends, indexing="ij")), np.ones(space)], axis=-1)
    base = graph.const(f"{node.name}.places", places.reshape(1, -1, rank + 1).astype(np.float32))
    grid = steps("MatMul", base, steps("Transpose", theta, perm=[0, 2, 1]))
    return steps.done(steps.reshaped(grid, [batch, *space, rank]))


@rewrites("DeformConv")
def deformable_convolution(graph: Graph, node: Node) -> bool:
    """Pixels at the taps' own places, and a product with the weights."""
    x, weights, offsets = node.inputs[:3]
    shape, kernel, moved = sizes(x), sizes(weights), sizes(offsets)
    if not is_float(node) or shape is None or kernel is None or moved is None or len(shape) != 4:
        return False
    if int(node.attrs.get("group", 1)) != 1 or prod([shape[0], *shape[2:]]) > _MOST_PIXELS:
        return False
    batch, channels, *space = shape
    outputs, _, *window = kernel
    height, width = moved[2:]
    groups, taps = int(node.attrs.get("offset_group", 1)), prod(window)
    strides, dilations = (list(node.attrs.get(key) or [1, 1]) for key in ("strides", "dilations"))
    pads = list(node.attrs.get("pads") or [0] * 4)
    steps = Steps(graph, node)
    pair = steps.reshaped(offsets, [batch * groups, taps, 2, height * width])
    count = batch * groups * taps * height * width
    axes = []
    for place, size in enumerate(space):
        index = np.indices(window)[place].reshape(-1) * int(dilations[place])
        grid = np.indices((height, width))[place].reshape(-1) * int(strides[place]) - int(pads[place])
        regular = np.broadcast_to(index[:, None] + grid, (batch * groups, taps, height * width)).reshape(-1)
        along = steps.reshaped(steps.sliced(pair, 2, place, place + 1), [count])
        at = steps("Add", along, graph.const(f"{node.name}.places{place}", regular.astype(np.float32)))
        axes.append(_Axis(steps, at, size, "linear", "zeros", 0.0, size - 1.0))
    each, pixels = channels // groups, prod(space)
    turned = steps("Transpose", steps.reshaped(x, [batch * groups, each, pixels]), perm=[0, 2, 1])
    rows = steps.reshaped(turned, [batch * groups * pixels, each])
    offset = np.repeat(np.arange(batch * groups) * pixels, taps * height * width)
    sampled = _sampled(steps, rows, axes, space, offset)
    if len(node.inputs) > 4 and node.inputs[4].name:
        sampled = steps("Mul", sampled, steps.reshaped(node.inputs[4], [count, 1]))
    seen = steps.reshaped(sampled, [batch, groups, taps, height * width, each])
    columns = steps.reshaped(steps("Transpose", seen, perm=[0, 3, 1, 4, 2]), [batch * height * width, channels * taps])
    matrix = steps("Transpose", steps.reshaped(weights, [outputs, channels * taps]), perm=[1, 0])
    result = steps("MatMul", columns, matrix)
    if len(node.inputs) > 3 and node.inputs[3].name:
        result = steps("Add", result, node.inputs[3])
    image = steps.reshaped(result, [batch, height, width, outputs])
    return steps.done(steps("Transpose", image, perm=[0, 3, 1, 2]))


@rewrites("Col2Im")
def columns_to_image(graph: Graph, node: Node) -> bool:
    """A transposed convolution, whose kernel for each tap is 1 there and 0 elsewhere."""
    image, window = known(node.inputs[1]), known(node.inputs[2])
    shape = sizes(node.inputs[0])
    if not is_float(node) or image is None or window is None or shape is None:
        return False
    rank, taps = len(window), int(np.prod(window))
    strides, dilations = (np.array(node.attrs.get(key) or [1] * rank) for key in ("strides", "dilations"))
    pads = np.array(node.attrs.get("pads") or [0] * (2 * rank))
    reach = (window - 1) * dilations + 1
    grid = (image + pads[:rank] + pads[rank:] - reach) // strides + 1
    rest = image - ((grid - 1) * strides + reach - pads[:rank] - pads[rank:])
    channels = shape[1] // taps
    kernel = np.zeros((channels, taps, channels, taps), np.float32)
    np.einsum("ctct->ct", kernel)[:] = 1
    steps = Steps(graph, node)
    weights = graph.const(f"{node.name}.taps", kernel.reshape(channels * taps, channels, *window))
    placed = steps.reshaped(node.inputs[0], [shape[0], shape[1], *(int(n) for n in grid)])
    attrs = {"strides": strides.tolist(), "pads": pads.tolist(), "output_padding": rest.tolist()}
    return steps.done(steps("ConvTranspose", placed, weights, dilations=dilations.tolist(), **attrs))


@rewrites("MaxUnpool")
def max_unpool(graph: Graph, node: Node) -> bool:
    """Values at their places among zeros."""
    x, indices = node.inputs[:2]
    shape = sizes(x)
    if not is_float(node) or shape is None:
        return False
    kernel = np.array(node.attrs["kernel_shape"])
    strides = np.array(node.attrs.get("strides") or [1] * len(kernel))
    pads = np.array(node.attrs.get("pads") or [0] * (2 * len(kernel)))
    space = (np.array(shape[2:]) - 1) * strides + kernel - pads[: len(kernel)] - pads[len(kernel) :]
    whole = [*shape[:2], *(int(n) for n in space)]
    steps = Steps(graph, node)
    zeros = graph.const(f"{node.name}.zeros", np.zeros(prod(whole), np.float32))
    places, values = (steps.reshaped(tensor, [prod(shape)]) for tensor in (indices, x))
    flat = steps("ScatterElements", zeros, places, values, axis=0)
    flat.dtype = np.dtype(np.float32)
    result: Variable = steps.reshaped(flat, whole)
    asked = known(node.inputs[2]) if len(node.inputs) > 2 else None
    if asked is not None:
        more = [int(n) for n in asked.reshape(-1) - np.array(whole)]
        result = steps("Pad", result, steps.integers("more", [*[0] * len(whole), *more]))
    return steps.done(result)
