"""A network whose file says itself what runs in FP16: tensors of float16, with casts where FP32 is needed.

That is what TensorRT calls strongly typed. What FP16 costs is measured here, too: :func:`rounded` makes a network that
onnxruntime computes in FP32 and that rounds every tensor which is FP16 on the GPU; only the order of sums is not its.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import numpy as np

from edgec.backends.tensorrt.body_ranges import BodyRanges
from edgec.backends.tensorrt.older_opset import takes
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.shapes import Shapes

LARGEST = float(np.finfo(np.float16).max)
# Images that nobody has seen may give twice as much.
_MARGIN = 2.0
# Operators that say by an attribute which type they give, or whose float inputs are settings of type float32.
_TYPED = frozenset({"Cast", "Constant", "ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "Range"})
_INTEGER = frozenset({"QuantizeLinear", "DequantizeLinear"})
_SETTINGS = {"Resize": (1, 2), "Upsample": (1,)}
# TensorRT-RTX 1.7 ends in a fault of its own on some bodies of Scan that cast what they get to FP16, and on some of a
# Loop that stands in a body.
_FLOAT_BODIES = frozenset({"Scan"})
_FLOAT16 = 10  # onnx.TensorProto.FLOAT16
_FLOAT = 1


def overflowing(graph: Graph, samples: Iterable[Mapping[str, np.ndarray]]) -> list[str]:
    """The nodes that read or give numbers which FP16 does not hold, or would not with twice as large ones.

    The bodies of a node are looked at as a whole.

    Args:
        graph: in float32; not changed.
        samples: feeds as it takes them.
    """
    shapes = Shapes(graph)
    inside = {t for node in graph.nodes for t in node.outputs if t.name and shapes.dtype(t) == np.float32}
    named = {t.name for t in graph.outputs}
    session = Session(graph, [t for t in inside if t.name not in named], blocked=True)
    largest: dict[str, float] = {}
    bodies = BodyRanges(graph)
    for feeds in samples:
        bodies.see(feeds)
        for name, values in {**feeds, **session.run(feeds)}.items():
            if values.dtype == np.float32 and values.size:
                largest[name] = max(largest.get(name, 0.0), float(np.abs(values).max()))

    def beyond(tensor: Tensor) -> bool:
        if isinstance(tensor, Constant):
            values = tensor.values
            return values.dtype == np.float32 and bool(np.abs(values).max(initial=0.0) > LARGEST)
        return largest.get(tensor.name, 0.0) * _MARGIN > LARGEST

    found = [
        node.name for one in graph.graphs() for node in one.nodes if any(map(beyond, (*node.inputs, *node.outputs)))
    ]
    for name, most in bodies.largest.items():
        if most * _MARGIN > LARGEST:
            found += [node.name for node in bodies.inside[name] if node.name not in found]
    return found


def in_half(graph: Graph, floats: Set[str] = frozenset()) -> None:
    """Rewrites ``graph`` in place, so that all but some nodes compute in FP16. Inputs and outputs stay as they are.

    So do those of the bodies of If, Loop and Scan; what a body reads from outside has the type that it has there now.

    Args:
        graph: in float32; Q and DQ stay in float32.
        floats: names of the nodes that stay in float32.
    """
    _Writer(graph, Shapes(graph)).write(floats)


def rounded(graph: Graph) -> None:
    """Rewrites what :func:`in_half` made, in place, into FP32 with every FP16 tensor rounded to FP16.

    onnxruntime has few FP16 kernels on a CPU: it computes chains of operators in FP32 and rounds at their ends only.
    """
    if any(tensor.dtype == np.float16 for tensor in graph.inputs):
        return  # made so by its author: it is run as it is
    for constant in graph.constants():
        if constant.dtype == np.float16:
            constant.values = constant.values.astype(np.float32)
    for inside in graph.graphs():
        _round_here(inside)


def _round_here(graph: Graph) -> None:
    placed: list[Node] = []
    for node in graph.nodes:
        placed.append(node)
        if node.op == "Cast" and node.attrs["to"] == _FLOAT16:
            node.attrs["to"] = _FLOAT
        for place, tensor in enumerate(node.outputs):
            if tensor.dtype != np.float16:
                continue
            tensor.dtype = np.dtype(np.float32)
            exact = Variable(graph.fresh(f"{tensor.name}.exact"), np.float32, tensor.shape)
            half = Variable(graph.fresh(f"{tensor.name}.rounded"), np.float16, tensor.shape)
            node.outputs[place] = exact
            placed.append(Node("Cast", graph.fresh(f"{exact.name}.cast"), {"to": _FLOAT16}, [exact], [half]))
            placed.append(Node("Cast", graph.fresh(f"{half.name}.cast"), {"to": _FLOAT}, [half], [tensor]))
    graph.nodes[:] = placed


class _Writer:
    """Puts casts between nodes of different types, one for each tensor that is read in the other type.

    Args:
        graph: what is written: the network, or a body in it.
        shapes: of the network.
        outer: the writer of what the body stands in, as far as it has come. What it has cast is there for the body;
            what the body casts is not there for others.
    """

    def __init__(self, graph: Graph, shapes: Shapes, outer: _Writer | None = None) -> None:
        self._graph = graph
        self._shapes = shapes
        self._outer = outer
        self._halves: set[Tensor] = set() if outer is None else set(outer._halves)
        self._casts: dict[tuple[Tensor, bool], Tensor] = {} if outer is None else dict(outer._casts)
        self._stored: dict[Constant, Constant] = {} if outer is None else outer._stored
        self._order: list[Node] = []

    def write(self, floats: Set[str]) -> None:
        """Rewrites the graph and the bodies in it."""
        for node in list(self._graph.nodes):
            bodies = list(node.subgraphs())
            if bodies or node.op in _TYPED or node.op in _INTEGER or node.name in floats:
                self.read(node, half=False)
                inside = {one.name for body in node.subgraphs(recursive=True) for one in body.nodes}
                alone = node.op in _FLOAT_BODIES or (node.op == "Loop" and self._outer is not None)
                kept = floats | inside if alone else floats
                for body in bodies:
                    _Writer(body, self._shapes, self).write(kept)
            else:
                half = self._has_half(node)
                self.read(node, half=half)
                if half:
                    self.give(node)
        self.finish()

    def read(self, node: Node, *, half: bool) -> None:
        """Lets a node read floats in one type."""
        settings = _SETTINGS.get(node.op, ())
        for place, tensor in enumerate(node.inputs):
            wanted = half and place not in settings
            if tensor in self._halves:
                if not wanted:
                    node.inputs[place] = self._cast(tensor, half=False)
            elif wanted and self._is_float(tensor):
                node.inputs[place] = self._cast(tensor, half=True)
        self._order.append(node)

    def give(self, node: Node) -> None:
        """Declares that the floats which a node gives are FP16."""
        for tensor in node.outputs:
            if tensor.name and self._shapes.dtype(tensor) == np.float32:
                self._halves.add(tensor)

    def finish(self) -> None:
        """Puts the nodes in order, and outputs into the type that they had."""
        for place, tensor in enumerate(self._graph.outputs):
            if tensor in self._halves and isinstance(tensor, Variable):
                name = tensor.name
                if self._outer is None:
                    tensor.name = self._graph.fresh(f"{name}.half")
                else:  # a body's outputs are told apart by their places, and what it gives may be made outside
                    name = self._graph.fresh(f"{name}.float")
                made = Variable(name, np.float32, self._shape(tensor))
                self._order.append(self._node(tensor, made, _FLOAT))
                self._graph.outputs[place] = made
        for tensor in self._halves:
            if isinstance(tensor, Variable):
                tensor.dtype = np.dtype(np.float16)
        self._graph.nodes[:] = self._order

    def _has_half(self, node: Node) -> bool:
        """Whether the operator takes and gives FP16 in this opset, wherever the node has FP32."""
        opset, settings = self._graph.opset, _SETTINGS.get(node.op, ())
        reads = all(takes(node.op, opset, place, "float16") for place, tensor in enumerate(node.inputs)
                    if place not in settings and (self._is_float(tensor) or tensor in self._halves))  # fmt: skip
        gives = all(takes(node.op, opset, place, "float16", output=True) for place, tensor in enumerate(node.outputs)
                    if self._is_float(tensor))  # fmt: skip
        return reads and gives

    def _is_float(self, tensor: Tensor) -> bool:
        return bool(tensor.name) and self._shapes.dtype(tensor) == np.float32

    def _cast(self, tensor: Tensor, *, half: bool) -> Tensor:
        suffix = "half" if half else "float"
        if isinstance(tensor, Constant):
            if tensor not in self._stored:
                self._stored[tensor] = self._graph.const(f"{tensor.name}.{suffix}", tensor.values.astype(np.float16))
            return self._stored[tensor]
        known = self._casts.get((tensor, half))
        if known is not None:
            return known
        dtype = np.float16 if half else np.float32
        made = Variable(self._graph.fresh(f"{tensor.name}.{suffix}"), dtype, self._shape(tensor))
        self._order.append(self._node(tensor, made, _FLOAT16 if half else _FLOAT))
        self._casts[tensor, half] = made
        return made

    def _shape(self, tensor: Tensor) -> list[int | str | None] | None:
        shape = self._shapes.shape(tensor)
        return None if shape is None else list(shape)

    def _node(self, tensor: Tensor, made: Variable, to: int) -> Node:
        return Node("Cast", self._graph.fresh(f"{made.name}.cast"), {"to": to}, [tensor], [made])
