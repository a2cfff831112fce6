"""What a network costs when groups have lost units: exactly what :class:`edgec.ir.cost.Cost` counts behind the cut.

Every weight and every layer costs a product of lengths of axes, and a length falls with the units that lie along it.
A unit of one group is cheaper to keep the more of the groups that it meets has gone; so nothing here is a constant
price a unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from edgec.ir.channels import Channels, Group
from edgec.ir.cost import is_weight
from edgec.ir.graph import Graph, Node, Tensor
from edgec.ir.shapes import Shapes

Unit = Literal["params", "macs"]


class _Length:
    """The length of an axis: what it has without the groups, and by group what is left when k units have gone."""

    def __init__(self, whole: int, parts: dict[int, np.ndarray]) -> None:
        self.whole = whole
        self.parts = parts

    def at(self, removed: Sequence[int]) -> int:
        return self.whole - sum(int(lost[removed[group]]) for group, lost in self.parts.items())

    def among(self, removed: Sequence[int], instead: Mapping[int, np.ndarray]) -> np.ndarray | int:
        """As :meth:`at`, with arrays of numbers, which broadcast, for some groups."""
        return self.whole - sum(lost[instead.get(group, removed[group])] for group, lost in self.parts.items())


class Costs:
    """The cost of a graph as a function of how many units each group has lost, in the groups' orders.

    Args:
        graph: as it is before the cut.
        shapes, channels: of it.
        groups: those that may be cut.
        orders: of each group, its units in the order in which they go (those that never go may be left out).
        unit: what is counted.
        new_biases: outputs of layers that will get a bias, which is as many parameters more.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Shapes,
        channels: Channels,
        groups: Sequence[Group],
        orders: Sequence[np.ndarray],
        unit: Unit,
        new_biases: Sequence[tuple[Tensor, int]] = (),
    ) -> None:
        self._shapes, self._channels = shapes, channels
        self._number = {group: number for number, group in enumerate(groups)}
        self._orders = orders
        self._lengths: dict[tuple[Tensor, int], _Length] = {}
        self._terms: list[list[_Length]] = []
        self._fixed = 0
        if unit == "params":
            for constant in graph.constants():
                if is_weight(constant):
                    self._add([(constant, axis) for axis in range(len(constant.shape))])
            for tensor, axis in new_biases:
                self._add([(tensor, axis)])
        else:
            for node in graph.nodes:
                self._add(self._factors(node))
        self._of: list[list[int]] = [[] for _ in groups]
        for number, term in enumerate(self._terms):
            for group in sorted({group for length in term for group in length.parts}):
                self._of[group].append(number)
        self.neighbours = [
            sorted({other for term in own for length in self._terms[term] for other in length.parts})
            for own in self._of
        ]

    def total(self, removed: Sequence[int]) -> int:
        """The network's cost when group i has lost its first ``removed[i]`` units."""
        return self._fixed + sum(self._product(term, removed) for term in self._terms)

    def saved(self, removed: Sequence[int], group: int, more: int) -> int:
        """What falls away when ``group`` goes on to ``more`` lost units, all others as they are."""
        after = list(removed)
        after[group] = more
        terms = [self._terms[number] for number in self._of[group]]
        return sum(self._product(term, removed) - self._product(term, after) for term in terms)

    def of_pair(self, removed: Sequence[int], pair: tuple[int, int], lost: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """The network's cost when two groups have lost other numbers of units, all others as they are.

        Args:
            removed: of each group, as in :meth:`total`.
            pair: two groups.
            lost: numbers of lost units to look at, (m,) of the first and (n,) of the second.

        Returns:
            (m, n), int64.
        """
        moving = [self._terms[number] for number in sorted({*self._of[pair[0]], *self._of[pair[1]]})]
        fixed = self.total(removed) - sum(self._product(term, removed) for term in moving)
        instead = {pair[0]: lost[0][:, None], pair[1]: lost[1][None, :]}
        cost = np.full((len(lost[0]), len(lost[1])), fixed, np.int64)
        for term in moving:
            cost += math.prod(length.among(removed, instead) for length in term)
        return cost

    def _product(self, term: list[_Length], removed: Sequence[int]) -> int:
        return math.prod(length.at(removed) for length in term)

    def _add(self, axes: list[tuple[Tensor, int]]) -> None:
        if not axes:
            return
        term = [self._length(tensor, axis) for tensor, axis in axes]
        fixed = math.prod(length.whole for length in term if not length.parts)
        moving = [length for length in term if length.parts]
        if moving:
            self._terms.append([_Length(fixed, {}), *moving])
        else:
            self._fixed += fixed

    def _length(self, tensor: Tensor, axis: int) -> _Length:
        if (tensor, axis) not in self._lengths:
            shape = self._shapes.shape(tensor)
            whole = 1 if shape is None or shape[axis] is None else int(shape[axis] or 0)
            parts = {}
            for group, at, index in self._channels.of(tensor):
                number = self._number.get(group)
                if at == axis and number is not None:
                    lost = np.bincount(index[index >= 0], minlength=group.width)[self._orders[number]]
                    parts[number] = np.concatenate([[0], np.cumsum(lost)])
            self._lengths[tensor, axis] = _Length(whole, parts)
        return self._lengths[tensor, axis]

    def _factors(self, node: Node) -> list[tuple[Tensor, int]]:
        """The axes whose lengths multiply to a node's multiply-accumulates."""
        if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            return []
        data, weight, out = node.inputs[0], node.inputs[1], node.outputs[0]
        around, inner = (data if node.op == "ConvTranspose" else out), data if node.op in ("Gemm", "MatMul") else weight
        shapes = [self._shapes.shape(tensor) for tensor in (around, inner)]
        if any(not shape or None in shape for shape in shapes):
            return []  # not counted there either
        ranks = [len(shape or ()) for shape in shapes]
        if inner is weight:
            axes = list(range(1, ranks[1]))
        else:
            axes = [0 if node.attrs.get("transA") else ranks[1] - 1]
        return [*((around, axis) for axis in range(ranks[0])), *((inner, axis) for axis in axes)]
