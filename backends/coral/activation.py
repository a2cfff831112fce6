"""Operators of one tensor, element by element, and Softmax.

Sources: ONNX operators of these names; TFLite 8-bit quantization specification (outputs of LOGISTIC and SOFTMAX have
scale 1/256 and zero-point -128, of TANH 1/128 and 0).
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral import layout
from edgec.backends.coral.elementwise import aligned
from edgec.backends.coral.lowering import Destination, Lowering, lowers, refusal
from edgec.backends.coral.quantization import FIXED_OUTPUT, UNBOUNDED, per_tensor
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node

# How many steps of the kernel the whole range of an output must span, and the steps that int8 has.
FEWEST_STEPS, _STEPS = 8, 255
_FIXED = {"Sigmoid": "LOGISTIC", "Tanh": "TANH"}
#: TFLite's float kernels; in a quantized network these run between DEQUANTIZE and QUANTIZE.
_FLOAT = {
    "Abs": ("ABS", schema.AbsOptionsT),
    "Ceil": ("CEIL", None),
    "Cos": ("COS", schema.CosOptionsT),
    "Exp": ("EXP", schema.ExpOptionsT),
    "Floor": ("FLOOR", None),
    "Log": ("LOG", None),
    "Neg": ("NEG", schema.NegOptionsT),
    "Round": ("ROUND", None),
    "Sign": ("SIGN", schema.SignOptionsT),
    "Sin": ("SIN", None),
    "Sqrt": ("SQRT", None),
}


@lowers("Relu", "Clip")
def clip(low: Lowering, node: Node) -> None:
    """Nothing where the integers saturate at the bounds, else RELU, RELU6, RELU_N1_TO_1, or MAXIMUM and MINIMUM."""
    value = low.value(node.inputs[0])
    bounds = low.bounds(node)
    if bounds is None:
        _computed_bounds(low, node)
        return
    tensor = node.outputs[0]
    wanted = low.wanted_integers(tensor)
    if value.quantization is not None and wanted is not None and not wanted.same(value.quantization):
        # The integers change scale as well: an activation operator does both at once, a QUANTIZE saturates.
        left = low.unclamped(bounds, wanted)
        kind = {(0.0, float("inf")): "RELU", (0.0, 6.0): "RELU6"}.get(bounds)
        if kind is not None:
            made = low.emit(kind, [value], value.stored, value, quantization=wanted, name=tensor.name)
        else:
            made = low.clamped(low.quantized(value, wanted), left)
        low.set(tensor, made)
        return
    low.set(tensor, low.narrow(low.clamped(low.wide(value), bounds), value))


def _computed_bounds(low: Lowering, node: Node) -> None:
    """MAXIMUM and MINIMUM with what the network computes, in float."""
    made = low.wide(low.real(low.value(node.inputs[0])))
    low.note_float(node, [low.value(node.inputs[0])])
    for place, kind in ((1, "MAXIMUM"), (2, "MINIMUM")):
        bound = low.optional(node, place)
        if bound is not None:
            left, right, shape, order, stored = aligned(low, made, low.wide(low.real(bound)))
            options = schema.MaximumMinimumOptionsT()
            made = low.emit(kind, [left, right], stored, left, options, shape=shape, name=node.outputs[0].name)
            made = replace(made, order=order)
    low.set(node.outputs[0], low.narrow(made, low.value(node.inputs[0])))


@lowers("Sigmoid", "Tanh")
def fixed_output(low: Lowering, node: Node) -> None:
    """LOGISTIC and TANH, whose integers TFLite prescribes."""
    value = low.value(node.inputs[0])
    to = low.destination(node)
    kind = _FIXED[node.op]
    integer = _resolves(kind, to) and low.is_integer(node, [value], to.quantization)
    source = value if integer else low.real(value)
    quantization = per_tensor(*FIXED_OUTPUT[kind]) if integer else None
    made = low.emit(kind, [source], source.stored, source, quantization=quantization, name=to.tensor.name)
    if integer and to.clamp != UNBOUNDED and to.quantization is not None:
        made = low.quantized(made, to.quantization)
    low.finish(to, made, to.clamp)


@lowers("LeakyRelu")
def leaky_relu(low: Lowering, node: Node) -> None:
    """LEAKY_RELU on floats; PRELU with one slope on integers, because the Edge TPU has that and not the other."""
    slope = float(node.attrs.get("alpha", 0.01))
    value = low.value(node.inputs[0])
    to = low.destination(node)
    if low.is_integer(node, [value], to.quantization):
        depth = value.stored[-1] if value.stored else 1
        alpha = low.operand(constant(f"{node.name}.alpha", np.full(depth, slope, np.float32)))
        alpha = low.laid(alpha, alpha.order, (depth,))
        made = low.emit("PRELU", [value, alpha], value.stored, value, quantization=to.quantization, name=to.tensor.name)
    else:
        options = schema.LeakyReluOptionsT()
        options.alpha = slope
        source = low.real(value)
        made = low.emit("LEAKY_RELU", [source], source.stored, source, options, name=to.tensor.name)
    low.finish(to, made, to.clamp)


@lowers("PRelu")
def prelu(low: Lowering, node: Node) -> None:
    """PRELU with the slopes stored as the input is."""
    value, slope = low.value(node.inputs[0]), low.value(node.inputs[1])
    if not slope.is_constant:
        raise refusal(node, "its slope is computed by the network", "write it as Max and Min in the model")
    to = low.destination(node)
    integer = low.is_integer(node, [value, slope], to.quantization)
    source = value if integer else low.real(value)
    slope = low.operand(slope) if integer else low.real(slope)
    rank = len(source.shape)
    slope = slope.reshaped((*[1] * (rank - len(slope.shape)), *slope.shape))
    permutation = held_permutation(low, source)
    source = low.arranged(source, permutation)
    stored = [slope.shape[axis] for axis in permutation]
    while len(stored) > 1 and stored[0] == 1:
        stored = stored[1:]
    slope = low.laid(slope, layout.permuted(slope.shape, permutation), stored)
    quantization = to.quantization if integer else None
    made = low.emit("PRELU", [source, slope], source.stored, source, quantization=quantization, name=to.tensor.name)
    low.finish(to, made, to.clamp)


@lowers(*_FLOAT)
def float_unary(low: Lowering, node: Node) -> None:
    """A float kernel."""
    kind, options = _FLOAT[node.op]
    value = low.value(node.inputs[0])
    to = low.destination(node)
    low.note_float(node, [value])
    source = low.wide(low.real(value))
    made = low.emit(kind, [source], source.stored, source, None if options is None else options(), name=to.tensor.name)
    low.finish(to, low.narrow(made, value), to.clamp)


@lowers("Gelu")
def gelu(low: Lowering, node: Node) -> None:
    """GELU."""
    value = low.value(node.inputs[0])
    to = low.destination(node)
    integer = low.is_integer(node, [value], to.quantization)
    options = schema.GeluOptionsT()
    options.approximate = node.attrs.get("approximate", "none") == "tanh"
    source = value if integer else low.real(value)
    quantization = to.quantization if integer else None
    made = low.emit("GELU", [source], source.stored, source, options, quantization=quantization, name=to.tensor.name)
    low.finish(to, made, to.clamp)


@lowers("Softmax")
def softmax(low: Lowering, node: Node) -> None:
    """SOFTMAX over the last stored dimension."""
    value = low.value(node.inputs[0])
    rank = len(value.shape)
    axis = int(node.attrs.get("axis", -1 if low.graph.opset >= 13 else 1)) % rank
    if low.graph.opset < 13:
        # Before opset 13 the tensor is seen as a matrix split at the axis.
        shape = (prod(value.shape[:axis]), prod(value.shape[axis:]))
        value, axis, rank = value.reshaped(shape), 1, 2
    to = low.destination(node)
    integer = _resolves("SOFTMAX", to) and low.is_integer(node, [value], to.quantization)
    source = value if integer else low.real(value)
    source = low.arranged(source, _with_last(held_permutation(low, source), axis, source))
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    quantization = per_tensor(*FIXED_OUTPUT["SOFTMAX"]) if integer else None
    made = low.emit("SOFTMAX", [source], source.stored, source, options, quantization=quantization, name=to.tensor.name)
    low.finish(to, made.reshaped(low.value(node.inputs[0]).shape), to.clamp)


def _resolves(kind: str, to: Destination) -> bool:
    """Whether an output in the steps that the integer kernel has can be told from 0.

    Where the graph wants the output in steps so fine that all of them together are a few of the kernel's, the kernel
    would round it all away: a Softmax over a thousand elements gives a thousandth each.
    """
    return to.quantization is None or FIXED_OUTPUT[kind][0] * FEWEST_STEPS <= _STEPS * float(to.quantization.scale[0])


def _with_last(permutation: tuple[int, ...], axis: int, value: Value) -> tuple[int, ...]:
    """The permutation, with ``axis`` moved to the end unless it is there already."""
    moved = (*(a for a in permutation if a != axis), axis)
    return permutation if permutation[-1] == axis else moved
