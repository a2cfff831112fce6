"""What a network costs: parameters, multiply-accumulates, bytes of weights, bytes moved, peak activation memory.

All figures are for one run of the graph as it stands, at its static shapes. They are counted from the graph; nothing
is timed here. Where shapes are not known, figures are what can be told without them, and it is said how much is left
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgec.ir.analyses import Analyses
from edgec.ir.garbage import uncollected
from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.order import dependencies
from edgec.ir.protos import data_type
from edgec.ir.shapes import Shapes
from edgec.ir.stored import onnx_dtype, raw_bytes

# Operators whose output can take the memory of an input that nothing reads later; of the binary ones, either's.
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus"}
)
_IN_PLACE = _BINARY | _ACTIVATIONS | {"Dropout", "Cast", "BatchNormalization", "Neg", "Abs", "Sqrt", "Exp"}
# Operators that only give the same bytes another shape.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
# Where the weight stands among the inputs, and how multiply-accumulates follow from the shapes.
_MACS = {
    "Conv": (1, "convolution"),
    "ConvInteger": (1, "convolution"),
    "QLinearConv": (3, "convolution"),
    "ConvTranspose": (1, "transposed"),
    "Gemm": (1, "matrix"),
    "MatMul": (1, "matrix"),
    "MatMulInteger": (1, "matrix"),
    "QLinearMatMul": (3, "matrix"),
}
# Operators that take other constants besides weights: where their weights stand.
_WEIGHT_PLACES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (0,),
    "DequantizeLinear": (0,),
    "DynamicQuantizeLinear": (0,),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "Resize": (),
    "Upsample": (),
    "Clip": (),
    "Pad": (),
}


# Activations that integer kernels apply to their sums: what is in front of one is never held.
_FUSED = ("Relu", "Clip")


Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class NodeCost:
    """The cost of one node.

    Attributes:
        params: elements of the weights that it reads (shared weights are counted at each reader).
        macs: multiply-accumulates; ``None`` where a shape that they follow from is not static.
        bytes_moved: bytes of its inputs, outputs and weights.
    """

    params: int
    macs: int | None
    bytes_moved: int


class Cost:
    """The cost of a graph and of each of its nodes.

    Attributes:
        params: elements of all weights, each constant once. Weights are the constants that carry the network's
            numbers: not shapes and indices (int64), not the scales and zero-points of quantization.
        macs: multiply-accumulates of Conv, ConvTranspose, Gemm, MatMul and their quantized forms, as far as known.
        macs_unknown: how many of these nodes are not in ``macs``, because a shape is not static.
        weight_bytes: bytes that the constants take in the file, packed types packed.
        bytes_moved: bytes read and written by all nodes if nothing stayed in a cache.
        peak_activation_bytes: most bytes of activations alive at once in the graph's order, with in-place operators
            in place and views free. A tensor between QuantizeLinear and DequantizeLinear counts at its 8 bits.
        sizes_unknown: how many tensors without a static shape are in ``bytes_moved`` and ``peak_activation_bytes`` with
            less than they take: dimensions that are not known count 1.
        nodes: number of nodes.
        by_node: the cost of each node.
    """

    def __init__(self, graph: Graph, analyses: Analyses | None = None) -> None:
        with uncollected():
            self._count(graph, analyses)

    def _count(self, graph: Graph, analyses: Analyses | None) -> None:
        self._shapes = analyses.get(Shapes) if analyses is not None else Shapes(graph)
        self._sizes: dict[Tensor, int] = {}
        self.sizes_unknown = 0
        constants = graph.constants()
        self._weights = {constant: math.prod(constant.shape) for constant in constants if is_weight(constant)}
        self.nodes = len(graph.nodes)
        self.by_node: dict[Node, NodeCost] = {node: self._node(node) for node in graph.nodes}
        self.params = sum(self._weights.values())
        self.weight_bytes = sum(map(self._bytes, constants))
        macs = [cost.macs for cost in self.by_node.values()]
        self.macs = sum(found or 0 for found in macs)
        self.macs_unknown = macs.count(None)
        self.bytes_moved = sum(cost.bytes_moved for cost in self.by_node.values())
        self.peak_activation_bytes = _peak(graph, self._held)

    def as_dict(self) -> dict[str, int]:
        """The figures that reports keep, by the report's names."""
        names = ("params", "macs", "macs_unknown", "weight_bytes", "peak_activation_bytes", "bytes_moved")
        return {name: int(getattr(self, name)) for name in (*names, "sizes_unknown", "nodes")}

    def _node(self, node: Node) -> NodeCost:
        params = moved = 0
        for tensor in dict.fromkeys(node.inputs):
            params += self._weights.get(tensor, 0) if isinstance(tensor, Constant) else 0
            moved += self._bytes(tensor)
        moved += sum(map(self._bytes, node.outputs))
        return NodeCost(params, self._macs(node) if node.op in _MACS else 0, moved)

    def _macs(self, node: Node) -> int | None:
        weight_place, rule = _MACS[node.op]
        data, weight, out = (
            self._shapes.shape(t) for t in (node.inputs[0], node.inputs[weight_place], node.outputs[0])
        )
        if rule == "transposed":
            return _product(data, weight, 1)
        if rule == "convolution":
            return _product(out, weight, 1)
        return _product(out, data and data[:1] if node.attrs.get("transA") else data and data[-1:], 0)

    def _bytes(self, tensor: Tensor) -> int:
        size = self._sizes.get(tensor)
        if size is None:
            size = self._sizes[tensor] = self._measure(tensor)
        return size

    def _measure(self, tensor: Tensor) -> int:
        if isinstance(tensor, Constant):
            return raw_bytes(tensor.shape, data_type(tensor)) if tensor.dtype.kind != "O" else 0
        shape, dtype = self._shapes.shape(tensor), self._shapes.dtype(tensor)
        if not tensor.name:
            return 0
        if shape is None or None in shape:
            self.sizes_unknown += 1
        if shape is None or dtype is None or dtype.kind == "O":
            return 0
        return raw_bytes([1 if d is None else d for d in shape], onnx_dtype(dtype))

    def _held(self, tensor: Tensor, is_output: bool) -> int:
        """Bytes that a device holds for an activation: 8 bits where the graph quantizes it, nothing for a constant."""
        if isinstance(tensor, Constant):
            return 0
        if not is_output:
            source = tensor.inputs[0] if tensor.inputs else None
            if source is not None and source.op == "DequantizeLinear":
                return 0  # its int8 source is what is held
            behind = tensor
            while len(behind.outputs) == 1 and behind.outputs[0].op in _FUSED:
                behind = behind.outputs[0].outputs[0]
            if behind.outputs and all(reader.op == "QuantizeLinear" for reader in behind.outputs):
                return 0  # the quantized result is what is held
        return self._bytes(tensor)


