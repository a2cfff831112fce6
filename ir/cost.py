"""What a network costs: parameters, multiply-accumulates, bytes of weights, bytes moved, peak activation memory.

All figures are for one run of the graph as it stands, at its static shapes. They are counted from the graph; nothing
is timed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.analyses import Analyses
from edgec.ir.files import raw_bytes
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer
from edgec.ir.protos import data_type
from edgec.ir.shapes import Shapes

# Operators whose output can take its input's memory when nothing else reads that input.
_IN_PLACE = frozenset(
    "Relu LeakyRelu PRelu Clip Sigmoid Tanh HardSigmoid HardSwish Elu Selu Softplus Identity Dropout Cast "
    "BatchNormalization Add Sub Mul Div Neg Abs Sqrt Exp".split()
)
# Operators that only give the same bytes another shape.
_VIEWS = frozenset("Reshape Flatten Squeeze Unsqueeze Identity".split())


@dataclass(frozen=True)
class NodeCost:
    """The cost of one node.

    Attributes:
        params: elements of the weights that it reads (shared weights are counted at each reader).
        macs: multiply-accumulates.
        bytes_moved: bytes of its inputs, outputs and weights.
    """

    params: int
    macs: int
    bytes_moved: int


class Cost:
    """The cost of a graph and of each of its nodes.

    Attributes:
        params: elements of all weights, each constant once. Weights are the constants that carry the network's
            numbers: not shapes and indices (int64), not the scales and zero-points of quantization.
        macs: multiply-accumulates of Conv, ConvTranspose, Gemm, MatMul and their quantized forms.
        weight_bytes: bytes that the constants take in the file, packed types packed.
        bytes_moved: bytes read and written by all nodes if nothing stayed in a cache.
        peak_activation_bytes: most bytes of activations alive at once in the graph's order, with in-place operators
            in place and views free. A tensor between QuantizeLinear and DequantizeLinear counts at its 8 bits.
        nodes: number of nodes.
        by_node: the cost of each node.
    """

    def __init__(self, graph: Graph, analyses: Analyses | None = None) -> None:
        shapes = analyses.get(Shapes) if analyses is not None else Shapes(graph)
        self._shapes = shapes
        self.nodes = len(graph.nodes)
        self.by_node: dict[Node, NodeCost] = {node: self._node(node) for node in graph.nodes}
        constants = graph.constants()
        self.params = sum(_elements(c.shape) for c in constants if is_weight(c))
        self.weight_bytes = sum(raw_bytes(c.shape, data_type(c)) for c in constants if c.dtype.kind != "O")
        self.macs = sum(cost.macs for cost in self.by_node.values())
        self.bytes_moved = sum(cost.bytes_moved for cost in self.by_node.values())
        self.peak_activation_bytes = self._peak(graph)

    def as_dict(self) -> dict[str, int]:
        """The figures that reports keep, by the report's names."""
        names = ("params", "macs", "weight_bytes", "peak_activation_bytes", "bytes_moved", "nodes")
        return {name: int(getattr(self, name)) for name in names}

    def _node(self, node: Node) -> NodeCost:
        weights = [t for t in node.inputs if isinstance(t, Constant) and is_weight(t)]
        moved = sum(self._bytes(t) for t in (*dict.fromkeys(node.inputs), *node.outputs) if t.name)
        return NodeCost(sum(_elements(t.shape) for t in weights), self._macs(node), moved)

    def _macs(self, node: Node) -> int:
        if node.op in ("Conv", "ConvInteger", "QLinearConv"):
            weight = node.inputs[3] if node.op == "QLinearConv" else node.inputs[1]
            out, kernel = self._known(node.outputs[0]), self._known(weight)
            return _elements(out) * _elements(kernel[1:]) if out and kernel else 0
        if node.op == "ConvTranspose":
            data, kernel = self._known(node.inputs[0]), self._known(node.inputs[1])
            return _elements(data) * _elements(kernel[1:]) if data and kernel else 0
        if node.op == "Gemm":
            out, a = self._known(node.outputs[0]), self._known(node.inputs[0])
            return _elements(out) * a[0 if node.attrs.get("transA") else 1] if out and a else 0
        if node.op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
            out, a = self._known(node.outputs[0]), self._known(node.inputs[0])
            return _elements(out) * a[-1] if out is not None and a else 0
        return 0

    def _known(self, tensor: Tensor) -> tuple[int, ...] | None:
        shape = self._shapes.shape(tensor)
        return None if shape is None else tuple(1 if d is None else d for d in shape)

    def _bytes(self, tensor: Tensor) -> int:
        if isinstance(tensor, Constant):
            return tensor.nbytes
        shape, dtype = self._known(tensor), self._shapes.dtype(tensor)
        if shape is None or dtype is None or dtype.kind == "O":
            return 0
        return _elements(shape) * dtype.itemsize

    def _storage(self, tensor: Variable) -> int:
        """Bytes a device holds for an activation: 8 bits where the graph quantizes it."""
        source = producer(tensor)
        if source is not None and source.op == "DequantizeLinear":
            return 0  # its int8 source is what is held
        readers = consumers(tensor)
        if readers and all(reader.op == "QuantizeLinear" for reader in readers):
            return 0  # the quantized result is what is held
        return self._bytes(tensor)

    def _peak(self, graph: Graph) -> int:
        root: dict[Tensor, Tensor] = {}  # the tensor whose memory a tensor lies in
        last: dict[Tensor, int] = {}
        end = len(graph.nodes)

        def of(tensor: Tensor) -> Tensor:
            return root.get(tensor, tensor)

        for index, node in enumerate(graph.nodes):
            first = node.inputs[0] if node.inputs else None
            aliases = node.op in _VIEWS or node.op in ("DequantizeLinear", "QuantizeLinear")
            if first is not None and isinstance(first, Variable) and first.name and node.outputs:
                result = node.outputs[0]
                same = self._storage(first) == self._storage(result) if isinstance(result, Variable) else False
                dies = all(reader is node for reader in first.outputs) and not _is_output(graph, first)
                if aliases or (node.op in _IN_PLACE and same and dies and first not in graph.inputs):
                    root[result] = of(first)
            for tensor in node.inputs:
                last[of(tensor)] = index
            for tensor in node.outputs:
                last[of(tensor)] = max(last.get(of(tensor), index), index)
        for tensor in graph.outputs:
            last[of(tensor)] = end
        size: dict[Tensor, int] = {}
        for variable in graph.variables():
            size[of(variable)] = max(size.get(of(variable), 0), self._storage(variable))
        alive = sum(size.get(of(t), 0) for t in dict.fromkeys(map(of, graph.inputs)))
        peak = alive
        born = {of(t) for t in graph.inputs}
        freed: set[Tensor] = set()
        for index, node in enumerate(graph.nodes):
            for tensor in map(of, node.outputs):
                if tensor not in born:
                    born.add(tensor)
                    alive += size.get(tensor, 0)
            peak = max(peak, alive)
            for tensor in dict.fromkeys(map(of, (*node.inputs, *node.outputs))):
                if tensor in born and tensor not in freed and last.get(tensor) == index:
                    freed.add(tensor)
                    alive -= size.get(tensor, 0)
        return peak


def is_weight(constant: Constant) -> bool:
    """Whether a constant carries the network's numbers, rather than shapes, indices, scales or bounds."""
    if constant.dtype.kind in "OUSb" or constant.dtype == np.int64 or not constant.shape:
        return False
    for node in constant.outputs:
        place = next(i for i, tensor in enumerate(node.inputs) if tensor is constant)
        if node.op in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
            if place == 0:
                return True
        elif node.op not in ("Resize", "Upsample", "Clip", "Pad"):
            return True
    return False


def _is_output(graph: Graph, tensor: Tensor) -> bool:
    return any(tensor is output for output in graph.outputs)


def _elements(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) if shape else 1
