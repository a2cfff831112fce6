"""Small constants that layers share only because they are equal.

Exporters keep equal arrays once: the zero biases of ten layers, the zero points of their weights. Cutting a channel of
one layer would cut it of all of them, so that a layer that nothing couples with the model's output is fixed by it.
"""

from __future__ import annotations

import math

from edgec.ir.graph import Constant, Graph

# Where a shared weight means that the layers really are one: the same kernel, used twice.
_WEIGHT_PLACES = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3}
# Gemm's and MatMul's operands can stand on either side.
_ANY_PLACE = frozenset({"Gemm", "MatMul", "MatMulInteger"})


def unshare(graph: Graph) -> int:
    """Gives each reader of a shared vector (bias, normalization, slope, scale) a constant of its own.

    Weights of layers stay shared, and so do constants of subgraphs and those that the signature names. The copies
    share the array's memory.

    Returns:
        How many constants were made.
    """
    made = 0
    signature = {id(tensor) for tensor in (*graph.inputs, *graph.outputs)}
    own = set(graph.nodes)
    for constant in graph.constants():
        readers = list(dict.fromkeys(constant.outputs))
        vector = max(constant.shape, default=1) == math.prod(constant.shape) > 1
        if len(readers) < 2 or not vector or id(constant) in signature or not own.issuperset(readers):
            continue
        if any(
            (node.op in _ANY_PLACE and constant in node.inputs[:2])
            or (node.op in _WEIGHT_PLACES and node.inputs[_WEIGHT_PLACES[node.op]] is constant)
            for node in readers
        ):
            continue
        for node in readers[1:]:
            copy = Constant(graph.fresh(constant.name), constant.held)
            for place, tensor in enumerate(list(node.inputs)):
                if tensor is constant:
                    node.inputs[place] = copy
            made += 1
    return made
