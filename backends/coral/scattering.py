"""ScatterND and ScatterElements: SCATTER_ND into zeros, and what was there where nothing went.

Sources: ONNX operators of these names; the TFLite operator SCATTER_ND, which adds up what goes to one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.places import element_places, row_places
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node


@lowers("ScatterND")
def scatter_nd(low: Lowering, node: Node) -> None:
    """Rows by their coordinates."""
    data, indices = low.value(node.inputs[0]), low.value(node.inputs[1])
    places = row_places(low, node, data.shape, indices)
    _scatter(low, node, places, data.shape[indices.shape[-1] :])


@lowers("ScatterElements", "Scatter")
def scatter_elements(low: Lowering, node: Node) -> None:
    """Single elements along an axis."""
    data = low.value(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(data.shape)
    _scatter(low, node, element_places(low, node, data.shape, low.value(node.inputs[1]), axis), ())


def _scatter(low: Lowering, node: Node, places: Value, rest: Sequence[int]) -> None:
    """Puts rows of shape ``rest`` to their places among those of the data, or adds them there."""
    reduction = node.attrs.get("reduction", "none")
    reduction = reduction.decode() if isinstance(reduction, bytes) else reduction
    if reduction not in ("none", "add"):
        raise refusal(node, f"it reduces by '{reduction}', and TFLite's SCATTER_ND adds", low.cut_or_replace(node))
    data, updates = (low.wide(low.real(low.value(node.inputs[place]))) for place in (0, 2))
    shape, count = data.shape, prod(places.shape)
    rows = (prod(shape) // max(prod(rest), 1), *rest)
    index = low.laid(low.arranged(places, range(len(places.shape))), layout.row_major(places.shape), (count, 1))
    given = low.arranged(
        low.arranged(updates, range(len(updates.shape))).reshaped((count, *rest)), range(1 + len(rest))
    )
    there = low.arranged(low.arranged(data, range(len(shape))).reshaped(rows), range(len(rows)))
    name = node.outputs[0].name
    sent = _sent(low, node, index, given, rows, f"{name}.sent")
    if reduction == "add":
        result = low.emit("ADD", [there, sent], rows, sent, schema.AddOptionsT(), name=name)
    else:
        marks = constant(f"{node.name}.marks", np.ones(count, np.int32))
        counted = _sent(low, node, index, marks, rows[:1], f"{name}.counted")
        zero = constant(f"{node.name}.none", np.zeros((1,), np.int32))
        options = schema.NotEqualOptionsT()
        new = low.emit("NOT_EQUAL", [counted, zero], rows[:1], counted, options, dtype=np.dtype(bool))
        new = low.arranged(new.reshaped((rows[0], *[1] * len(rest))), range(len(rows)))
        result = low.emit("SELECT_V2", [new, sent, there], rows, sent, schema.SelectV2OptionsT(), name=name)
    low.set(node.outputs[0], low.narrow(result.reshaped(shape), low.value(node.inputs[0])))


def _sent(low: Lowering, node: Node, index: Value, rows: Value, shape: Sequence[int], name: str) -> Value:
    """Rows at their places among zeros."""
    return low.emit(
        "SCATTER_ND",
        [index, rows, low.ints(f"{node.name}.shape", shape)],
        shape,
        rows,
        schema.ScatterNdOptionsT(),
        shape=shape,
        permutation=range(len(shape)),
        name=name,
    )
