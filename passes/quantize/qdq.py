"""Writes QuantizeLinear and DequantizeLinear nodes into a graph.

Nodes are collected and put in place in one go, each behind what it reads, so that the order of execution holds and the
cost does not grow with the square of the graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.quantize.scales.affine_parameters import Parameters


class QdqWriter:
    """Collects insertions into ``graph``; :meth:`finish` makes them.

    Args:
        graph: what is written into. Its nodes must not be added or removed in between.
        shapes: of ``graph``.
    """

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self.graph = graph
        self.shapes = shapes
        self._constants: defaultdict[str, list[list[Constant]]] = defaultdict(list)
        self._inner: list[Graph] | None = None
        self._first: list[Node] = []
        self._before: defaultdict[Node, list[Node]] = defaultdict(list)
        self._behind: defaultdict[Node, list[Node]] = defaultdict(list)

    def activation(self, tensor: Variable, by: Parameters) -> Variable:
        """Adds Q and DQ behind ``tensor`` and returns what DQ gives; nobody reads it yet."""
        base = tensor.name
        maker = tensor.inputs[0] if tensor.inputs else None
        place = self._first if maker is None else self._behind[maker]
        scale = self.graph.const(f"{base}.scale", np.float32(by.scale))
        zero_point = self.graph.const(f"{base}.zero_point", np.array(by.zero_point, by.dtype))
        quantized = self._variable(f"{base}.quantized", tensor, np.dtype(by.dtype))
        given = self._variable(f"{base}.dequantized", tensor, np.dtype(np.float32))
        place.append(self._node("QuantizeLinear", f"{base}.quantize", [tensor, scale, zero_point], quantized))
        place.append(self._node("DequantizeLinear", f"{base}.dequantize", [quantized, scale, zero_point], given))
        return given

    def constant(
        self,
        name: str,
        integers: np.ndarray,
        scale: np.ndarray | np.float32,
        zero_point: int,
        axis: int | None,
        before: Node,
    ) -> Variable:
        """Adds a DQ in front of ``before`` that reads integers kept in the model, and returns what it gives."""
        scales = np.asarray(scale, np.float32)
        zeros = np.full(scales.shape, zero_point, integers.dtype)
        reads = self._stored(name, integers, scales, zeros)
        given = Variable(self.graph.fresh(f"{name}.dequantized"), np.float32, list(integers.shape))
        node = self._node("DequantizeLinear", f"{name}.dequantize", reads, given)
        if axis is not None and scales.ndim:
            node.attrs["axis"] = axis
        self._before[before].append(node)
        return given

    def replace_uses(self, old: Variable, new: Variable) -> None:
        """Everything that reads ``old``, but for the Q behind it, reads ``new``; a graph output keeps its name."""
        for reader in list(dict.fromkeys(old.outputs)):
            if reader.op == "QuantizeLinear" and reader in self._behind.get(old.inputs[0], ()):
                continue
            for place, tensor in enumerate(reader.inputs):
                if tensor is old:
                    reader.inputs[place] = new
        if any(tensor is old for tensor in self.graph.outputs):
            name = old.name
            old.name = self.graph.fresh(f"{name}.float")
            new.name = name
            self.graph.outputs[:] = [new if t is old else t for t in self.graph.outputs]
        for subgraph in self._subgraphs():
            subgraph.outputs[:] = [new if t is old else t for t in subgraph.outputs]

    def finish(self) -> None:
        """Puts the nodes in."""
        placed = list(self._first)
        for node in self.graph.nodes:
            placed += self._before.get(node, ())
            placed.append(node)
            placed += self._behind.get(node, ())
        self.graph.nodes[:] = placed

    def _stored(self, name: str, *arrays: np.ndarray) -> list[Constant]:
        """Constants for integers, scale and zero-point; those of a weight that several operators share are shared."""
        known = self._constants[name]
        for made in known:
            if all(c.dtype == a.dtype and np.array_equal(c.values, a) for c, a in zip(made, arrays, strict=True)):
                return made
        names = (f"{name}.{arrays[0].dtype.name}", f"{name}.scale", f"{name}.zero_point")
        known.append([self.graph.const(n, array) for n, array in zip(names, arrays, strict=True)])
        return known[-1]

    def _subgraphs(self) -> list[Graph]:
        if self._inner is None:
            self._inner = self.graph.graphs()[1:]
        return self._inner

    def _variable(self, name: str, like: Tensor, dtype: np.dtype) -> Variable:
        shape = self.shapes.shape(like)
        return Variable(self.graph.fresh(name), dtype, None if shape is None else list(shape))

    def _node(self, op: str, name: str, inputs: Iterable[Variable | Constant], output: Variable) -> Node:
        return Node(op, self.graph.fresh(name), {}, inputs, [output])