def _product(first: Shape, second: Shape, start: int) -> int | None:
    """The product of a shape and, from an axis on, another; ``None`` where that is not known."""
    if first is None or second is None:
        return None
    product = 1
    for size in (*first, *second[start:]):
        if size is None:
            return None
        product *= size
    return product


def _peak(graph: Graph, held: Callable[[Tensor, bool], int]) -> int:
    """Most bytes alive at once.

    Tensors that lie in the same memory form a block: first views and what quantization only renames, then results
    that an operator may write over its dying input.
    """
    outputs, inputs = set(graph.outputs), set(graph.inputs)
    sizes: dict[Tensor, int] = {}
    block: dict[Tensor, Tensor] = {}
    last: dict[Tensor, int] = {}

    def of(tensor: Tensor) -> Tensor:
        while tensor in block:
            tensor = block[tensor]
        return tensor

    def size(tensor: Tensor) -> int:
        if tensor not in sizes:
            sizes[tensor] = held(tensor, tensor in outputs)
        return sizes[tensor]

    for index, node in enumerate(graph.nodes):
        if node.inputs and node.outputs and _shares(node, size):
            block[node.outputs[0]] = of(node.inputs[0])
        for tensor in (*dependencies(node), *node.outputs):
            last[of(tensor)] = index
    for tensor in outputs:
        last[of(tensor)] = len(graph.nodes)
    largest: dict[Tensor, int] = {}
    for tensor in (*inputs, *(t for node in graph.nodes for t in node.outputs)):
        root = of(tensor)
        largest[root] = max(largest.get(root, 0), size(tensor))
    kept = set(map(of, inputs))
    for index, node in enumerate(graph.nodes):
        if node.op not in _IN_PLACE or not node.outputs:
            continue
        result = of(node.outputs[0])
        for tensor in node.inputs if node.op in _BINARY else node.inputs[:1]:
            over = of(tensor)
            fits = largest.get(over, 0) == largest[result] > 0
            if fits and over is not result and over not in kept and last[over] == index:
                block[result] = over
                last[over] = last[result]
                del largest[result]
                break
    dying: dict[int, int] = {}
    for tensor, amount in largest.items():
        place = last.get(tensor, 0)
        dying[place] = dying.get(place, 0) + amount
    born = set(kept)
    peak = alive = sum(largest[tensor] for tensor in born)
    for index, node in enumerate(graph.nodes):
        for tensor in node.outputs:
            root = of(tensor)
            if root not in born:
                born.add(root)
                alive += largest[root]
        peak = max(peak, alive)
        alive -= dying.get(index, 0)
    return peak


def _shares(node: Node, size: Callable[[Tensor], int]) -> bool:
    """Whether a node's first output is its first input's memory under another shape or name."""
    source, result = node.inputs[0], node.outputs[0]
    if isinstance(source, Constant) or not source.name:
        return False
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        # Only one of the two is held; where both are, or where one tensor is quantized twice, they are apart.
        once = len(source.outputs) == 1 or node.op == "DequantizeLinear"
        return once and not (size(source) and size(result))
    return node.op in _VIEWS


def is_weight(constant: Constant) -> bool:
    """Whether a constant carries the network's numbers, rather than shapes, indices, scales or bounds."""
    if constant.dtype.kind in "OUSb" or constant.dtype == np.int64 or not constant.shape:
        return False
    for node in dict.fromkeys(constant.outputs):
        places = _WEIGHT_PLACES.get(node.op)
        if places is None or any(node.inputs[i] is constant for i in places if i < len(node.inputs)):
            return True
    return False
