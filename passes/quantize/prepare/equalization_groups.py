"""Activations whose channels can be scaled, each by its own number, without changing what the network computes.

A stream is a set of activations that hang together by operators to which a positive factor of a channel makes no
difference (Relu, a sum, a pool), between layers with constant weights that can multiply by it on the way in and divide
on the way out. A residual network's shortcuts are one stream each stage; what stands between two layers is one as well.
An upper bound, as Relu6 has one, ends that: a channel that was below half of it on 64 images and was made twice as wide
for it reached it on others, and EfficientNet-Lite0 fell to 15 dB before anything was rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import networkx as nx

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, producer
from edgec.ir.shapes import Shapes
from edgec.passes.layers.linear import LINEAR

# What gives a channel f times as much where it reads f times as much, and keeps channels on axis 1.
_HOMOGENEOUS = frozenset(
    {"Add", "AveragePool", "Clip", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "Max"}
    | {"MaxPool", "Min", "PRelu", "ReduceMean", "Relu", "Sub", "Sum"}
)
# What keeps channels only where it does not merge them with what lies around.
_VIEWS = frozenset({"Flatten", "Reshape", "Squeeze"})
#: Operators that give a channel shifted where they read it shifted.
SHIFTED = frozenset({"Dropout", "GlobalAveragePool", "GlobalMaxPool", "Identity", "ReduceMean"}) | _VIEWS
_DATA_INPUTS = {"Clip": 1, "Dropout": 1, "PRelu": 1, "ReduceMean": 1, "Reshape": 1, "Squeeze": 1}


@dataclass
class Stream:
    """Activations of the same channels, on axis 1.

    Attributes:
        width: how many channels.
        tensors: in the graph's order.
        writers, readers: the layers whose outputs and whose inputs are among them.
        inside: the operators between them.
    """

    width: int
    tensors: list[Variable] = field(default_factory=list)
    writers: list[Node] = field(default_factory=list)
    readers: list[Node] = field(default_factory=list)
    inside: list[Node] = field(default_factory=list)


def streams(graph: Graph, shapes: Shapes) -> list[Stream]:
    """The streams of ``graph``, in the order of their first tensors."""
    together: nx.Graph[Variable] = nx.Graph()
    fixed: set[Tensor] = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        tensors = [t for t in (*node.inputs, *node.outputs) if isinstance(t, Variable) and t.name]
        together.add_nodes_from(tensors)
        if node.op in LINEAR and _is_layer(node, shapes):
            continue
        if _keeps_channels(node, shapes):
            nx.add_path(together, tensors)
        else:
            fixed.update(tensors)
    found = []
    for group in nx.connected_components(together):
        if fixed.isdisjoint(group):
            stream = _stream([tensor for tensor in together if tensor in group], shapes)
            if stream.writers and stream.readers:
                found.append(stream)
    return found


def _stream(tensors: list[Variable], shapes: Shapes) -> Stream:
    stream = Stream(_width(tensors[0], shapes) or 0, tensors)
    inside: dict[Node, None] = {}
    for tensor in tensors:
        maker = producer(tensor)
        if maker is not None:
            stream.writers += [maker] if maker.op in LINEAR else []
            inside.update({} if maker.op in LINEAR else {maker: None})
        stream.readers += [node for node in dict.fromkeys(tensor.outputs) if node.op in LINEAR]
    stream.inside = list(inside)
    return stream


def _is_layer(node: Node, shapes: Shapes) -> bool:
    """Whether it reads one activation, channels on axis 1, and its weights are constant."""
    constant = all(isinstance(t, Constant) for t in list(node.inputs)[1:] if t.name)
    flat = node.op not in ("Gemm", "MatMul") or _rank(node.inputs[0], shapes) == 2
    return constant and flat and isinstance(node.inputs[0], Variable) and not node.attrs.get("transA")


def _keeps_channels(node: Node, shapes: Shapes) -> bool:
    if node.domain not in ("", "ai.onnx") or any(True for _ in node.subgraphs()):
        return False
    data, outputs = list(_data(node)), [tensor for tensor in node.outputs if tensor.name]
    # A mask or indices beside the output are no activations, and a setting that is computed may depend on one.
    if len(outputs) != 1 or any(isinstance(t, Constant) for t in data):
        return False
    if any(isinstance(t, Variable) and t.name for t in node.inputs if t not in data):
        return False
    variables = [tensor for tensor in (*data, *outputs) if isinstance(tensor, Variable)]
    widths = {_width(tensor, shapes) for tensor in variables}
    if len(widths) != 1 or None in widths:
        return False
    if node.op in _VIEWS:
        return all(_elements_beside(tensor, shapes) == 1 for tensor in variables)
    # Of other ranks, axis 1 is another axis: of what is broadcast, and of a mean that drops its axes.
    if node.op not in _HOMOGENEOUS or len({_rank(tensor, shapes) for tensor in variables}) != 1:
        return False
    return node.op != "Clip" or (_bound(node, 1) == 0 and _bound(node, 2) is None)


def _data(node: Node) -> Iterator[Tensor]:
    """The inputs that are not settings."""
    count = _DATA_INPUTS.get(node.op, len(node.inputs))
    return (tensor for tensor in list(node.inputs)[:count] if tensor.name)


def _width(tensor: Variable, shapes: Shapes) -> int | None:
    shape = shapes.shape(tensor)
    return shape[1] if shape is not None and len(shape) >= 2 else None


def _rank(tensor: object, shapes: Shapes) -> int | None:
    shape = shapes.shape(tensor) if isinstance(tensor, Variable) else None
    return None if shape is None else len(shape)


def _elements_beside(tensor: Variable, shapes: Shapes) -> int | None:
    """How many elements a channel of one sample has."""
    shape = shapes.shape(tensor)
    if shape is None or any(side is None for side in shape[2:]):
        return None
    count = 1
    for side in shape[2:]:
        count *= side or 0
    return count


def _bound(clip: Node, place: int) -> float | None:
    if len(clip.inputs) <= place or not clip.inputs[place].name:
        return None
    bound = clip.inputs[place]
    return float(bound.values.reshape(())) if isinstance(bound, Constant) else float("nan")
