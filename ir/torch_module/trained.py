"""Which constants training changes.

A float constant is trained where it is a weight: it stands in a weight's place of a layer (:data:`WEIGHTS`), or an Add
puts it on what a layer with trained weights computes (a bias by itself). Between the constant and that place there may
be operators that only move or quantize it (:data:`CARRIERS`). All other constants stay as they are: bounds, scales,
statistics, shapes, the numbers of preprocessing.

An integer constant behind DequantizeLinear, as quantized models keep weights, is trained as the float that it stands
for. The float starts at ``(q - zero_point) * scale``, each run rounds it to the integers and back with the
straight-through gradient, and what goes back into the graph is the integers: what was trained is what runs. That
needs scale and zero-point to be constants and the same for all that reads the integers; they stay as they are
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, producer
from edgec.ir.torch_module.conversion import is_float

#: The inputs of each layer that are weights.
WEIGHTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
}
#: Operators whose first input may be a weight on its way to the layer.
CARRIERS = frozenset(
    ["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "QuantizeLinear", "DequantizeLinear"]
)
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32"})


@dataclass(frozen=True)
class Weight:
    """A constant that training changes.

    Attributes:
        constant: it.
        layers: the nodes that it is a weight of.
        dequantizer: the DequantizeLinear that says what its integers mean; ``None`` for a float.
    """

    constant: Constant
    layers: tuple[Node, ...]
    dequantizer: Node | None = None


def weights(graph: Graph) -> dict[Constant, Weight]:
    """The constants of ``graph`` that training changes, in the order of their first use."""
    layers: dict[Constant, dict[Node, None]] = {}
    trained: set[Node] = set()
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        for tensor in _weight_places(node, trained):
            constant = _source(tensor)
            if constant is not None:
                layers.setdefault(constant, {})[node] = None
                trained.add(node)
    found = {}
    for constant, nodes in layers.items():
        dequantizer = None if is_float(constant.dtype) else dequantizer_of(constant)
        found[constant] = Weight(constant, tuple(nodes), dequantizer)
    return found


def _weight_places(node: Node, trained: set[Node]) -> Iterator[Tensor]:
    for place in WEIGHTS.get(node.op, ()):
        if place < len(node.inputs):
            yield node.inputs[place]
    if node.op == "Add" and len(node.inputs) == 2:
        for tensor, other in (node.inputs, reversed(node.inputs)):
            layer = producer(_behind_quantization(other))
            if layer is not None and layer.op in _LINEAR and layer in trained:
                yield tensor


def _behind_quantization(tensor: Tensor) -> Tensor:
    node = producer(tensor)
    while node is not None and node.op in ("QuantizeLinear", "DequantizeLinear"):
        tensor = node.inputs[0]
        node = producer(tensor)
    return tensor


def _source(tensor: Tensor) -> Constant | None:
    """The constant that a weight comes from, ``None`` where the network computes it or nothing can be trained."""
    node = producer(tensor)
    while node is not None and node.op in CARRIERS and node.domain in ("", "ai.onnx"):
        tensor = node.inputs[0]
        node = producer(tensor)
    if not isinstance(tensor, Constant) or not tensor.name:
        return None
    if is_float(tensor.dtype):
        return tensor
    return tensor if dequantizer_of(tensor) is not None else None


def dequantizer_of(constant: Constant) -> Node | None:
    """The DequantizeLinear that reads an integer constant; of several that say the same, the first."""
    readers = list(dict.fromkeys(constant.outputs))
    if constant.dtype.name not in INTEGERS or not readers:
        return None
    for node in readers:
        same = node.op == "DequantizeLinear" and all(
            isinstance(tensor, Constant) or not tensor.name for tensor in node.inputs[1:]
        )
        if not same or constant in node.inputs[1:] or not _agree(node, readers[0]):
            return None
        if node.attrs.get("block_size") or not is_float(node.inputs[1].dtype):
            return None
    return readers[0]


def _agree(one: Node, other: Node) -> bool:
    if one is other:
        return True
    if one.attrs.get("axis", 1) != other.attrs.get("axis", 1) or len(one.inputs) != len(other.inputs):
        return False
    for left, right in zip(one.inputs[1:], other.inputs[1:], strict=True):
        if left is right or not (left.name or right.name):
            continue
        if not isinstance(left, Constant) or not isinstance(right, Constant):
            return False
        if left.dtype != right.dtype or not np.array_equal(left.values, right.values):
            return False
    return True
