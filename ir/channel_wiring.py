"""What the rules of single operators work on while the channels of a graph are followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgec.ir.coupling import UNKNOWN, Coupling
from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.shapes import Shapes

Role = Literal["produces", "consumes", "rides"]


@dataclass(frozen=True)
class LayerAxis:
    """An axis of a layer's weight along which its output channels (``produces``) or inputs (``consumes``) lie."""

    node: Node
    weight: Tensor
    axis: int
    role: Role


class Wiring:
    """The dimensions of the tensors of one graph, by tensor and axis.

    Attributes:
        coupling: what has been said about the dimensions so far.
        opset: of the standard operators.
        layers: the axes of weights that rules have named.
    """

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self.coupling = Coupling()
        self.opset = graph.opset
        self.layers: list[LayerAxis] = []
        self.dimensions: dict[Tensor, list[int] | None] = {}
        self._shapes = shapes
        self._overridable = {t for t in graph.inputs if isinstance(t, Constant)}

    def of(self, tensor: Tensor) -> list[int]:
        """The dimensions of a tensor whose rank is known."""
        dimensions = self.maybe(tensor)
        if dimensions is None:
            raise ValueError(f"'{tensor.name}' has no known rank")
        return dimensions

    def maybe(self, tensor: Tensor) -> list[int] | None:
        """The dimensions of a tensor, ``None`` where its rank is not known."""
        if tensor not in self.dimensions:
            shape = self._shapes.shape(tensor)
            self.dimensions[tensor] = None if shape is None else [self.coupling.dimension(d) for d in shape]
        return self.dimensions[tensor]

    def length(self, dimension: int) -> int | None:
        """How many positions a dimension has, ``None`` where that is not known."""
        length = self.coupling.lengths[dimension]
        return None if length == UNKNOWN else length

    def lengths(self, tensor: Tensor) -> list[int | None]:
        """The shape of a tensor whose rank is known."""
        return [self.length(d) for d in self.of(tensor)]

    def same(self, a: int, b: int, node: Node) -> None:
        """Both dimensions are one."""
        self.coupling.same(a, b, quoted(node))

    def fix(self, dimensions: Iterable[int], reason: str) -> None:
        """None of the positions of these dimensions can be removed."""
        for dimension in dimensions:
            self.coupling.fix(dimension, reason)

    def fix_node(self, node: Node, reason: str) -> None:
        """Nothing that a node reads or computes can be cut."""
        for tensor in (*node.inputs, *node.outputs):
            if tensor.name:
                self.fix(self.maybe(tensor) or (), reason)

    def layer(self, node: Node, weight: Tensor, axis: int, role: Role) -> None:
        """Notes what an axis of a weight holds."""
        self.layers.append(LayerAxis(node, weight, axis % len(self.of(weight)), role))

    def constant(self, node: Node, place: int) -> np.ndarray | None:
        """The values of a constant input that nobody can override; ``None`` for any other, or none."""
        tensor = given(node, place)
        if not isinstance(tensor, Constant) or tensor in self._overridable:
            return None
        return tensor.values

    def integers(self, node: Node, attribute: str, place: int) -> list[int] | None:
        """A list that older opsets keep in an attribute and newer ones in an input; ``None`` where there is none, or
        it is computed."""
        value = node.attrs.get(attribute)
        if value is None:
            value = self.constant(node, place)
        return None if value is None else [int(v) for v in np.asarray(value).reshape(-1)]


def given(node: Node, place: int) -> Tensor | None:
    """The input at that place, ``None`` where it is omitted."""
    return node.inputs[place] if place < len(node.inputs) and node.inputs[place].name else None


def quoted(node: Node) -> str:
    """What reasons call a node: its name, or that of its result."""
    return f"'{node.name or node.outputs[0].name}'"


def align(wiring: Wiring, tensors: Sequence[Tensor], outputs: Sequence[Tensor], node: Node, last: int = 0) -> None:
    """Joins dimensions as broadcasting aligns them, from the right; the ``last`` axes are left out."""
    for output in outputs:
        to = wiring.of(output)
        for tensor in tensors:
            dimensions = wiring.of(tensor)
            for back in range(last + 1, len(dimensions) + 1):
                if back > len(to):
                    wiring.fix([dimensions[-back]], f"{quoted(node)} does not keep its axes")
                elif wiring.length(dimensions[-back]) != 1 or wiring.length(to[-back]) == 1:
                    wiring.same(dimensions[-back], to[-back], node)
