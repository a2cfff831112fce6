"""``dequantize``: a network that is quantized already becomes a float one, to be compressed or quantized anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, producer
from edgec.passes.protocol import Context, Effect, Pass

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
# Operators whose outputs are not below 0: saturation there at 0 changes nothing.
_POSITIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Clip", "HardSigmoid", "Abs", "Exp", "Softplus"})
# Operators on integers that have no Q and DQ around them.
_INTEGER = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearAdd"}
)


@dataclass(frozen=True)
class Dequantize(Pass):
    """Takes Q and DQ out: weights become floats again, and what saturated is bounded by a Clip.

    Weights keep the values that their integers stand for. Quantizers drop a Relu in front of a Q whose integers begin
    at 0; it is put back as a Clip to what they stand for.
    """

    name: ClassVar[str] = "dequantize"
    effect: ClassVar[Effect] = "lossy"
    gives: ClassVar[frozenset[str]] = frozenset({"float", "trainable"})
    breaks: ClassVar[frozenset[str]] = frozenset({"quantized"})

    def run(self, graph: Graph, ctx: Context) -> None:
        """Rewrites ``graph`` in place."""
        weights = activations = clips = 0
        for inside in graph.graphs():
            for node in list(inside.nodes):
                if node.op in _INTEGER:
                    ctx.missed(node, f"{node.op} computes on integers itself: export the network with Q and DQ")
                elif node.op == _DQ and isinstance(node.inputs[0], Constant):
                    _store(inside, node, node.inputs[0])
                    weights += 1
                elif node.op == _DQ and (before := producer(node.inputs[0])) is not None and before.op == _Q:
                    clips += _bypass(inside, node, before)
                    activations += 1
        if weights or activations:
            what = (
                f"{weights} tensors of weights and biases are floats again, {activations} activations are not rounded"
            )
            ctx.did("the network", f"{what}, {clips} of them are clipped", weights=weights, activations=activations)
        else:
            ctx.missed("the network", "is not quantized")


def _store(graph: Graph, node: Node, integers: Constant) -> None:
    """Puts floats in the place of stored integers."""
    scale, zero = _parameters(node)
    values = integers.values.astype(np.float64)
    if scale.ndim and scale.size > 1:
        axis = int(node.attrs.get("axis", 1)) % values.ndim
        shape = [-1 if place == axis else 1 for place in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    name = integers.name.removesuffix(".int8").removesuffix(".int32")
    floats = graph.const(f"{name}.float", ((values - zero) * scale).astype(np.float32))
    graph.replace(node, floats)


def _bypass(graph: Graph, node: Node, before: Node) -> bool:
    """Lets what reads a DQ read what its Q read; whether a Clip was needed."""
    source: Tensor = before.inputs[0]
    scale, zero = _parameters(before)
    maker = producer(source)
    limits = np.iinfo(before.outputs[0].dtype or (before.inputs[2].dtype if len(before.inputs) > 2 else np.uint8))
    clipped = scale.size == 1 and int(zero) == limits.min and not (maker is not None and maker.op in _POSITIVE)
    if clipped:
        bounds = [graph.const(f"{node.name}.{end}", np.float32(value)) for end, value in
                  (("low", 0.0), ("high", float(scale) * (limits.max - limits.min)))]  # fmt: skip
        made = graph.op("Clip", [source, *bounds], name=f"{before.name}.clip", before=node)
        made.dtype, made.shape = np.dtype(np.float32), None if source.shape is None else list(source.shape)
        source = made
    graph.replace(node, source)
    return clipped


def _parameters(node: Node) -> tuple[np.ndarray, np.ndarray]:
    scale = node.inputs[1]
    assert isinstance(scale, Constant), "the verifier has seen that scales are stored"
    has_zero = len(node.inputs) > 2 and isinstance(node.inputs[2], Constant)
    zero = node.inputs[2].values if has_zero else np.zeros(scale.shape)
    return scale.values.astype(np.float64), zero.astype(np.float64)
