"""Scales that must be equal, scales that should be, and scales that are prescribed, solved together.

Kernels that only move values need one scale for what they read and what they write; a few others have their output's
scale prescribed by the target. Tensors tied to each other form groups (union-find); a group takes the range that holds
all of its members, or the prescribed scale of one. Where a prescribed scale cannot hold a tensor that would be tied to
it, that tie is not made: the tensor is requantized on its way instead.

Other ties only spare a rounding, or an operator: a join's parts that have its scale need not be requantized, and what
is multiplied by a number keeps its integers where the scales are in that proportion. Such a tie is made where it
leaves every member enough of its steps, those that cost least first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from edgec.ir.graph import Node, Tensor
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.scales.affine_parameters import Parameters, Range, parameters

# Prescriptions that differ by no more than rounding of their product are one.
_SAME = 1e-6


@dataclass(eq=False)
class Activation:
    """A tensor that is quantized with one scale; a constant counts once for each operator that reads it.

    Attributes:
        tensor: the tensor.
        values: its range.
        prescribed: the scale and zero-point that it must have; ``None`` where that is free.
        finest: the width of the range whose steps its readers can use, where that is not its own: what is only joined
            with larger parts needs no finer steps than the join has.
    """

    tensor: Tensor
    values: Range
    prescribed: Parameters | None = None
    finest: float | None = None


@dataclass(frozen=True, eq=False)
class Tie:
    """A node whose activations must have one scale: ``members``, outputs first.

    Attributes:
        ratio: the first member's scale is so many times that of the others.
        widest: ``None`` for a tie that the kernel needs. Else it is made where no member gets steps more than so many
            times as wide as its readers can use.
    """

    node: Node
    members: Sequence[Activation]
    ratio: float = 1.0
    widest: float | None = None


@dataclass(frozen=True)
class Solution:
    """Scales and zero-points.

    Attributes:
        chosen: the integers of each activation.
        broken: ties that a kernel needs and a prescribed scale forbids: by node, the input.
        apart: parts of joins that keep their finer scales: by node, the input.
    """

    chosen: dict[Activation, Parameters]
    broken: list[tuple[Node, Activation]] = field(default_factory=list)
    apart: list[tuple[Node, Activation]] = field(default_factory=list)


def solve(activations: Iterable[Activation], ties: Iterable[Tie], scheme: Scheme) -> Solution:
    """Scales and zero-points that satisfy ties and prescriptions."""
    groups = _Groups(activations)
    solution = Solution({})
    soft: list[tuple[float, Tie, float]] = []
    for tie in ties:
        first, *others = tie.members
        if tie.widest is not None:
            soft.append((groups.harm(first, others[0], tie.ratio), tie, tie.widest))
            continue
        solution.broken.extend((tie.node, other) for other in others if not groups.tie(first, other))
    for _, tie, widest in sorted(soft, key=lambda item: item[0]):
        first, other = tie.members
        together = groups.root(first)[0] is groups.root(other)[0]  # in another proportion, where that is not allowed
        if not groups.allows(first, other, tie.ratio):
            (solution.apart if together else solution.broken).append((tie.node, other))
        elif groups.harm(first, other, tie.ratio) > widest:
            solution.apart.append((tie.node, other))
        else:
            groups.tie(first, other, tie.ratio)
    by_root: dict[Activation, Parameters] = {}
    for activation in groups.parent:
        root, factor = groups.root(activation)
        if root not in by_root:
            prescribed = groups.prescribed[root]
            values = groups.values[root]
            by_root[root] = prescribed or parameters(values, scheme.activations, symmetric=scheme.symmetric)
        own = by_root[root]
        scale = own.scale if factor == 1.0 else float(np.float32(own.scale * factor))
        solution.chosen[activation] = activation.prescribed or Parameters(scale, own.zero_point, own.dtype)
    return solution


class _Groups:
    """Union-find over activations; each root knows its group's range and prescription, in its own unit.

    A value of an activation is its factor times the value of the root that has the same integer.
    """

    def __init__(self, activations: Iterable[Activation]) -> None:
        self.parent = {activation: activation for activation in activations}
        self.factor = dict.fromkeys(self.parent, 1.0)
        self.values = {a: a.prescribed.range if a.prescribed else a.values for a in self.parent}
        self.prescribed = {a: a.prescribed for a in self.parent}
        self.finest = {a: a.finest if a.finest is not None else a.values.width or inf for a in self.parent}

    def root(self, activation: Activation) -> tuple[Activation, float]:
        """The representative of its group, and the activation's factor."""
        root, factor = activation, 1.0
        while self.parent[root] is not root:
            factor *= self.factor[root]
            root = self.parent[root]
        left = factor
        while self.parent[activation] is not root and activation is not root:
            own = self.factor[activation]
            following = self.parent[activation]
            self.parent[activation], self.factor[activation] = root, left
            activation, left = following, left / own
        return root, factor

    def harm(self, one: Activation, other: Activation, ratio: float = 1.0) -> float:
        """How many times wider than its readers can use the steps of a member become if two groups are joined."""
        (first, own), (second, others) = self.root(one), self.root(other)
        if first is second:
            return 1.0
        relative = ratio * others / own
        union = self.values[first].union(self.values[second].times(relative))
        return union.width / min(self.finest[first], self.finest[second] * relative)

    def allows(self, one: Activation, other: Activation, ratio: float = 1.0) -> bool:
        """Whether prescriptions let ``one`` be ``ratio`` times ``other``, and hold the values of both groups."""
        (first, own), (second, others) = self.root(one), self.root(other)
        relative = ratio * others / own
        if first is second:
            return abs(relative - 1) <= _SAME
        moved = _times(self.prescribed[second], relative)
        fixed = self.prescribed[first] or moved
        values = self.values[first].union(self.values[second].times(relative))
        return fixed is None or (_agree(fixed, moved) and fixed.covers(values))

    def tie(self, one: Activation, other: Activation, ratio: float = 1.0) -> bool:
        """Joins two groups so that ``one`` is ``ratio`` times ``other``; ``False`` where a prescription forbids it."""
        if not self.allows(one, other, ratio):
            return False
        (first, own), (second, others) = self.root(one), self.root(other)
        if first is second:
            return True
        relative = ratio * others / own
        self.values[first] = self.values[first].union(self.values[second].times(relative))
        self.prescribed[first] = self.prescribed[first] or _times(self.prescribed[second], relative)
        self.finest[first] = min(self.finest[first], self.finest[second] * relative)
        # A value of the second root is 1 / relative of the first root's with the same integer.
        self.parent[second], self.factor[second] = first, 1 / relative
        return True


def _times(by: Parameters | None, factor: float) -> Parameters | None:
    if by is None or factor == 1.0:
        return by
    return Parameters(float(np.float32(by.scale * factor)), by.zero_point, by.dtype)


def _agree(one: Parameters, other: Parameters | None) -> bool:
    if other is None:
        return True
    return one.zero_point == other.zero_point and abs(one.scale - other.scale) <= _SAME * one.scale
