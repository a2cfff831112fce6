"""Which values of a tensor those that read it can tell apart.

A Softmax gives a score far below the largest of its row a share of zero, whether that is -30 or -1e4; a Relu reads
everything below 0 as 0, and a maximum whatever is less than the rest. Outside the interval that is found here nothing
changes what the network computes, so nothing is owed to it: a mask of -1e4 need not take the steps of the scores.

The interval of what a node reads follows from that of what it gives: backwards through the network, from the operators
that saturate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.passes.quantize.placement.placement import MOVES
from edgec.passes.quantize.scales.affine_parameters import Range

ALL = Range(-inf, inf)
# Beyond these a Sigmoid is within 6.2e-6 of its bounds, and a Tanh within 1.3e-5.
_SIGMOID, _TANH = 12.0, 6.0
# A factor beyond this makes a mask of what is no mask yet: the mask itself is what is bounded then.
_LARGEST_FACTOR = 100.0
_LARGEST_OF = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax"})


def distinguishable(graph: Graph, seen: Mapping[Tensor, Range], floors: Mapping[Tensor, float]) -> dict[Tensor, Range]:
    """The interval of each tensor outside of which no reader can tell values apart.

    Args:
        graph: sorted; not changed.
        seen: the values that tensors take, constants too; what is not in it may be anything.
        floors: by what a Softmax reads, the value below which all scores get a share of zero.
    """
    outer = set(graph.nodes)
    intervals: dict[Tensor, Range] = {}
    kept = {tensor for one in graph.graphs() for tensor in one.outputs}

    def of(tensor: Tensor) -> Range:
        opaque = tensor in kept or any(reader not in outer for reader in tensor.outputs)
        return ALL if opaque else intervals.get(tensor, ALL)

    for node in reversed(graph.nodes):
        given = of(node.outputs[0]) if node.outputs else ALL
        for other in node.outputs[1:]:
            if other.name and other.outputs:
                given = given.union(of(other)) if node.op == "Split" else ALL
        for place, tensor in enumerate(node.inputs):
            if tensor.name:
                own = _read(_Use(node, place, given, seen, floors))
                intervals[tensor] = intervals[tensor].union(own) if tensor in intervals else own
    return {tensor: of(tensor) for tensor in intervals}


@dataclass(frozen=True)
class _Use:
    """One input of a node.

    Attributes:
        node, place: which.
        given: what is told apart of what the node gives.
        seen, floors: as :func:`distinguishable` takes them.
    """

    node: Node
    place: int
    given: Range
    seen: Mapping[Tensor, Range]
    floors: Mapping[Tensor, float]

    @property
    def output(self) -> Range:
        """What was seen of the node's output."""
        return self.seen.get(self.node.outputs[0], ALL)

    @property
    def other(self) -> Range:
        """What was seen of the other of two inputs."""
        return self.seen.get(self.node.inputs[1 - self.place], ALL)


def _read(use: _Use) -> Range:
    """What is told apart of an input."""
    if use.node.domain not in ("", "ai.onnx", None):
        return ALL
    if use.node.op in MOVES:
        return use.given if use.place == 0 or use.node.op == "Concat" else ALL
    rule = _RULES.get(use.node.op)
    return rule(use) if rule is not None else ALL


def _bounded(low: float, high: float) -> Callable[[_Use], Range]:
    return lambda use: Range(low, high)


def _hard_sigmoid(use: _Use) -> Range:
    slope, offset = float(use.node.attrs.get("alpha", 0.2)), float(use.node.attrs.get("beta", 0.5))
    return Range(-offset / slope, (1 - offset) / slope) if slope > 0 else ALL


def _clip(use: _Use) -> Range:
    if use.place:
        return ALL
    low, high = clip_bounds(use.node)
    return _meet(use.given, Range(low, high))


def clip_bounds(node: Node) -> tuple[float, float]:
    """The constant bounds of a Relu or Clip, infinite where there is none."""
    if node.op == "Relu":
        return 0.0, inf
    ends = [-inf, inf]
    for side, bound in enumerate(node.inputs[1:3]):
        if isinstance(bound, Constant) and bound.values.size == 1:
            ends[side] = float(bound.values.reshape(()))
    return ends[0], ends[1]


def _largest(use: _Use) -> Range:
    """What is less than the least maximum is never one."""
    return _meet(use.given, Range(use.output.low, inf)) if use.place == 0 or use.node.op == "Max" else ALL


def _least(use: _Use) -> Range:
    return _meet(use.given, Range(-inf, use.output.high)) if use.place == 0 or use.node.op == "Min" else ALL


def _sum(use: _Use) -> Range:
    """A part so low that the other one cannot lift the sum above the interval need not be lower."""
    given, other = use.given, use.other
    if use.node.op == "Add":
        return Range(given.low - other.high, given.high - other.low)
    if use.place == 0:
        return Range(given.low + other.low, given.high + other.high)
    return Range(other.low - given.high, other.high - given.low)


def _product(use: _Use) -> Range:
    other = use.node.inputs[1 - use.place]
    if not isinstance(other, Constant) or other.values.size != 1 or (use.node.op == "Div" and use.place == 1):
        return ALL
    factor = float(other.values.reshape(()))
    factor = factor if use.node.op == "Mul" or not factor else 1 / factor
    if not 1 / _LARGEST_FACTOR <= abs(factor) <= _LARGEST_FACTOR:
        return ALL
    ends = sorted((use.given.low / factor, use.given.high / factor))
    return Range(ends[0], ends[1])


def _meet(one: Range, other: Range) -> Range:
    """What lies in both; an end of one where nothing does."""
    low = max(one.low, other.low)
    return Range(low, max(low, min(one.high, other.high)))


_RULES: dict[str, Callable[[_Use], Range]] = {
    "Add": _sum,
    "Clip": _clip,
    "Div": _product,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _bounded(-3.0, inf),
    "Max": _largest,
    "Min": _least,
    "Mul": _product,
    "Neg": lambda use: Range(-use.given.high, -use.given.low),
    "ReduceMin": _least,
    "Relu": _clip,
    "Sigmoid": _bounded(-_SIGMOID, _SIGMOID),
    "Softmax": lambda use: Range(use.floors.get(use.node.inputs[0], -inf), inf),
    "Sub": _sum,
    "Tanh": _bounded(-_TANH, _TANH),
    "Where": lambda use: use.given if use.place else ALL,
    **dict.fromkeys(_LARGEST_OF, _largest),
}
