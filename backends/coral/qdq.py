"""QuantizeLinear and DequantizeLinear: in the file they are the scales of a tensor, and rarely an operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.elementwise import aligned
from edgec.backends.coral.lowering import Lowering, lowers, refusal
from edgec.backends.coral.quantization import shifted_to_int8
from edgec.backends.coral.value import FLOAT32, Value, constant
from edgec.ir.graph import Constant, Node
from edgec.ir.literals import literal


@lowers("QuantizeLinear")
def quantize(low: Lowering, node: Node) -> None:
    """Nothing where the value is in these integers already, else a QUANTIZE with a note."""
    value = low.value(node.inputs[0])
    wanted = low.read_quantization(node)
    if wanted.per_channel and not value.is_constant:
        raise refusal(node, "it quantizes an activation per channel", "quantize activations with one scale")
    if not value.is_constant and not wanted.same(value.quantization):
        if value.quantization is None:
            low.notes.append(f"tensor '{value.name}' is computed in float: a QUANTIZE was added")
        else:
            low.notes.append(f"tensor '{value.name}' is in other integers than its readers want: a QUANTIZE was added")
    low.set(node.outputs[0], low.quantized(value, wanted))


@lowers("DequantizeLinear")
def dequantize(low: Lowering, node: Node) -> None:
    """The same integers; whoever wants floats asks for them."""
    value = low.value(node.inputs[0])
    if value.is_constant:
        data = value.known()
        quantization = low.read_quantization(node, data.dtype)
        if data.dtype == np.uint8:
            data, _ = shifted_to_int8(data, quantization)
        low.set(node.outputs[0], replace(value, data=data, quantization=quantization, dtype=FLOAT32))
        return
    if value.quantization is None and not value.is_number:
        _spelled_out(low, node, value)
        return
    quantization = low.read_quantization(node, np.dtype(np.uint8))
    if not quantization.same(value.quantization):
        raise refusal(
            node,
            "its scale or zero-point is not that of the QuantizeLinear before it",
            "quantize with one scale and zero-point for each tensor",
        )
    low.set(node.outputs[0], value)


def _spelled_out(low: Lowering, node: Node, value: Value) -> None:
    """``(x - zero) * scale`` in float, of integers that the file holds without a scale."""
    scale, zero = low.static(node, 1, "scale"), low.static(node, 2, "zero-point")
    assert scale is not None
    shape = [1] * len(value.shape)
    axis, block = int(node.attrs.get("axis", 1)) % max(len(shape), 1), int(node.attrs.get("block_size", 0))
    if block:  # a scale for each so many elements along the axis
        scale = np.repeat(scale, block, axis).take(range(value.shape[axis]), axis)
        zero = None if zero is None else np.repeat(zero, block, axis).take(range(value.shape[axis]), axis)
        shape = list(scale.shape)
    elif scale.size > 1:
        shape[axis] = -1
    made = low.cast(value, np.dtype(np.float32))
    for label, numbers, kind, options in (
        ("zero", zero, "SUB", schema.SubOptionsT()),
        ("scale", scale, "MUL", schema.MulOptionsT()),
    ):
        if numbers is None or not numbers.any():
            continue
        known = np.asarray(numbers, np.float32).reshape(shape if numbers.size > 1 else (1,))
        left, right, of, order, stored = aligned(low, made, constant(f"{node.name}.{label}", known))
        made = low.emit(kind, [left, right], stored, left, options, shape=of, name=node.outputs[0].name)
        made = replace(made, order=order)
    low.set(node.outputs[0], made)


@lowers("Identity")
def identity(low: Lowering, node: Node) -> None:
    """Nothing."""
    low.set(node.outputs[0], low.value(node.inputs[0]))


@lowers("Dropout")
def dropout(low: Lowering, node: Node) -> None:
    """Nothing at inference, where the mask is true everywhere."""
    value = low.value(node.inputs[0])
    training, ratio = low.static(node, 2, "training mode"), low.static(node, 1, "ratio")
    drops = training is not None and bool(training.any()) and (ratio is None or bool(np.any(ratio != 0)))
    if drops:
        raise refusal(node, "it drops at random (training_mode)", "export the network for inference")
    low.set(node.outputs[0], value)
    if len(node.outputs) > 1 and node.outputs[1].name:
        kind = node.outputs[1].dtype
        mask = np.ones(value.shape, bool if kind is None else kind)
        low.set(node.outputs[1], constant(node.outputs[1].name, mask))


@lowers("Constant")
def constant_node(low: Lowering, node: Node) -> None:
    """A constant that was not folded into an initializer."""
    values = literal(node)
    if values is None:
        raise refusal(node, "it holds neither a tensor nor numbers", "make it a tensor in the model")
    low.values[node.outputs[0]] = constant(node.outputs[0].name, Constant("", values).values)
