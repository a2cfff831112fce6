"""A placement and its scales, written into the graph as Q and DQ nodes with integer weights."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, variable_of
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.plan import Prepared
from edgec.passes.quantize.qdq import QdqWriter
from edgec.passes.quantize.quantized_weights import quantize_parameters
from edgec.passes.quantize.scales.affine_parameters import Parameters


def write(
    graph: Graph,
    ready: Prepared,
    ctx: Context,
    *,
    scheme: Scheme,
    per_channel: bool,
) -> dict[Node, tuple[int, int]]:
    """Places Q and DQ, and makes weights and biases integers.

    Args:
        graph: what is written into.
        ready: which nodes run in integers, and the integers of their activations.
        ctx: for its shapes.
        scheme: of the target.
        per_channel: whether weights have a scale for each output channel, where the scheme takes that.

    Returns:
        By node that has weights, how many scales they have, and how many of those had to be enlarged for its bias.
    """
    placement, problem, chosen = ready.placement, ready.problem, ready.chosen
    writer = QdqWriter(graph, ctx.get(Shapes))
    behind = {tensor: writer.activation(tensor, chosen[a]) for tensor, a in problem.variables.items()}
    layers: dict[Node, tuple[int, int]] = {}
    for site in placement.sites:
        node = site.node
        for index in site.activations:
            tensor = node.inputs[index]
            if isinstance(tensor, Constant):
                by = chosen[problem.constants[node, index]]
                integers = _quantized(tensor.values, by)
                scale = np.float32(by.scale)
                node.inputs[index] = writer.constant(tensor.name, integers, scale, by.zero_point, None, node)
        if site.weight is not None:
            source = chosen[problem.variables[variable_of(node.inputs[site.activations[0]])]]
            layers[node] = _write_parameters(site, source.scale, scheme, per_channel, writer)
    produced = {tensor for site in placement.sites for tensor in site.outputs}
    for site in placement.sites:
        for index in site.activations:
            tensor = site.node.inputs[index]
            if tensor in behind and tensor not in produced:
                site.node.inputs[index] = behind[tensor]
    for tensor, given in behind.items():
        if tensor in produced:
            writer.replace_uses(tensor, given)
    writer.finish()
    return layers


def _write_parameters(
    site: Site, input_scale: float, scheme: Scheme, per_channel: bool, writer: QdqWriter
) -> tuple[int, int]:
    """Quantizes a node's weights and bias; how many scales there are, and how many were enlarged."""
    node = site.node
    assert site.weight is not None
    layer = quantize_parameters(
        node,
        input_scale,
        per_channel=per_channel and node.op in scheme.per_channel,
        integer_bias=scheme.bias == "int32",
        reduce_range=scheme.reduce_range,
        pairs=scheme.adds_pairs(node.op),
    )
    weight = node.inputs[site.weight]
    node.inputs[site.weight] = writer.constant(weight.name, layer.weight, layer.scale, 0, layer.axis, node)
    if layer.bias is not None and layer.bias_scale is not None and site.bias is not None:
        bias = node.inputs[site.bias]
        axis = 0 if layer.bias_scale.ndim else None
        node.inputs[site.bias] = writer.constant(bias.name, layer.bias, layer.bias_scale, 0, axis, node)
        node.attrs.pop("beta", None)
    node.attrs.pop("alpha", None)
    return layer.scale.size, layer.widened


def _quantized(values: np.ndarray, by: Parameters) -> np.ndarray:
    limits = np.iinfo(by.dtype)
    steps = np.rint(values / np.float32(by.scale)) + by.zero_point
    return np.clip(steps, limits.min, limits.max).astype(by.dtype)
