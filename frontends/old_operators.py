"""Operators of old opsets that onnx's version converter takes for something else, or does not take, spelt out anew.

What they compute is the ONNX operators' text of that opset, and where it leaves a choice, what onnxruntime computes.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable

_STANDARD = ("", "ai.onnx")
# Up to which opset these operators flatten their input to a matrix first, and BatchNormalization has five outputs.
_FLATTENING, _FIVE_OUTPUTS, _SIMPLE_RESIZE = 12, 13, 10
# The opset from which on BatchNormalization has statistics for each channel only.
_WITHOUT_SPATIAL = 9


def drop_statistics(graph: Graph, source: str, notes: list[str]) -> None:
    """Takes away, in place, the outputs of BatchNormalization that training alone has.

    Raises:
        InputError: one of them is read.
    """
    if graph.opset > _FIVE_OUTPUTS:
        return
    for inside in graph.graphs():
        read = set(inside.outputs)
        for node in [n for n in inside.nodes if n.op == "BatchNormalization" and n.domain in _STANDARD]:
            _drop_statistics(node, read, source, notes)


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


def _drop_statistics(node: Node, read: set[Tensor], source: str, notes: list[str]) -> None:
    """Of five outputs, four that nobody reads: then it is the operator of inference."""
    more = [tensor for tensor in list(node.outputs)[1:] if tensor.name]
    if any(tensor.outputs or tensor in read for tensor in more):
        where = f"{source}: node '{node.name or node.outputs[0].name}' (BatchNormalization)"
        what = f"is in training mode, and its statistics ('{more[0].name}') are read"
        raise InputError(where, what, "export the network in evaluation mode (model.eval())")
    if len(node.outputs) > 1:
        del node.outputs[1:]
        notes.append(
            f"node '{node.name or node.outputs[0].name}' (BatchNormalization) is written as in training, and taken as"
            " in inference: by its running mean and variance"
        )


def _spell_out(graph: Graph, node: Node) -> None:
    """One with a mean and a variance for every element: ``spatial`` is 0."""
    x, scale, shift, mean, variance = node.inputs
    name = node.name or "batch_normalization"
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    y = node.outputs[0]
    if not all(isinstance(tensor, Constant) for tensor in (scale, shift, mean, variance)):
        return  # the converter says that it does not take it
    values = [np.asarray(tensor.values, np.float64) for tensor in (scale, shift, mean, variance)]
    factor = values[0] / np.sqrt(values[3] + epsilon)
    kind = scale.dtype
    product = graph.op("Mul", [x, graph.const(f"{name}.factor", factor.astype(kind))], name=f"{name}.mul", before=node)
    offset = graph.const(f"{name}.offset", (values[1] - values[2] * factor).astype(kind))
    place = graph.nodes.index(node)
    node.outputs.clear()
    graph.erase(node)
    graph.nodes.insert(place, Node("Add", graph.fresh(f"{name}.add"), {}, [product, offset], [y]))
