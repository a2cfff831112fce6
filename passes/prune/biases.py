"""Adding to the bias of a layer, whether it has one yet or not."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Variable, consumers
from edgec.passes.layers.linear import bias


def bias_obstacle(node: Node) -> str | None:
    """Why nothing can be added to a layer's bias; ``None`` where it can."""
    added = bias(node)
    if node.op == "MatMul" or added is None:
        return None
    if not isinstance(added, Constant):
        return "its bias is computed when the network runs"
    if node.op == "Gemm" and node.attrs.get("beta", 1.0) != 1.0:
        return "its bias is scaled"
    return None


def has_bias(graph: Graph, node: Node) -> bool:
    """Whether what is added to a layer's bias needs no new constant."""
    return (bias(node) is not None) if node.op != "MatMul" else _behind(graph, node) is not None


def add_bias(graph: Graph, node: Node, added: np.ndarray) -> None:
    """Adds to each output channel of a layer; a MatMul gets it in the Add behind it, or in a new one.

    Constants that others read stay as they are: the layer gets one of its own.
    """
    if not added.any():
        return
    name = f"{node.name or node.outputs[0].name}.bias"
    if node.op == "MatMul":
        _add_behind(graph, node, added, name)
        return
    old = bias(node)
    if isinstance(old, Constant):
        values = (old.values.astype(np.float64) + added).astype(old.dtype)
        if len(old.outputs) == 1 and values.shape == old.shape and old not in graph.inputs:
            old.values = values
        else:
            node.inputs[2] = graph.const(name, values)
        return
    weight = node.inputs[1]
    made = graph.const(name, added.astype(weight.dtype))
    if len(node.inputs) > 2:
        node.inputs[2] = made
    else:
        node.inputs.append(made)


def _behind(graph: Graph, node: Node) -> tuple[Node, int] | None:
    """The Add that adds a MatMul's bias and nothing else, and where the bias stands."""
    out = node.outputs[0]
    readers = consumers(out)
    if len(readers) != 1 or readers[0].op != "Add" or out in graph.outputs:
        return None
    place = 1 if readers[0].inputs[0] is out else 0
    other = readers[0].inputs[place]
    return (readers[0], place) if isinstance(other, Constant) and len(other.shape) == 1 else None


def _add_behind(graph: Graph, node: Node, added: np.ndarray, name: str) -> None:
    found = _behind(graph, node)
    if found is not None:
        reader, place = found
        old = reader.inputs[place]
        if isinstance(old, Constant):
            reader.inputs[place] = graph.const(name, (old.values.astype(np.float64) + added).astype(old.dtype))
        return
    out = node.outputs[0]
    before = Variable(graph.fresh(f"{out.name}.product"), out.dtype, list(out.shape) if out.shape is not None else None)
    node.outputs[0] = before
    place = graph.nodes.index(node)
    made = graph.const(name, added.astype(node.inputs[1].dtype))
    graph.nodes.insert(place + 1, Node("Add", graph.fresh(f"{node.name}.add"), {}, [before, made], [out]))
