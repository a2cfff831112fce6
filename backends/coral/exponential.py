"""Activations made of exponentials, spelled out in TFLite's float operators; TFLite has no integer kernels for them.

Sources: ONNX operators Elu, Selu, Celu, Softplus, Mish and LogSoftmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.lowering import Lowering, lowers
from edgec.backends.coral.slicing import held_permutation
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Node

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


@lowers("Elu", "Selu", "Celu")
def exponential_linear(low: Lowering, node: Node) -> None:
    """ELU; with other numbers ``gamma * (max(x, 0) + alpha * ELU(min(x, 0) / width))``."""
    value = low.value(node.inputs[0])
    to = low.destination(node)
    low.note_float(node, [value])
    source, name = low.real(value), to.tensor.name
    alpha, gamma, width = float(node.attrs.get("alpha", 1.0)), 1.0, 1.0
    if node.op == "Celu":
        width = alpha
    if node.op == "Selu":
        alpha, gamma = float(node.attrs.get("alpha", _SELU_ALPHA)), float(node.attrs.get("gamma", _SELU_GAMMA))
    if (alpha, gamma, width) == (1.0, 1.0, 1.0):
        made = _step(low, "ELU", [source], name=name)
    else:
        low_part = _step(low, "MINIMUM", [source, _number(node, 0.0)], schema.MaximumMinimumOptionsT())
        if width != 1.0:
            low_part = _step(low, "MUL", [low_part, _number(node, 1 / width)], schema.MulOptionsT())
        low_part = _step(low, "ELU", [low_part])
        low_part = _step(low, "MUL", [low_part, _number(node, alpha * gamma)], schema.MulOptionsT())
        high_part = _step(low, "RELU", [source])
        if gamma != 1.0:
            high_part = _step(low, "MUL", [high_part, _number(node, gamma)], schema.MulOptionsT())
        made = _step(low, "ADD", [high_part, low_part], schema.AddOptionsT(), name)
    low.finish(to, made, to.clamp)


@lowers("Softplus", "Mish")
def softplus(low: Lowering, node: Node) -> None:
    """``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow; Mish is x times the TANH of it."""
    value = low.value(node.inputs[0])
    to = low.destination(node)
    low.note_float(node, [value])
    source, name = low.real(value), to.tensor.name
    size = _step(low, "ABS", [source], schema.AbsOptionsT())
    power = _step(low, "EXP", [_step(low, "NEG", [size], schema.NegOptionsT())], schema.ExpOptionsT())
    tail = _step(low, "LOG", [_step(low, "ADD", [power, _number(node, 1.0)], schema.AddOptionsT())])
    made = _step(low, "ADD", [_step(low, "RELU", [source]), tail], schema.AddOptionsT(), name)
    if node.op == "Mish":
        made = _step(low, "MUL", [source, _step(low, "TANH", [made])], schema.MulOptionsT(), name)
    low.finish(to, made, to.clamp)


@lowers("LogSoftmax")
def log_softmax(low: Lowering, node: Node) -> None:
    """LOG_SOFTMAX over the last stored dimension."""
    value = low.value(node.inputs[0])
    to = low.destination(node)
    low.note_float(node, [value])
    source = low.real(value)
    axis = int(node.attrs.get("axis", -1)) % len(value.shape)
    permutation = held_permutation(low, source)
    if permutation[-1] != axis:
        permutation = (*(a for a in permutation if a != axis), axis)
    source = low.arranged(source, permutation)
    made = low.emit("LOG_SOFTMAX", [source], source.stored, source, schema.LogSoftmaxOptionsT(), name=to.tensor.name)
    low.finish(to, made, to.clamp)


def _step(low: Lowering, kind: str, inputs: list[Value], options: Any = None, name: str = "") -> Value:
    return low.emit(kind, list(inputs), inputs[0].stored, inputs[0], options, name=name)


def _number(node: Node, number: float) -> Value:
    return constant(f"{node.name}.number", np.array([number], np.float32))
