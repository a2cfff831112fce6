"""Scales that must be equal, and scales that are prescribed, solved together.

Kernels that only move values need one scale for what they read and what they write; a few others have their output's
scale prescribed by the target. Tensors tied to each other form groups (union-find); a group takes the range that holds
all of its members, or the prescribed scale of one. Where a prescribed scale cannot hold a tensor that would be tied to
it, that tie is not made: the tensor is requantized on its way instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgec.ir.graph import Node, Tensor
from edgec.passes.quantization.ranges import Parameters, Range, parameters
from edgec.passes.target import Scheme


@dataclass(eq=False)
class Activation:
    """A tensor that is quantized with one scale; a constant counts once for each operator that reads it.

    Attributes:
        tensor: the tensor.
        values: its range.
        prescribed: the scale and zero-point that it must have; ``None`` where that is free.
    """

    tensor: Tensor
    values: Range
    prescribed: Parameters | None = None


@dataclass(frozen=True, eq=False)
class Tie:
    """A node whose activations must have one scale: ``members``, outputs first."""

    node: Node
    members: Sequence[Activation]


def solve(
    activations: Iterable[Activation], ties: Iterable[Tie], scheme: Scheme
) -> tuple[dict[Activation, Parameters], list[tuple[Node, Activation]]]:
    """Scales and zero-points that satisfy ties and prescriptions.

    Returns:
        The integers of each activation, and the ties that were not made.
    """
    groups = _Groups(activations)
    broken: list[tuple[Node, Activation]] = []
    for tie in ties:
        first, *others = tie.members
        broken += [(tie.node, other) for other in others if not groups.tie(first, other)]
    chosen: dict[Activation, Parameters] = {}
    for activation in groups.parent:
        root = groups.root(activation)
        if root not in chosen:
            prescribed = groups.prescribed[root]
            chosen[root] = prescribed or parameters(groups.values[root], scheme.activations, symmetric=scheme.symmetric)
        chosen[activation] = chosen[root]
    return chosen, broken


class _Groups:
    """Union-find over activations; each root knows its group's range and prescription."""

    def __init__(self, activations: Iterable[Activation]) -> None:
        self.parent = {activation: activation for activation in activations}
        self.values = {a: a.prescribed.range if a.prescribed else a.values for a in self.parent}
        self.prescribed = {a: a.prescribed for a in self.parent}

    def root(self, activation: Activation) -> Activation:
        """The representative of its group."""
        root = activation
        while self.parent[root] is not root:
            root = self.parent[root]
        while self.parent[activation] is not root:
            self.parent[activation], activation = root, self.parent[activation]
        return root

    def tie(self, one: Activation, other: Activation) -> bool:
        """Joins two groups; ``False`` where a prescribed scale forbids it."""
        first, second = self.root(one), self.root(other)
        if first is second:
            return True
        fixed = self.prescribed[first] or self.prescribed[second]
        rival = self.prescribed[second] or fixed
        values = self.values[first].union(self.values[second])
        if fixed is not None and (fixed != rival or not fixed.covers(values)):
            return False
        self.parent[second] = first
        self.values[first], self.prescribed[first] = values, fixed
        return True
