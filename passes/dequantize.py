"""``dequantize``: a network that is quantized already becomes a float one, to be compressed or quantized anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer
from edgec.ir.shapes import Shapes
from edgec.ir.stored import onnx_dtype
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.layers.integer_parameters import parameters_of

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
        shapes = ctx.get(Shapes)
        for inside in graph.graphs():
            for node in list(inside.nodes):
                if node.op in _INTEGER:
                    ctx.missed(node, f"{node.op} computes on integers itself: export the network with Q and DQ")
                if node.op != _DQ:
                    continue
                reason = _obstacle(node, shapes)
                if reason is not None:
                    ctx.missed(node, reason)
                elif isinstance(node.inputs[0], Constant):
                    _store(inside, node, node.inputs[0])
                    weights += 1
                else:
                    clips += _bypass(inside, node, node.inputs[0].inputs[0], shapes)
                    activations += 1
        _name_those_left(graph, ctx)
        if weights or activations:
            what = (
                f"{weights} tensors of weights and biases are floats again, {activations} activations are not rounded"
            )
            ctx.did("the network", f"{what}, {clips} of them are clipped", weights=weights, activations=activations)
        elif not ctx.left:
            ctx.missed("the network", "is not quantized")


def _obstacle(node: Node, shapes: Shapes) -> str | None:
    """Why a DQ stays; ``None`` where it can go."""
    own = parameters_of(node)
    if own is None:
        return "its scale is computed by the network: export the network with static quantization"
    if isinstance(node.inputs[0], Constant):
        return own.fault(node.inputs[0].shape)
    before = producer(node.inputs[0])
    if before is None:
        return f"reads integers that are fed to the network ('{node.inputs[0].name}'): cut the network behind it"
    if before.op != _Q:
        return f"reads integers that '{before.name}' ({before.op}) computes: export the network with Q and DQ around it"
    theirs = parameters_of(before)
    if theirs is None:
        return "its scale is computed by the network: export the network with static quantization"
    if not own.same(theirs):
        return f"has another scale or zero-point than '{before.name}' in front of it, so the two change the numbers"
    shape = shapes.shape(before.inputs[0])
    return None if own.scale.size == 1 or shape is None or None in shape else own.fault([d or 0 for d in shape])


def _store(graph: Graph, node: Node, integers: Constant) -> None:
    """Puts floats in the place of stored integers."""
    by = parameters_of(node)
    assert by is not None, "obstacles were looked for"
    name = integers.name.removesuffix(".int8").removesuffix(".int32")
    floats = by.reals(integers.values)
    graph.replace(node, graph.const(f"{name}.float", floats))


def _bypass(graph: Graph, node: Node, before: Node, shapes: Shapes) -> bool:
    """Lets what reads a DQ read what its Q read; whether a Clip was needed."""
    source: Tensor = before.inputs[0]
    by = parameters_of(before)
    assert by is not None, "obstacles were looked for"
    maker = producer(source)
    shape = shapes.shape(source)
    clipped = by.begins_at_zero and not (maker is not None and maker.op in _POSITIVE)
    dtype = shapes.dtype(source) or by.scale.dtype
    if clipped:
        low, high = by.scale.dtype.type(0), by.largest(shape)
        bounds = [graph.const(f"{before.name}.low", low)]
        limit = graph.const(f"{before.name}.high", high)
        source = graph.op(
            "Clip", [source, *bounds, *([] if high.ndim else [limit])], name=f"{before.name}.clip", before=node
        )
        _like(source, dtype, shape)
        if high.ndim:  # a bound for each channel, which Clip does not have
            source = graph.op("Min", [source, limit], name=f"{before.name}.limit", before=node)
            _like(source, dtype, shape)
    if dtype != by.given:
        source = graph.op("Cast", [source], name=f"{node.name}.cast", before=node, to=onnx_dtype(by.given))
        _like(source, by.given, shape)
    graph.replace(node, source)
    return clipped


def _like(tensor: Variable, dtype: np.dtype, shape: tuple[int | None, ...] | None) -> None:
    tensor.dtype, tensor.shape = dtype, None if shape is None else list(shape)


def _name_those_left(graph: Graph, ctx: Context) -> None:
    """Says of each Q that something else than a DQ reads why it stays."""
    for inside in graph.graphs():
        outputs = set(inside.outputs)
        for node in inside.nodes:
            if node.op != _Q:
                continue
            readers = [reader for reader in consumers(node.outputs[0]) if reader.op != _DQ]
            if node.outputs[0] in outputs:
                ctx.missed(node, "its integers leave the network: cut the network before it")
            elif readers and readers[0].op not in _INTEGER:
                what = f"its integers go to '{readers[0].name}' ({readers[0].op})"
                ctx.missed(node, f"{what}: export the network with Q and DQ around that")
