"""Cast, comparisons, logic and Where: what token ids, masks and a camera's bytes go through.

Integers and booleans are in the file as they are in the graph, without scales; numbers that are quantized are made
floats first. Sources: ONNX operators of these names; TFLite operators CAST, EQUAL, LESS and their kin, LOGICAL_AND,
LOGICAL_OR, LOGICAL_NOT, SELECT_V2, FLOOR_MOD.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.elementwise import aligned
from edgec.backends.coral.flatbuffer import ELEMENT_TYPES
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value
from edgec.ir.graph import Node

_BOOL = np.dtype(np.bool_)
# float32, float16, double, bfloat16 in ONNX.
_FLOATS = frozenset([1, 10, 11, 16])
_COMPARISONS = {
    "Equal": ("EQUAL", schema.EqualOptionsT),
    "Greater": ("GREATER", schema.GreaterOptionsT),
    "GreaterOrEqual": ("GREATER_EQUAL", schema.GreaterEqualOptionsT),
    "Less": ("LESS", schema.LessOptionsT),
    "LessOrEqual": ("LESS_EQUAL", schema.LessEqualOptionsT),
}
_LOGIC = {
    "And": ("LOGICAL_AND", schema.LogicalAndOptionsT),
    "Or": ("LOGICAL_OR", schema.LogicalOrOptionsT),
    "Xor": ("NOT_EQUAL", schema.NotEqualOptionsT),
}


@lowers("Cast")
def cast(low: Lowering, node: Node) -> None:
    """Nothing where floats stay floats, of whatever precision, because the file computes in float32; else CAST."""
    value = low.value(node.inputs[0])
    kind = _element_type(node)
    if value.is_number and kind.kind == "f" and not _stands_for_integers(node, value):
        if value.is_constant:
            value = replace(value, data=low.real(value).known().astype(np.float32), quantization=None)
        low.set(node.outputs[0], value)
        return
    if _stands_for_integers(node, value):
        held = np.dtype(node.inputs[0].dtype)
        if kind.kind == "f" and _is_as_read(value, held):
            low.set(node.outputs[0], value)
            return
        value = low.bare(value, held)
    low.set(node.outputs[0], low.cast(low.real(value), kind, node.outputs[0].name))


def _element_type(node: Node) -> np.dtype:
    """The type in the file of what a Cast leaves."""
    number = int(node.attrs["to"])
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
    if number in _FLOATS:
        return np.dtype(np.float32)
    if kind not in ELEMENT_TYPES:
        raise refusal(node, f"it converts to {kind}, which TFLite has not", "cast to float32 or int32 in the model")
    return kind


def _stands_for_integers(node: Node, value: Value) -> bool:
    """Whether a quantized value is read as the integers that it is stored in."""
    dtype = node.inputs[0].dtype
    return value.quantization is not None and dtype is not None and np.dtype(dtype).kind in "iu"


def _is_as_read(value: Value, held: np.dtype) -> bool:
    """Whether the real numbers of a quantized value are its integers as ONNX has them: a camera's bytes."""
    quantization = value.quantization
    assert quantization is not None
    zero = -128 if held == np.uint8 else 0
    return not quantization.per_channel and float(quantization.scale[0]) == 1.0 and quantization.zero_point[0] == zero


@lowers(*_COMPARISONS, *_LOGIC)
def comparison(low: Lowering, node: Node) -> None:
    """EQUAL, GREATER, LESS and their kin; LOGICAL_AND, LOGICAL_OR, and NOT_EQUAL for an exclusive or."""
    kind, options = (_COMPARISONS | _LOGIC)[node.op]
    sides = [low.wide(low.real(low.value(t))) for t in node.inputs]
    left, right, shape, order, stored = aligned(low, *sides)
    made = low.emit(kind, [left, right], stored, left, options(), shape=shape, name=node.outputs[0].name, dtype=_BOOL)
    low.set(node.outputs[0], replace(made, order=order))


@lowers("Not")
def negation(low: Lowering, node: Node) -> None:
    """LOGICAL_NOT."""
    value = low.value(node.inputs[0])
    options = schema.LogicalNotOptionsT()
    low.set(node.outputs[0], low.emit("LOGICAL_NOT", [value], value.stored, value, options, name=node.outputs[0].name))


@lowers("Mod")
def remainder(low: Lowering, node: Node) -> None:
    """FLOOR_MOD, whose result has the sign of the divisor, as ONNX's Mod of integers."""
    if node.attrs.get("fmod", 0):
        raise refusal(node, "its result has the sign of the dividend (fmod)", low.cut_or_replace(node))
    left, right, shape, order, stored = aligned(low, *(low.wide(low.real(low.value(t))) for t in node.inputs))
    options = schema.FloorModOptionsT()
    made = low.emit("FLOOR_MOD", [left, right], stored, left, options, shape=shape, name=node.outputs[0].name)
    low.set(node.outputs[0], low.narrow(replace(made, order=order), low.value(node.inputs[0])))


@lowers("Where")
def where(low: Lowering, node: Node) -> None:
    """SELECT_V2, in the integers of its output where both branches are quantized."""
    condition, *branches = (low.value(t) for t in node.inputs)
    to = low.destination(node)
    integer = low.is_integer(node, branches, to.quantization)
    if integer:
        assert to.quantization is not None
        branches = [low.tied(node, branch, to.quantization) for branch in branches]
    else:
        branches = [low.real(branch) for branch in branches]
    shape = tuple(np.broadcast_shapes(condition.shape, *(branch.shape for branch in branches)))
    rank = len(shape)
    sides = [side.reshaped((*[1] * (rank - len(side.shape)), *side.shape)) for side in (condition, *branches)]
    lead = next((s for s in sides[1:] if s.shape == shape and not s.is_constant), None)
    lead = next((s for s in sides if s.shape == shape and not s.is_constant), sides[0]) if lead is None else lead
    permutation = held_permutation(low, lead)
    sides = [low.arranged(side, permutation) for side in sides]
    made = low.emit(
        "SELECT_V2",
        sides,
        [shape[axis] for axis in permutation],
        branches[0],
        schema.SelectV2OptionsT(),
        shape=shape,
        permutation=permutation,
        quantization=to.quantization if integer else None,
        name=to.tensor.name,
    )
    low.finish(to, replace(made, order=layout.permuted(shape, permutation)), to.clamp)
