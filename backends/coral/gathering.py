"""Gather, GatherElements, GatherND and OneHot: GATHER by known or computed indices, and ONE_HOT.

Sources: ONNX operators of these names; TFLite operators GATHER and ONE_HOT. GATHER takes no negative indices: known
ones are made positive here, and computed ones, such as token ids, must not be negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.places import element_places, from_the_front, row_places
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


@lowers("GatherElements")
def gather_elements(low: Lowering, node: Node) -> None:
    """GATHER of single elements, by their places in the memory."""
    source = low.value(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(source.shape)
    places = element_places(low, node, source.shape, low.value(node.inputs[1]), axis)
    low.set(node.outputs[0], _elements(low, node, source, places))


@lowers("GatherND")
def gather_nd(low: Lowering, node: Node) -> None:
    """GATHER of rows, by their places in the memory."""
    source, indices = low.value(node.inputs[0]), low.value(node.inputs[1])
    batch = int(node.attrs.get("batch_dims", 0))
    places = row_places(low, node, source.shape, indices, batch)
    low.set(node.outputs[0], _elements(low, node, source, places, source.shape[batch + indices.shape[-1] :]))


def _elements(low: Lowering, node: Node, source: Value, places: Value, rest: Sequence[int] = ()) -> Value:
    """The elements, or rows of shape ``rest``, of a tensor at these places of its memory."""
    source = _table(low, source) if source.is_constant else source
    rows = (int(np.prod(source.shape)) // max(int(np.prod(rest)), 1), *rest)
    flat = low.arranged(source.reshaped(rows) if source.is_constant else _flat(low, source, rows), range(len(rows)))
    count = int(np.prod(places.shape))
    index = low.laid(low.arranged(places, range(len(places.shape))), layout.row_major(places.shape), (count,))
    options = schema.GatherOptionsT()
    options.axis, options.batchDims = 0, 0
    made = low.emit(
        "GATHER",
        [flat, index],
        (count, *rest),
        source,
        options,
        shape=(count, *rest),
        permutation=range(1 + len(rest)),
        quantization=source.quantization,
        name=node.outputs[0].name,
    )
    return made.reshaped((*places.shape, *rest))


def _flat(low: Lowering, source: Value, rows: tuple[int, ...]) -> Value:
    """A tensor in ONNX's order, seen as rows."""
    return low.arranged(source, range(len(source.shape))).reshaped(rows)


def _table(low: Lowering, source: Value) -> Value:
    """A known table: int8 with one scale stays so, anything else is of floats, or of integers without a scale."""
    quantization = source.quantization
    if quantization is None or (not quantization.per_channel and source.known().dtype == np.int8):
        return source
    return low.real(source)


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
    indices = from_the_front(low, node, indices, count)
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
