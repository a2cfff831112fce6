"""What TensorRT would refuse, or quietly run in float, found before a board does.

A rule for each line of what was measured and read about TensorRT (docs/jetson.md lists them with their sources). A
fatal finding is one that the parser or builder refuses; the others build, and are slower or less exact than they look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgec.backends.tensorrt.legalize import advice, missing_operators
from edgec.backends.tensorrt.parser_limits import beyond
from edgec.backends.tensorrt.parser_types import beyond_types
from edgec.backends.tensorrt.versions import Rules
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer
from edgec.passes.layers.linear import CONVOLUTIONS, input_channels, output_channels

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = {"Conv": 0, "Gemm": None, "MatMul": None, "ConvTranspose": None}
_OLDEST_WITHOUT_ZERO_POINT = (10,)
_OLDEST_WITH_COMPUTED_BIAS = (8, 4)


@dataclass(frozen=True)
class Finding:
    """One place in a model.

    Attributes:
        rule: its name.
        where: the node, input or model.
        what: what is wrong.
        fix: what to do about it.
        fatal: whether TensorRT refuses the model.
    """

    rule: str
    where: str
    what: str
    fix: str
    fatal: bool


Rule = Callable[[Graph, Rules], Iterator[Finding]]
_RULES: list[Rule] = []


def lint(graph: Graph, rules: Rules) -> list[Finding]:
    """Everything that a model has against it, fatal findings first.

    Args:
        graph: as it will be read from the file, sorted.
        rules: of the TensorRT that is to build it, on the board that is to run it.
    """
    found = [finding for rule in _RULES for finding in rule(graph, rules)]
    return sorted(found, key=lambda finding: not finding.fatal)


def _rule(rule: Rule) -> Rule:
    _RULES.append(rule)
    return rule


def _node(node: Node) -> str:
    return f"node '{node.name or node.op}'"


def _of(graph: Graph, *operators: str) -> Iterator[Node]:
    return (node for inside in graph.graphs() for node in inside.nodes if node.op in operators)


# -- the file and its operators ----------------------------------------------------------------------------------------


@_rule
def opset(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """A parser reads opsets up to one, and the older ones an older file format."""
    if graph.opset > rules.opset:
        what = f"is of opset {graph.opset}, and {rules.tensorrt} reads {rules.opset} and earlier"
        yield Finding("opset", "the model", what, f"emit it in opset {rules.opset}", True)
    if graph.ir_version is not None and graph.ir_version > rules.ir_version:
        what = f"has IR version {graph.ir_version}, and {rules.tensorrt} reads {rules.ir_version} and earlier"
        yield Finding("ir_version", "the model", what, f"save it with IR version {rules.ir_version}", True)


@_rule
def operators(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Operators that the parser does not know."""
    for node in missing_operators(graph.graphs(), rules):
        what = f"{rules.tensorrt} has no {node.op}"
        yield Finding("operators", _node(node), what, advice(node, rules), True)


