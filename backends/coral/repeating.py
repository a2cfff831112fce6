"""Expand and Tile: BROADCAST_TO and TILE.

Sources: ONNX operators Expand and Tile; TFLite operators BROADCAST_TO and TILE.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.lowering import Lowering, lowers
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import constant
from edgec.ir.graph import Node


@lowers("Expand")
def expand(low: Lowering, node: Node) -> None:
    """BROADCAST_TO, in ONNX's order of dimensions."""
    value = low.value(node.inputs[0])
    given = low.static(node, 1, "shape")
    assert given is not None
    shape = np.broadcast_shapes(value.shape, tuple(int(size) for size in given.reshape(-1)))
    name = node.outputs[0].name
    if value.is_constant:
        low.set(node.outputs[0], constant(name, np.broadcast_to(low.real(value).known(), shape)))
        return
    rank = len(shape)
    source = low.arranged(value.reshaped((*[1] * (rank - len(value.shape)), *value.shape)), range(rank))
    made = low.emit(
        "BROADCAST_TO",
        [source, low.ints(f"{node.name}.shape", shape)],
        shape,
        source,
        schema.BroadcastToOptionsT(),
        shape=shape,
        permutation=range(rank),
        quantization=source.quantization,
        name=name,
    )
    low.set(node.outputs[0], made)


@lowers("Tile")
def tile(low: Lowering, node: Node) -> None:
    """TILE, in whatever order the input lies."""
    value = low.value(node.inputs[0])
    given = low.static(node, 1, "repeats")
    assert given is not None
    repeats = [int(count) for count in given.reshape(-1)]
    name = node.outputs[0].name
    if value.is_constant:
        low.set(node.outputs[0], constant(name, np.tile(low.real(value).known(), repeats)))
        return
    permutation = held_permutation(low, value)
    source = low.arranged(value, permutation)
    shape = tuple(size * count for size, count in zip(value.shape, repeats, strict=True))
    made = low.emit(
        "TILE",
        [source, low.ints(f"{node.name}.repeats", [repeats[axis] for axis in permutation])],
        [shape[axis] for axis in permutation],
        source,
        schema.TileOptionsT(),
        shape=shape,
        permutation=permutation,
        quantization=source.quantization,
        name=name,
    )
    low.set(node.outputs[0], made)
