"""Positions along the axes of tensors, and which of them must be kept or removed together.

Every axis of every tensor is a *dimension*, known by a number. Operators say three things about dimensions:

- ``same``: position i of the one is position i of the other, for all i (what an activation does to its input);
- ``join``: some positions of the one are some of the other (Concat, Slice, Gather, Pad);
- ``merge``: one dimension is the row-major product of several, its *factors* (what Reshape does, and what the channels
  of a grouped convolution are: the groups, times the places inside each).

A position of a product can only be removed along one factor, or what is left is no product any more: a Flatten of
channels, height and width loses channels; the channels of a shuffle lose the same place in each of its groups. Which
factor carries a merge is settled in :meth:`Coupling.settle`: one that nothing fixes, and of several the first in the
order that the operator prefers. The other factors are fixed by that.

Dimensions that are the ``same`` share one block of vertices, so that vertices do not grow with the depth of a network;
the rest are edges between blocks, and the units are the connected components. Time and memory are linear in the number
of dimensions and edges, but for the near-constant factor of the union by size.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNKNOWN = -1


@dataclass
class _Merge:
    """``whole`` is the row-major product of ``factors``; of several that could carry it the first in ``order`` does."""

    whole: int
    factors: tuple[int, ...]
    order: tuple[int, ...]
    reason: str
    carrier: int | None = None
    settled: bool = False


class Coupling:
    """The dimensions of one graph, and what operators said about them."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._parent: list[int] = []
        self._size: list[int] = []
        self._joins: list[tuple[int, np.ndarray, int, np.ndarray]] = []
        self._fixed: list[tuple[int, np.ndarray | None, str]] = []
        self._merges: list[_Merge] = []

    def dimension(self, length: int | None) -> int:
        """A new dimension; ``None`` for a length that is not known."""
        self.lengths.append(UNKNOWN if length is None else length)
        self._parent.append(len(self._parent))
        self._size.append(1)
        return len(self.lengths) - 1

    # -- what operators say -----------------------------------------------------------------------------------------

    def same(self, a: int, b: int, node: str = "a node") -> None:
        """Position i of ``a`` is position i of ``b``; where the lengths cannot be compared, both are fixed."""
        if self.lengths[a] != self.lengths[b]:
            for dimension in (a, b):
                self.fix(dimension, f"its width is not known on both sides of {node}")
            return
        a, b = self.root(a), self.root(b)
        if a == b:
            return
        if self._size[a] < self._size[b]:
            a, b = b, a
        self._parent[b] = a
        self._size[a] += self._size[b]

    def join(self, a: int, at_a: np.ndarray, b: int, at_b: np.ndarray) -> None:
        """Position ``at_a[i]`` of ``a`` is position ``at_b[i]`` of ``b``."""
        if len(at_a):
            self._joins.append((a, at_a, b, at_b))

    def merge(self, whole: int, factors: Sequence[int], reason: str, prefer: Sequence[int] | None = None) -> None:
        """``whole`` is the row-major product of ``factors``.

        Args:
            whole: the product.
            factors: outermost first.
            reason: why a factor that does not carry the merge cannot be cut.
            prefer: the factors, best carrier first; by default the innermost, which is where the channels of a group
                lie in a channel shuffle.
        """
        wide = [f for f in factors if self.lengths[f] != 1]
        if len(wide) == 1:
            self.same(whole, wide[0], reason)
        elif wide:
            order = tuple(f for f in (prefer or list(reversed(wide))) if f in wide)
            self._merges.append(_Merge(whole, tuple(wide), order, reason))

    def fix(self, dimension: int, reason: str, positions: np.ndarray | None = None) -> None:
        """Nothing of ``dimension`` (or nothing of ``positions`` of it) can be removed. The first reason is kept."""
        self._fixed.append((dimension, positions, reason))

    # -- what follows from it ---------------------------------------------------------------------------------------

    def root(self, dimension: int) -> int:
        """The dimension that stands for all that are the same as this one."""
        parent = self._parent
        while parent[dimension] != dimension:
            parent[dimension] = parent[parent[dimension]]
            dimension = parent[dimension]
        return dimension

    def settle(self) -> Units:
        """Chooses the factor that carries each merge and finds the units."""
        blocks = self._blocks()
        if self._merges:
            self._choose(self._wholly_fixed(blocks))
            reasons: dict[int, str] = {}
            for dimension, positions, reason in self._fixed:
                if positions is None:
                    reasons.setdefault(self.root(dimension), reason)
            for merge in self._merges:
                # Where the product is fixed by what stands around it, that is the reason, not the merge.
                reason = (
                    merge.reason if merge.carrier is not None else reasons.get(self.root(merge.whole), merge.reason)
                )
                for factor in merge.factors:
                    if factor != merge.carrier:
                        self.fix(factor, reason)
                if merge.carrier is None:
                    self.fix(merge.whole, reason)
                    continue
                inner = merge.factors[merge.factors.index(merge.carrier) + 1 :]
                positions = np.arange(self.lengths[merge.whole])
                step = math.prod(self.lengths[f] for f in inner)
                self.join(merge.whole, positions, merge.carrier, positions // step % self.lengths[merge.carrier])
        return Units(self, blocks, *self._components(blocks))

    def _blocks(self) -> dict[int, int]:
        """Where the vertices of each root begin."""
        blocks: dict[int, int] = {}
        end = 0
        for dimension, length in enumerate(self.lengths):
            if self._parent[dimension] == dimension and length > 0:
                blocks[dimension] = end
                end += length
        self._vertices = end
        return blocks

    def _components(self, blocks: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The component of each vertex, and by component the place of its first reason in ``_fixed`` (or -1)."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        left: list[np.ndarray] = []
        right: list[np.ndarray] = []
        for a, at_a, b, at_b in self._joins:
            left.append(at_a + blocks[self.root(a)])
            right.append(at_b + blocks[self.root(b)])
        rows = np.concatenate(left) if left else np.zeros(0, np.int64)
        columns = np.concatenate(right) if right else np.zeros(0, np.int64)
        shape = (self._vertices, self._vertices)
        links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape)
        count, labels = connected_components(links, directed=False) if self._vertices else (0, np.zeros(0, np.int32))
        reasons = np.full(count, len(self._fixed))
        whole: set[int] = set()
        for place, (dimension, positions, _) in enumerate(self._fixed):
            root = self.root(dimension)
            if root not in blocks or root in whole:
                continue
            start = blocks[root]
            if positions is None:
                whole.add(root)
                touched = labels[start : start + self.lengths[root]]
            else:
                touched = labels[start + positions]
            np.minimum.at(reasons, touched, place)
        reasons[reasons == len(self._fixed)] = -1
        return labels, reasons

    def _wholly_fixed(self, blocks: dict[int, int]) -> set[int]:
        """Roots of which no position can be removed, by what is known before any merge is settled."""
        labels, reasons = self._components(blocks)
        fixed = reasons >= 0
        return {root for root, start in blocks.items() if fixed[labels[start : start + self.lengths[root]]].all()}

    def _choose(self, fixed: set[int]) -> None:
        """Settles every merge; ``fixed`` grows by the factors that carry none."""
        watchers: dict[int, list[_Merge]] = {}
        for merge in self._merges:
            for dimension in (merge.whole, *merge.factors):
                watchers.setdefault(self.root(dimension), []).append(merge)
        pending = deque(self._merges)

        def mark(dimension: int) -> None:
            root = self.root(dimension)
            if root not in fixed:
                fixed.add(root)
                pending.extend(watchers.get(root, ()))

        def settle(merge: _Merge, carrier: int | None) -> None:
            merge.settled, merge.carrier = True, carrier
            for factor in merge.factors:
                if factor != carrier:
                    mark(factor)
            if carrier is None:
                mark(merge.whole)

        for undecided in [*self._merges, None]:
            while pending:
                merge = pending.popleft()
                free = [f for f in merge.order if self.root(f) not in fixed]
                whole_fixed = self.root(merge.whole) in fixed
                if merge.settled:
                    if whole_fixed and merge.carrier is not None:
                        mark(merge.carrier)
                    elif not free:
                        mark(merge.whole)
                elif whole_fixed or not free:
                    settle(merge, None)
                elif len(free) == 1:
                    settle(merge, free[0])
            if undecided is not None and not undecided.settled:
                free = [f for f in undecided.order if self.root(f) not in fixed]
                settle(undecided, free[0])


class Units:
    """What :meth:`Coupling.settle` found: the unit of every position, and why a unit cannot be removed."""

    def __init__(self, coupling: Coupling, blocks: dict[int, int], labels: np.ndarray, reasons: np.ndarray) -> None:
        self._coupling = coupling
        self._blocks = blocks
        self._labels = labels
        self._reasons = reasons
        self.fixed: np.ndarray = reasons >= 0
        self.count = len(reasons)

    def of(self, dimension: int) -> np.ndarray:
        """The units along a dimension; empty where its length is not known."""
        root = self._coupling.root(dimension)
        start = self._blocks.get(root)
        return self._labels[:0] if start is None else self._labels[start : start + self._coupling.lengths[root]]

    def root(self, dimension: int) -> int:
        """A number that dimensions have in common when they are the same throughout."""
        return self._coupling.root(dimension)

    def reason(self, unit: int) -> str | None:
        """Why a unit cannot be removed."""
        place = int(self._reasons[unit])
        return self._coupling._fixed[place][2] if place >= 0 else None