@_rule
def forms(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Operators in a form that the parser refuses, or reads as another: the rows of :mod:`.parser_limits`."""
    for limit, site in beyond(graph, rules.version):
        what = limit.what.format(tensorrt=rules.tensorrt)
        yield Finding(limit.name, _node(site.node), what, limit.advice, limit.fatal)


@_rule
def types(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Types and ranks that the parser has not: the rows of :mod:`.parser_types`."""
    for limit, tensor, dtype in beyond_types(graph, rules.version):
        what = limit.what.format(tensorrt=rules.tensorrt, dtype=dtype)
        yield Finding(limit.name, f"tensor '{tensor.name}'", what, limit.fix, limit.fatal)


@_rule
def static_shapes(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """A dynamic shape needs an optimization profile, which the recipe gives for the batch."""
    for tensor in graph.inputs:
        shape = tensor.shape
        fixed = shape if shape is None or tensor.name not in rules.profiled else shape[1:]
        if fixed is None or not all(isinstance(size, int) for size in fixed):
            what = "has a dynamic shape, and the builder wants static ones, or a profile for the batch"
            yield Finding("static_shapes", f"input '{tensor.name}'", what, f"pin it with --input {tensor.name}:…", True)


# -- Q and DQ ----------------------------------------------------------------------------------------------------------


@_rule
def no_int8(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """TensorRT refuses Q and DQ where the GPU has no 8-bit arithmetic (NVIDIA/TensorRT#3399)."""
    if rules.int8:
        return
    for node in _of(graph, *_QDQ):
        what = f"{rules.board} has no 8-bit arithmetic, and {rules.tensorrt} refuses {node.op} there"
        yield Finding("no_int8", _node(node), what, "compile without 'quantize'", True)
        return


@_rule
def scales(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Scales are positive and finite, and there is one for the whole of an activation."""
    for node in _of(graph, *_QDQ):
        scale = node.inputs[1]
        if not isinstance(scale, Constant):
            what = "has a scale that the network computes"
            yield Finding("scales", _node(node), what, "make it a constant", True)
        elif not (np.isfinite(scale.values).all() and (scale.values > 0).all()):
            yield Finding("scales", _node(node), "has a scale that is not above 0", "quantize again", True)
        elif node.op == "QuantizeLinear" and scale.values.size > 1 and not isinstance(node.inputs[0], Constant):
            what = "has a scale for each channel of an activation: the layer behind it runs in float"
            yield Finding("per_channel_activation", _node(node), what, "use one scale", False)


@_rule
def zero_points(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Zero-points are 0, of int8; before 10 they must be there."""
    for node in _of(graph, *_QDQ):
        zero = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        if zero is None:
            if rules.version < _OLDEST_WITHOUT_ZERO_POINT:
                what = f"has no zero-point, and {rules.tensorrt} wants three inputs"
                yield Finding("zero_point_missing", _node(node), what, "add one of 0", True)
            continue
        if isinstance(zero, Constant) and np.any(zero.values):
            what = "has a zero-point other than 0"
            yield Finding("zero_points", _node(node), what, "quantize symmetrically", True)
        if zero.dtype in (np.int16, np.uint16):
            yield Finding("sixteen_bits", _node(node), "has 16 bits", "quantize to int8", True)
        elif zero.dtype == np.uint8:
            what = "is uint8, which is read as int8"
            yield Finding("uint8", _node(node), what, "quantize to int8", False)


@_rule
def biases(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """A bias stays float, and before 8.4 it must be a constant where the weights come through a DQ."""
    for node in _of(graph, *_WEIGHTED):
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
        maker = None if bias is None else producer(bias)
        if maker is not None and maker.op == "DequantizeLinear":
            what = "has an int32 bias behind a DequantizeLinear, which is not parsed"
            yield Finding("bias", _node(node), what, "leave the bias float", True)
        elif maker is not None and dequantized(node.inputs[1]) and rules.version < _OLDEST_WITH_COMPUTED_BIAS:
            what = f"has quantized weights and a computed bias, and {rules.tensorrt} wants a constant one"
            yield Finding("bias_computed", _node(node), what, "make the bias a constant", True)


@_rule
def weight_form(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """TensorRT 8 takes weights as floats behind Q and DQ."""
    if rules.typed:
        return
    for node in _of(graph, "DequantizeLinear"):
        if isinstance(node.inputs[0], Constant):
            what = f"reads stored integers, and {rules.tensorrt} takes floats behind Q and DQ"
            yield Finding("weight_form", _node(node), what, "store the weights as floats in front of a Q", True)


# -- what would quietly be slower --------------------------------------------------------------------------------------


@_rule
def inputs_in_float(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """A layer with quantized weights runs in float where what it reads is not quantized too."""
    for node in _of(graph, *_WEIGHTED):
        if dequantized(node.inputs[1]) and not dequantized(node.inputs[0]):
            what = "has quantized weights, and reads floats: it runs in float"
            yield Finding("inputs_in_float", _node(node), what, "quantize what it reads", False)


@_rule
def weight_axis(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Weights have a scale for each output channel; those of a ConvTranspose have one scale."""
    for node in _of(graph, *CONVOLUTIONS):
        maker = dequantized(node.inputs[1])
        scale = maker.inputs[1] if maker is not None else None
        if maker is None or not isinstance(scale, Constant) or scale.values.size == 1:
            continue
        if node.op == "ConvTranspose":
            what = "is a ConvTranspose with a scale for each channel: it runs in float"
            yield Finding("transposed", _node(node), what, "give its weights one scale, or leave it in FP16", False)
        elif int(maker.attrs.get("axis", 1)) % 4 != 0:
            what = "has a scale for each input channel of its weights: it runs in float"
            yield Finding("weight_axis", _node(node), what, "give each output channel a scale", False)


@_rule
def sums(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Where a convolution is summed with a shortcut, only the shortcut is rounded (NVIDIA/TensorRT#1992)."""
    for node in _of(graph, "Add"):
        sources = [_rounded(tensor) for tensor in node.inputs]
        layers = [source is not None and (maker := producer(source)) is not None and maker.op == "Conv"
                  and len(consumers(source)) == 1 for source in sources]  # fmt: skip
        if all(source is not None for source in sources) and any(layers):
            what = "rounds the convolution's branch too, which keeps the sum from being fused into it"
            yield Finding("sums", _node(node), what, "round the shortcut only", False)


@_rule
def narrow(graph: Graph, rules: Rules) -> Iterator[Finding]:
    """Convolutions of few channels are faster in FP16."""
    for node in _of(graph, "Conv"):
        weight = _stored(dequantized(node.inputs[1]))
        if weight is None:
            continue
        fewest = min(input_channels(node, weight.shape), output_channels(node, weight.shape))
        if fewest < rules.fewest_channels:
            what = f"is quantized and has {fewest} channels: below {rules.fewest_channels} FP16 is faster"
            yield Finding("narrow", _node(node), what, "leave it float", False)


def dequantized(tensor: Tensor) -> Node | None:
    """The DQ that a tensor comes from, a cast behind it being overlooked."""
    maker = producer(tensor)
    if maker is not None and maker.op == "Cast":
        maker = producer(maker.inputs[0])
    return maker if maker is not None and maker.op == "DequantizeLinear" else None


def _stored(dequantize: Node | None) -> Constant | None:
    """The weights that a DQ reads, a Q in front of it being overlooked."""
    source = None if dequantize is None else dequantize.inputs[0]
    if isinstance(source, Variable) and (quantize := producer(source)) is not None:
        source = quantize.inputs[0]
    return source if isinstance(source, Constant) else None


def _rounded(tensor: Tensor) -> Variable | None:
    """What a rounded tensor was before its Q."""
    maker = dequantized(tensor)
    quantize = None if maker is None else producer(maker.inputs[0])
    source = None if quantize is None or quantize.op != "QuantizeLinear" else quantize.inputs[0]
    if isinstance(source, Variable) and (cast := producer(source)) is not None and cast.op == "Cast":
        source = cast.inputs[0]
    return source if isinstance(source, Variable) else None
