"""Operators of two tensors, element by element, with ONNX's broadcasting.

Sources: ONNX operators Add, Sub, Mul, Div, Max, Min, Pow; TFLite operators ADD, SUB, MUL, DIV, MAXIMUM, MINIMUM, POW.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.lowering import Lowering, lowers
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value
from edgec.ir.graph import Node

_ARITHMETIC = {
    "Add": ("ADD", schema.AddOptionsT),
    "Sub": ("SUB", schema.SubOptionsT),
    "Mul": ("MUL", schema.MulOptionsT),
}


@lowers("Add", "Sub", "Mul")
def arithmetic(low: Lowering, node: Node) -> None:
    """Integers of any scales, with a fused activation."""
    kind, options_type = _ARITHMETIC[node.op]
    to = low.destination(node)
    sides = [low.value(t) for t in node.inputs]
    integer = low.is_integer(node, sides, to.quantization)
    left, right, shape, order, stored = aligned(
        low, *(low.operand(side) if integer else low.wide(low.real(side)) for side in sides)
    )
    quantization = to.quantization if integer else None
    options = options_type()
    options.fusedActivationFunction, rest = low.activation(to.clamp, quantization)
    made = low.emit(
        kind, [left, right], stored, left, options, shape=shape, quantization=quantization, name=to.tensor.name
    )
    low.finish(to, replace(low.narrow(made, sides[0]), order=order), rest)


@lowers("Div", "Pow")
def float_arithmetic(low: Lowering, node: Node) -> None:
    """TFLite has no int8 kernel for these."""
    to = low.destination(node)
    sides = [low.value(t) for t in node.inputs]
    low.note_float(node, sides)
    reals = [low.real(side) for side in sides]
    if not reals[0].is_number:
        # There is no DIV or POW of integers but of int32.
        reals = [low.cast(side, np.dtype(np.int32)) for side in reals]
    left, right, shape, order, stored = aligned(low, *reals)
    rest = to.clamp
    if node.op == "Div":
        options = schema.DivOptionsT()
        options.fusedActivationFunction, rest = low.activation(to.clamp, None)
    else:
        options = schema.PowOptionsT()
    kind = node.op.upper()
    made = low.emit(kind, [left, right], stored, left, options, shape=shape, name=to.tensor.name)
    low.finish(to, low.narrow(replace(made, order=order), sides[0]), rest)


@lowers("Max", "Min")
def extremum(low: Lowering, node: Node) -> None:
    """Integers of one scale for all; what differs is requantized first."""
    to = low.destination(node)
    sides = [low.value(t) for t in node.inputs]
    integer = low.is_integer(node, sides, to.quantization)
    made = sides[0]
    kind = "MAXIMUM" if node.op == "Max" else "MINIMUM"
    if integer:
        assert to.quantization is not None
        sides = [low.tied(node, side, to.quantization) for side in sides]
    else:
        sides = [low.wide(low.real(side)) for side in sides]
    made = sides[0]
    for other in sides[1:]:
        left, right, shape, order, stored = aligned(low, made, other)
        made = low.emit(
            kind,
            [left, right],
            stored,
            left,
            schema.MaximumMinimumOptionsT(),
            shape=shape,
            quantization=to.quantization if integer else None,
            name=to.tensor.name,
        )
        made = replace(made, order=order)
    low.finish(to, low.narrow(made, low.value(node.inputs[0])), to.clamp)


def aligned(
    low: Lowering, left: Value, right: Value
) -> tuple[Value, Value, tuple[int, ...], layout.Order, tuple[int, ...]]:
    """Two operands stored so that TFLite broadcasts them as ONNX does.

    Returns:
        the operands in the file; ONNX shape, memory order and stored shape of the result.
    """
    shape = tuple(np.broadcast_shapes(left.shape, right.shape))
    # The order of the operands matters (Sub, Div, Pow), and two views of one buffer cannot be told by name.
    swapped = left.is_constant and not right.is_constant
    lead, other = (right, left) if swapped else (left, right)
    if lead.shape == shape and other.shape == shape and not lead.is_constant:
        if not other.is_constant and other.order != lead.order:
            # Of two orders the rank's own is kept: the rest of the network is in it.
            usual = layout.permuted(shape, low.default_permutation(len(shape)))
            if other.order == usual:
                lead, other, swapped = other, lead, not swapped
        stored, order = lead.stored, lead.order
        other = low.laid(other, order, stored)
    elif lead.shape == shape and other.is_constant and other.known().size == 1:
        stored, order = lead.stored, lead.order
        number = other.reshaped((1,))
        other = low.laid(number, (), (1,))
    else:
        rank = len(shape)
        lead, other = (side.reshaped((*[1] * (rank - len(side.shape)), *side.shape)) for side in (lead, other))
        permutation = held_permutation(low, lead if lead.shape == shape or lead.is_constant else _larger(lead, other))
        lead, other = low.arranged(lead, permutation), low.arranged(other, permutation)
        stored = tuple(shape[axis] for axis in permutation)
        order = layout.permuted(shape, permutation)
    first, second = (other, lead) if swapped else (lead, other)
    return first, second, shape, order, stored


def _larger(left: Value, right: Value) -> Value:
    return left if np.prod(left.shape) >= np.prod(right.shape) else right
