"""Gather and OneHot: GATHER of rows or elements by known or computed indices, and ONE_HOT.

Sources: ONNX operators Gather and OneHot; TFLite operators GATHER and ONE_HOT. GATHER takes no negative indices: known
ones are made positive here, and computed ones, such as token ids, must not be negative.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node

#: Types of indices that GATHER takes.
_INDICES = (np.dtype(np.int32), np.dtype(np.int64))


@lowers("Gather")
def gather(low: Lowering, node: Node) -> None:
    """GATHER along a stored dimension; by indices of more than one dimension, of a source in ONNX's order."""
    source, indices = low.value(node.inputs[0]), low.value(node.inputs[1])
    rank = len(source.shape)
    axis = int(node.attrs.get("axis", 0)) % rank
    size = source.shape[axis]
    if indices.is_constant:
        numbers = indices.known()
        numbers = np.where(numbers < 0, numbers + size, numbers)
        if source.is_constant:
            taken = np.take(low.real(source).known(), numbers, axis)
            low.set(node.outputs[0], constant(node.outputs[0].name, taken))
            return
        indices = constant(f"{node.name}.indices", numbers.astype(np.int32))
    source = _table(low, source) if source.is_constant else source
    # A vector of indices leaves the other dimensions where they are, so that any order of the memory will do.
    flat = len(indices.shape) <= 1
    permutation = held_permutation(low, source) if flat else tuple(range(rank))
    source = low.arranged(source, permutation)
    if indices.dtype not in _INDICES:
        indices = low.cast(indices, np.dtype(np.int32))
    indices = low.arranged(indices, range(len(indices.shape)))
    if flat:
        indices = low.laid(indices, indices.order, (int(np.prod(indices.shape)),))
    options = schema.GatherOptionsT()
    options.axis, options.batchDims = permutation.index(axis), 0
    within = (int(np.prod(indices.shape)),) if flat else indices.shape
    shape = (*source.shape[:axis], *within, *source.shape[axis + 1 :])
    order = permutation if flat else tuple(range(len(shape)))
    made = low.emit(
        "GATHER",
        [source, indices],
        [shape[a] for a in order],
        source,
        options,
        shape=shape,
        permutation=order,
        quantization=source.quantization,
        name=node.outputs[0].name,
    )
    scalar = flat and not indices.shape
    low.set(node.outputs[0], made.reshaped([s for a, s in enumerate(shape) if a != axis]) if scalar else made)


def _table(low: Lowering, source: Value) -> Value:
    """A known table: int8 with one scale stays so, anything else is of floats, or of integers without a scale."""
    quantization = source.quantization
    if quantization is None or (not quantization.per_channel and source.known().dtype == np.int8):
        return source
    return low.real(source)


def _from_the_front(low: Lowering, node: Node, indices: Value, count: int) -> Value:
    """``indices + count`` where they are negative."""

    def step(kind: str, left: Value, right: Value, options: object, dtype: type = np.int32) -> Value:
        return low.emit(kind, [left, right], left.stored, left, options, dtype=np.dtype(dtype))

    zero, size = (constant(f"{node.name}.{n}", np.array([n], np.int32)) for n in (0, count))
    negative = low.cast(step("LESS", indices, zero, schema.LessOptionsT(), np.bool_), np.dtype(np.int32))
    return step("ADD", indices, step("MUL", negative, size, schema.MulOptionsT()), schema.AddOptionsT())


@lowers("OneHot")
def one_hot(low: Lowering, node: Node) -> None:
    """ONE_HOT; negative indices count from the end."""
    indices = low.value(node.inputs[0])
    depth, values = low.static(node, 1, "depth"), low.static(node, 2, "values")
    assert depth is not None and values is not None
    if indices.is_number:
        raise refusal(node, "its indices are floats", "cast them to int32 in the model")
    indices = low.cast(indices, np.dtype(np.int32))
    rank = len(indices.shape)
    axis = int(node.attrs.get("axis", -1)) % (rank + 1)
    indices = low.arranged(indices, range(rank))
    count = int(depth.reshape(-1)[0])
    indices = _from_the_front(low, node, indices, count)
    shape = (*indices.shape[:axis], count, *indices.shape[axis:])
    options = schema.OneHotOptionsT()
    options.axis = axis
    off, on = (constant(f"{node.name}.{label}", np.asarray(v)) for label, v in zip(("off", "on"), values, strict=True))
    made = low.emit(
        "ONE_HOT",
        [indices, low.ints(f"{node.name}.depth", count), on, off],
        shape,
        indices,
        options,
        shape=shape,
        permutation=range(rank + 1),
        name=node.outputs[0].name,
        dtype=np.asarray(values).dtype,
    )
    low.set(node.outputs[0], made)
