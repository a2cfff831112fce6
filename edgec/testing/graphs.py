"""Graphs for tests: from text with seeded weights, with a fault in them, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Variable, static_shape
from edgec.ir.printer import parse


def model(body: str, signature: str, weights: str = "", *, opset: int = 17, seed: int = 0, **values: Any) -> Graph:
    """A graph from onnx.parser's text.

    Args:
        body: the nodes, one a line.
        signature: inputs and outputs, such as ``(float[1,3,8,8] x) => (float[1,4] y)``.
        weights: declarations; those without values get seeded noise of variance 1 / fan-in, or what ``values`` says.
        values: arrays by weight name.
    """
    declared = f"<{weights}>" if weights else ""
    graph = parse(f'<ir_version: 10, opset_import: ["" : {opset}]>\nnet {signature}\n{declared}\n{{\n{body}\n}}')
    random = np.random.default_rng(seed)
    inputs = {tensor for inside in graph.graphs() for tensor in inside.inputs}
    for variable in graph.variables():
        if variable.inputs or variable in inputs or variable.dtype is None:
            continue
        shape = static_shape(variable)
        if variable.name in values:
            array = np.asarray(values[variable.name], variable.dtype)
        else:
            fan_in = max(int(np.prod(shape[1:])), 1)
            array = (random.standard_normal(shape) / np.sqrt(fan_in)).astype(variable.dtype)
        graph.replace_uses(variable, Constant(variable.name, array))
    return graph


def corrupt(graph: Graph) -> Constant:
    """Changes one weight of the largest float constant, as a fault would; returns that constant."""
    floats = [c for c in graph.constants() if c.dtype.kind == "f" and c.values.size > 1]
    largest = max(floats, key=lambda c: c.values.size)
    values = largest.values.copy()
    values.flat[values.size // 2] += max(1.0, 10 * float(np.abs(values).max()))
    largest.values = values
    return largest


def operators(graph: Graph) -> list[str]:
    """The operators of a graph, in order."""
    return [node.op for node in graph.nodes]


def named(graph: Graph, name: str) -> Variable:
    """The variable of that name."""
    tensor = graph.tensor(name)
    assert isinstance(tensor, Variable)
    return tensor
