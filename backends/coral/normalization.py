"""LayerNormalization, InstanceNormalization, GroupNormalization and ReduceL2, which TFLite has no operator for.

They are spelled out in MEAN, SUB, MUL, RSQRT and their kind, in float32 even in a network of integers: a variance in
8 bits loses too much. No memory is moved for them: they reduce and broadcast along the memory as it lies, whatever the
order, so that a network that stays channels first in ONNX and channels last in the file needs no TRANSPOSE here.

Sources: the ONNX operators of these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node

# The opset from which GroupNormalization has a scale for each channel, and not for each group.
_SCALE_BY_CHANNEL = 21


@lowers("LayerNormalization")
def layer_normalization(low: Lowering, node: Node) -> None:
    """Over the dimensions from ``axis`` on, with a scale and a shift that broadcast to the input."""
    source = low.value(node.inputs[0])
    rank = len(source.shape)
    axis = int(node.attrs.get("axis", -1)) % rank
    _normalize(low, node, source, range(axis, rank), None)


@lowers("InstanceNormalization")
def instance_normalization(low: Lowering, node: Node) -> None:
    """Over the pixels of each channel."""
    source = low.value(node.inputs[0])
    rank = len(source.shape)
    _normalize(low, node, source, range(2, rank), (source.shape[1], *[1] * (rank - 2)))


@lowers("BatchNormalization")
def batch_normalization(low: Lowering, node: Node) -> None:
    """In training mode, by the statistics of the batch itself; what is known otherwise is legalized before."""
    if not node.attrs.get("training_mode", 0):
        raise refusal(node, "its scale, shift or statistics are computed by the network", low.cut_or_replace(node))
    source = low.value(node.inputs[0])
    rank = len(source.shape)
    shape = (source.shape[1], *[1] * (rank - 2)) if rank > 1 else (1,)
    _normalize(low, node, source, [axis for axis in range(rank) if axis != 1], shape)


@lowers("GroupNormalization")
def group_normalization(low: Lowering, node: Node) -> None:
    """Over the pixels and channels of each group."""
    source = low.value(node.inputs[0])
    batch, channels, *pixels = source.shape
    groups = int(node.attrs["num_groups"])
    seen = source.reshaped((batch, groups, channels // groups, *pixels))
    each = channels // groups if low.graph.opset >= _SCALE_BY_CHANNEL else 1
    _normalize(low, node, seen, range(2, len(seen.shape)), (groups, each, *[1] * len(pixels)))


@lowers("ReduceL2")
def euclidean_norm(low: Lowering, node: Node) -> None:
    """The root of the sum of squares."""
    source = low.value(node.inputs[0])
    low.note_float(node, [source])
    rank = len(source.shape)
    given = low.static(node, 1, "axes")
    axes = node.attrs.get("axes") if given is None else [int(a) for a in given.reshape(-1)]
    along = {a % rank for a in axes} if axes else set(range(rank))
    memory = _Memory(low, source)
    squares = memory.emit("MUL", [memory.value, memory.value], memory.value.stored, schema.MulOptionsT())
    total = memory.reduced("SUM", squares, along)
    to = low.destination(node)
    made = memory.emit("SQRT", [total], total.stored, name=to.tensor.name)
    kept = tuple(1 if axis in along else size for axis, size in enumerate(source.shape))
    steps = layout.strides(kept)
    order = layout.canonical((size, inner * steps[axis]) for axis, size, inner in memory.pieces if axis not in along)
    made = replace(made, shape=kept, order=order)
    if not node.attrs.get("keepdims", 1):
        made = made.reshaped([size for axis, size in enumerate(kept) if axis not in along])
    low.finish(to, made, to.clamp)


def _normalize(low: Lowering, node: Node, source: Value, axes: Sequence[int], factors: Sequence[int] | None) -> None:
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift``.

    Args:
        low: the walk.
        node: the node.
        source: its input, in the shape that ``axes`` count in.
        axes: the dimensions that a mean is over.
        factors: the shape of scale and shift, which one number of either is repeated to; ``None`` for their own.
    """
    low.note_float(node, [source])
    to = low.destination(node)
    memory = _Memory(low, source)
    stored = memory.value.stored
    mean = memory.reduced("MEAN", memory.value, set(axes))
    centred = memory.emit("SUB", [memory.value, mean], stored, schema.SubOptionsT())
    squares = memory.emit("MUL", [centred, centred], stored, schema.MulOptionsT())
    variance = memory.reduced("MEAN", squares, set(axes))
    epsilon = constant(f"{node.name}.epsilon", np.array([node.attrs.get("epsilon", 1e-5)], np.float32))
    shifted = memory.emit("ADD", [variance, epsilon], variance.stored, schema.AddOptionsT())
    inverse = memory.emit("RSQRT", [shifted], shifted.stored)
    made = memory.emit("MUL", [centred, inverse], stored, schema.MulOptionsT(), name=to.tensor.name)
    for place, what, kind, options in (
        (1, "scale", "MUL", schema.MulOptionsT()),
        (2, "shift", "ADD", schema.AddOptionsT()),
    ):
        numbers = low.static(node, place, what)
        if numbers is not None:
            known = np.asarray(numbers, np.float32)
            if factors is not None:
                known = known.reshape(factors) if known.size > 1 else np.broadcast_to(known.reshape(-1)[:1], factors)
            factor = constant(f"{node.name}.{what}", memory.along(known))
            made = memory.emit(kind, [made, factor], stored, options, name=to.tensor.name)
    low.finish(to, made.reshaped(low.value(node.inputs[0]).shape), to.clamp)


class _Memory:
    """A tensor in float32, seen as the factors that its dimensions fall into, in the order in which they lie."""

    def __init__(self, low: Lowering, source: Value) -> None:
        self.low = low
        source = low.real(source)
        pieces = layout.by_dimension(source.order, source.shape)
        if pieces is None:
            source = low.arranged(source, range(len(source.shape)))
            pieces = layout.by_dimension(source.order, source.shape)
        assert pieces is not None
        # A tensor of one element still needs a dimension.
        self.pieces = pieces or [(0, 1, 1)]
        self.shape = source.shape
        self.value = low.laid(source, source.order, [size for _, size, _ in self.pieces])

    def emit(
        self, kind: str, inputs: Sequence[Value | int], stored: Sequence[int], options: Any = None, *, name: str = ""
    ) -> Value:
        """Adds a float operator."""
        return self.low.emit(kind, list(inputs), stored, self.value, options, name=name)

    def reduced(self, kind: str, value: Value, axes: set[int]) -> Value:
        """MEAN or SUM over whole dimensions, which stay as 1."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        places = [place for place, (axis, _, _) in enumerate(self.pieces) if axis in axes]
        stored = [1 if place in places else size for place, (_, size, _) in enumerate(self.pieces)]
        if not places:
            return value
        return self.emit(kind, [value, self.low.ints("axes", places)], stored, options)

    def along(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers that broadcast over the last dimensions, as they broadcast over the memory."""
        shape = (*[1] * (len(self.shape) - numbers.ndim), *numbers.shape)
        steps = layout.strides(shape)
        index = np.zeros([1] * len(self.pieces), np.int64)
        for place, (axis, size, inner) in enumerate(self.pieces):
            if shape[axis] > 1:
                where = [1] * len(self.pieces)
                where[place] = size
                index = index + (np.arange(size) * inner * steps[axis]).reshape(where)
        assert prod(shape) == numbers.size
        return numbers.reshape(-1)[index]
