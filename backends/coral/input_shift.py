"""Inputs that are padded with something other than zero, moved to where that something is zero.

``normalize`` makes the network take raw pixels; where the first convolution was padded with zeros of the normalized
image, the raw image is padded with the pixel that stood for zero, say 127. TFLite has an operator for that (PADV2), but
the Edge TPU has not. So here the input is seen as ``pixel - 127``: the padding is zero again, the convolutions behind
it take the constant into their bias, and in int8 nothing changes but the zero-point: the bytes that the device is fed
are the pixels' still. Exact up to float32 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, constant_of, consumers
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context
from edgec.passes.framework.legalization import Legalization


@dataclass(frozen=True)
class InputShift(Legalization):
    """Moves inputs that are padded with something other than zero to where that something is zero."""

    name: ClassVar[str] = "input-shift"
    words: ClassVar[str] = "pads with zeros of a shifted input"

    def rewrite(self, graph: Graph, ctx: Context) -> int:
        return shift_inputs(graph)


def shift_inputs(graph: Graph) -> int:
    """Shifts every input of folded preprocessing whose only readers pad it with one value; returns how many."""
    done = 0
    for tensor in graph.inputs:
        known = input_domain.folded(graph, tensor.name)
        pads = consumers(tensor)
        values = {_value(node) for node in pads}
        layers = [layer for pad in pads for layer in consumers(pad.outputs[0])]
        if known is None or len(values) != 1 or not all(map(_takes_constant, layers)):
            continue
        (value,) = values
        if not value or any(tensor is output for output in graph.outputs):
            continue
        for pad in pads:
            pad.inputs[2] = graph.const(f"{pad.name}.value", np.zeros((), tensor.dtype))
        for layer in layers:
            _add_to_bias(graph, layer, value)
        scale, offset = known
        input_domain.record(graph, tensor.name, scale, offset + scale * value)
        done += 1
    return done


def _value(node: Node) -> float | None:
    """The constant that a Pad pads with; ``None`` for what is no such node."""
    if node.op != "Pad" or node.attrs.get("mode", "constant") != "constant" or len(node.inputs) < 3:
        return None
    value = node.inputs[2]
    return float(value.values) if isinstance(value, Constant) and value.values.size == 1 else None


def _takes_constant(node: Node) -> bool:
    """Whether a constant added to its input is a constant added to its output: a convolution that pads nothing."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return (
        node.op == "Conv"
        and isinstance(node.inputs[1], Constant)
        and (bias is None or isinstance(bias, Constant) or not bias.name)
        and not any(node.attrs.get("pads", []))
        and node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    )


def _add_to_bias(graph: Graph, node: Node, value: float) -> None:
    weights = constant_of(node.inputs[1]).values
    added = value * weights.reshape(len(weights), -1).sum(axis=1, dtype=np.float64)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if isinstance(bias, Constant):
        added = added + bias.values
    made = graph.const(f"{node.name}.bias", added.astype(weights.dtype))
    if bias is None:
        node.inputs.append(made)
    else:
        node.inputs[2] = made
