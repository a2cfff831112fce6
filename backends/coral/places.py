"""Where in a tensor's memory the elements or rows lie that indices name: sums of indices times strides, in int32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.lowering import Lowering
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node


def element_places(low: Lowering, node: Node, shape: Sequence[int], indices: Value, axis: int) -> Value:
    """The place of each element that ``indices`` name along an axis, the other coordinates being their own.

    Args:
        low: the walk.
        node: whose indices they are; what is added is named for it.
        shape: of the tensor that is looked into.
        indices: of its rank; negative ones count from the end.
        axis: of ``shape``.
    """
    strides = _strides(shape)
    others = [0 if a == axis else stride for a, stride in enumerate(strides)]
    counted = _counted(low, node, indices, shape[axis])
    return _plus(low, node, _times(low, node, counted, strides[axis]), _places_of_rows(indices.shape, others))


def row_places(low: Lowering, node: Node, shape: Sequence[int], indices: Value, batch: int = 0) -> Value:
    """The place of each row that the last axis of ``indices`` names by its coordinates, in rows.

    Args:
        low: the walk.
        node: whose indices they are; what is added is named for it.
        shape: of the tensor that is looked into.
        indices: (..., coordinates); negative ones count from the end.
        batch: how many first axes both have in common.
    """
    depth = indices.shape[-1]
    strides = _strides(shape[: batch + depth])
    places: Value | None = None
    coordinates = _coordinates(low, node, indices, depth)
    for part, size, stride in zip(coordinates, shape[batch : batch + depth], strides[batch:], strict=True):
        term = _times(low, node, _counted(low, node, part, size), stride)
        places = term if places is None else _sum(low, node, places, term)
    assert places is not None
    return _plus(low, node, places, _places_of_rows(indices.shape[:-1], strides[:batch]))


def from_the_front(low: Lowering, node: Node, indices: Value, count: int) -> Value:
    """``indices + count`` where they are negative."""

    zero, size = (constant(f"{node.name}.{n}", np.array([n], np.int32)) for n in (0, count))
    less = _step(low, "LESS", indices, zero, schema.LessOptionsT(), np.bool_)
    negative = low.cast(less, np.dtype(np.int32))
    return _step(low, "ADD", indices, _step(low, "MUL", negative, size, schema.MulOptionsT()), schema.AddOptionsT())


def _places_of_rows(shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """Where in memory the batch of each index begins: the first coordinates of its own place, times their strides."""
    places = np.zeros(tuple(shape), np.int64)
    for axis, stride in enumerate(strides):
        places += stride * np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return places


def _strides(shape: Sequence[int]) -> list[int]:
    """How far apart in row-major memory neighbours along each axis are."""
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]


def _coordinates(low: Lowering, node: Node, indices: Value, depth: int) -> list[Value]:
    """Each coordinate of indices by itself."""
    if indices.is_constant:
        return [constant(f"{node.name}.at{n}", indices.known()[..., n]) for n in range(depth)]
    rank = len(indices.shape)
    indices = low.arranged(low.cast(indices, np.dtype(np.int32)), range(rank))
    if depth == 1:
        return [indices.reshaped(indices.shape[:-1])]
    parts = []
    for number in range(depth):
        begin = low.ints(f"{node.name}.begin{number}", [*[0] * (rank - 1), number])
        size = low.ints(f"{node.name}.size", [*indices.shape[:-1], 1])
        shape = (*indices.shape[:-1], 1)
        part = low.emit(
            "SLICE",
            [indices, begin, size],
            shape,
            indices,
            schema.SliceOptionsT(),
            shape=shape,
            permutation=range(rank),
        )
        parts.append(part.reshaped(shape[:-1]))
    return parts


def _counted(low: Lowering, node: Node, indices: Value, size: int) -> Value:
    """Indices in int32 and ONNX's order, counted from the front."""
    if indices.is_constant:
        numbers = indices.known()
        return constant(f"{node.name}.indices", np.where(numbers < 0, numbers + size, numbers).astype(np.int32))
    indices = low.arranged(low.cast(indices, np.dtype(np.int32)), range(len(indices.shape)))
    return from_the_front(low, node, indices, size)


def _times(low: Lowering, node: Node, indices: Value, stride: int) -> Value:
    if stride == 1:
        return indices
    if indices.is_constant:
        return constant(indices.name, indices.known() * np.int32(stride))
    return _step(low, "MUL", indices, _number(node, stride, indices), schema.MulOptionsT())


def _plus(low: Lowering, node: Node, indices: Value, numbers: np.ndarray) -> Value:
    if not numbers.any():
        return indices
    if indices.is_constant:
        return constant(indices.name, (indices.known() + numbers).astype(np.int32))
    held = low.arranged(constant(f"{node.name}.offsets", numbers.astype(np.int32)), range(numbers.ndim))
    return _step(low, "ADD", indices, held, schema.AddOptionsT())


def _sum(low: Lowering, node: Node, left: Value, right: Value) -> Value:
    if left.is_constant:
        left, right = right, left
    if left.is_constant:
        return constant(left.name, left.known() + right.known())
    if right.is_constant:
        return _plus(low, node, left, right.known())
    right = low.laid(right, left.order, left.stored)
    return _step(low, "ADD", left, right, schema.AddOptionsT())


def _number(node: Node, value: int, like: Value) -> Value:
    return constant(f"{node.name}.{value}", np.full([1] * max(len(like.stored), 1), value, np.int32))


def _step(low: Lowering, kind: str, left: Value, right: Value, options: object, dtype: type = np.int32) -> Value:
    return low.emit(kind, [left, right], left.stored, left, options, dtype=np.dtype(dtype))
