"""Operators of old opsets that onnx's version converter takes for something else, or does not take, spelt out anew.

What they compute is the ONNX operators' text of that opset, and where it leaves a choice, what onnxruntime computes.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Variable, constant_of

_STANDARD = ("", "ai.onnx")
# Up to which opset Hardmax flattens its input to a matrix, and Resize has no choice of coordinates.
_FLATTENING, _SIMPLE_RESIZE = 12, 10
# The opset from which on BatchNormalization has statistics for each channel only.
_WITHOUT_SPATIAL = 9


def modernize(graph: Graph) -> None:
    """Rewrites, in place, the nodes of ``graph`` whose meaning the converter loses; its opset stays."""
    version = graph.opset
    for inside in graph.graphs():
        for node in [n for n in inside.nodes if n.domain in _STANDARD]:
            if node.op == "Hardmax" and version <= _FLATTENING:
                _flatten_around(inside, node)
            elif node.op == "BatchNormalization" and version < _WITHOUT_SPATIAL and not node.attrs.pop("spatial", 1):
                _spell_out(inside, node)


def settle_resizes(graph: Graph, version: int) -> None:
    """Says of every Resize of a graph that comes from opset 10 or earlier how those opsets place its samples.

    Args:
        graph: converted to opset 11 or later; changed in place.
        version: the opset that it comes from.
    """
    if version > _SIMPLE_RESIZE:
        return
    for node in (node for inside in graph.graphs() for node in inside.nodes if node.op == "Resize"):
        node.attrs["coordinate_transformation_mode"] = "asymmetric"
        if node.attrs.get("mode", "nearest") == "nearest":
            scales = node.inputs[2] if len(node.inputs) > 2 else None
            shrinks = isinstance(scales, Constant) and bool(np.any(scales.values < 1))
            node.attrs["nearest_mode"] = "ceil" if shrinks else "floor"


def _flatten_around(graph: Graph, node: Node) -> None:
    """Flatten in front, and the old shape behind: what Hardmax did by itself."""
    axis = int(node.attrs.get("axis", 1))
    x, y = node.inputs[0], node.outputs[0]
    flat = graph.op("Flatten", [x], name=f"{node.name or 'hardmax'}.flatten", before=node, axis=axis)
    shape = graph.op("Shape", [x], name=f"{node.name or 'hardmax'}.shape", before=node)
    node.inputs[0] = flat
    node.attrs["axis"] = 1
    picked = Variable(graph.fresh(f"{node.name or 'hardmax'}.flat"), y.dtype)
    node.outputs[0] = picked
    graph.nodes.insert(
        graph.nodes.index(node) + 1,
        Node("Reshape", graph.fresh(f"{node.name or 'hardmax'}.reshape"), {}, [picked, shape], [y]),
    )


def _spell_out(graph: Graph, node: Node) -> None:
    """One with a mean and a variance for every element: ``spatial`` is 0."""
    x, scale, shift, mean, variance = node.inputs
    name = node.name or "batch_normalization"
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    y = node.outputs[0]
    if not all(isinstance(tensor, Constant) for tensor in (scale, shift, mean, variance)):
        return  # the converter says that it does not take it
    values = [np.asarray(constant_of(tensor).values, np.float64) for tensor in (scale, shift, mean, variance)]
    factor = values[0] / np.sqrt(values[3] + epsilon)
    kind = scale.dtype
    product = graph.op("Mul", [x, graph.const(f"{name}.factor", factor.astype(kind))], name=f"{name}.mul", before=node)
    offset = graph.const(f"{name}.offset", (values[1] - values[2] * factor).astype(kind))
    place = graph.nodes.index(node)
    node.outputs.clear()
    graph.erase(node)
    graph.nodes.insert(place, Node("Add", graph.fresh(f"{name}.add"), {}, [product, offset], [y]))
