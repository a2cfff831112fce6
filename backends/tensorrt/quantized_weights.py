"""Weights in the form that TensorRT 8 takes: floats behind a Q and a DQ, in the place of integers behind a DQ."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Variable, constant_of, static_shape


def weights_as_floats(graph: Graph) -> int:
    """Gives every DQ of stored integers its floats and a Q in front, in place; returns how many there were.

    The floats are exactly the steps of the scale, so Q gives the same integers again.
    """
    return sum(_as_floats(inside) for inside in graph.graphs())


def _as_floats(graph: Graph) -> int:
    placed: list[Node] = []
    done = 0
    for node in graph.nodes:
        placed.append(node)
        if node.op != "DequantizeLinear" or not isinstance(node.inputs[0], Constant):
            continue
        integers, scale, *zero = node.inputs
        assert isinstance(scale, Constant), "a stored weight has a stored scale"
        exact = graph.const(
            f"{integers.name}.float", _floats(node, constant_of(integers).values, constant_of(scale).values)
        )
        quantized = Variable(graph.fresh(f"{integers.name}.quantized"), integers.dtype, static_shape(integers))
        attrs = {key: value for key, value in node.attrs.items() if key == "axis"}
        name = graph.fresh(f"{node.name}.quantize")
        placed.insert(-1, Node("QuantizeLinear", name, attrs, [exact, scale, *zero], [quantized]))
        node.inputs[0] = quantized
        done += 1
    graph.nodes[:] = placed
    return done


def _floats(node: Node, integers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if scale.ndim:
        axis = int(node.attrs.get("axis", 1)) % integers.ndim
        scale = scale.reshape([-1 if place == axis else 1 for place in range(integers.ndim)])
    return integers.astype(np.float32) * scale
