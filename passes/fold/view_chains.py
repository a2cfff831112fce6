"""Reshapes and Transposes in a row, written as the fewest of them that move the elements alike.

The dimensions are taken apart into factors that every node of the chain keeps whole. Then the chain is an order of
factors: none but the identity needs a Transpose, and a Reshape stands in front of it or behind it only where factors
that stay together, or dimensions of 1, are not already grouped so. Squeeze, Unsqueeze and Flatten are Reshapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.transposes import permutation
from edgec.passes.framework.rewriter import Rewriter

RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
VIEWS = RESHAPES | {"Transpose"}
_LONGEST = 32


@dataclass(frozen=True)
class Step:
    """One node of a chain: ``order`` of a Transpose, or the shape that a Reshape gives."""

    shape: tuple[int, ...]
    order: tuple[int, ...] | None = None


def fold_view_chain(rw: Rewriter, node: Node, *, keep_batch: bool) -> bool:
    """Rewrites the chain of views that ends in ``node``, where fewer nodes do.

    Args:
        keep_batch: only where the samples of a batch, whichever axis of size 1 they may lie along, come out along the
            same axis as before.
    """
    follower = node.outputs[0].outputs[0] if rw.single_use(node.outputs[0]) else None
    if follower is not None and follower.op in VIEWS and follower.domain in ("", "ai.onnx"):
        return False  # the chain goes on
    chain = _chain(rw, node)
    if len(chain) < 2:
        return False
    start = rw.static(chain[0].inputs[0])
    steps = [_step(rw, one) for one in chain]
    if start is None or 0 in start or any(step is None for step in steps):
        return False
    own = [step for step in steps if step is not None]
    shortest = fewest(start, own)
    if shortest is None or len(shortest) >= len(chain):
        return False
    if keep_batch and not _same_batch_axes(start, own, shortest):
        return False
    rw.did(node, f"{len(chain)} views in a row became {len(shortest)}")
    x, kind = chain[0].inputs[0], rw.dtype(chain[0].inputs[0])
    label = node.name or node.op.lower()
    for step in shortest:
        if step.order is not None:
            x = rw.insert(
                node, "Transpose", [x], name=f"{label}.order", shape=step.shape, dtype=kind, perm=list(step.order)
            )
        else:
            shape = rw.graph.const(f"{label}.shape", np.array(step.shape, np.int64))
            x = rw.insert(node, "Reshape", [x, shape], name=f"{label}.view", shape=step.shape, dtype=kind)
    rw.replace(node, x)
    return True


def fewest(start: tuple[int, ...], steps: list[Step]) -> list[Step] | None:
    """The shortest chain that does to data of a shape what ``steps`` do; ``None`` where factors are torn apart."""
    whole = _Factors(start)
    for step in steps:
        if step.order is not None:
            whole.turn(step.order)
        elif not whole.regroup(step.shape):
            return None
    end = steps[-1].shape
    sizes, order = whole.merged()
    turned = tuple(sizes[place] for place in order)
    if order == sorted(order):
        return [] if start == end else [Step(end)]
    front, back = (tuple(size for size in shape if size != 1) for shape in (start, end))
    if front == sizes and back == turned and start.count(1) == end.count(1):
        return [Step(end, _with_ones(start, end, order))]
    if front == sizes:
        ones = (1,) * start.count(1)
        return [Step((*ones, *turned), _with_ones(start, (*ones, *turned), order)), Step(end)]
    if back == turned:
        ones = (1,) * end.count(1)
        return [Step((*ones, *sizes)), Step(end, _with_ones((*ones, *sizes), end, order))]
    return [Step(sizes), Step(turned, tuple(order)), Step(end)]


class _Factors:
    """The dimensions of data in factors: ``first`` in the order of the start, ``now`` as the chain has left them."""

    def __init__(self, start: tuple[int, ...]) -> None:
        self.sizes = {place: size for place, size in enumerate(start) if size != 1}
        self.first = list(self.sizes)
        self.now = [[place] if size != 1 else [] for place, size in enumerate(start)]

    def turn(self, order: tuple[int, ...]) -> None:
        """A Transpose."""
        self.now = [self.now[axis] for axis in order]

    def regroup(self, shape: tuple[int, ...]) -> bool:
        """A Reshape; ``False`` where a factor would have to be cut at what does not divide it."""
        left = [factor for group in self.now for factor in group]
        groups: list[list[int]] = []
        for size in shape:
            group: list[int] = []
            taken = 1
            while taken < size:
                if not left:
                    return False
                need, remainder = divmod(size, taken)
                own = self.sizes[left[0]]
                if remainder:
                    return False
                if need % own:
                    if own % need:
                        return False
                    self._split(left, need)
                group.append(left.pop(0))
                taken *= self.sizes[group[-1]]
            groups.append(group)
        self.now = groups
        return not left

    def merged(self) -> tuple[tuple[int, ...], list[int]]:
        """The sizes of what stays together, in the order of the start, and the order in which they end."""
        order = [factor for group in self.now for factor in group]
        place = {factor: i for i, factor in enumerate(self.first)}
        blocks: list[list[int]] = []
        for factor in order:
            if blocks and place[blocks[-1][-1]] + 1 == place[factor]:
                blocks[-1].append(factor)
            else:
                blocks.append([factor])
        ranks = np.argsort([place[block[0]] for block in blocks])
        sizes = tuple(prod(self.sizes[factor] for factor in blocks[rank]) for rank in ranks)
        return sizes, [int(place) for place in np.argsort(ranks)]

    def _split(self, left: list[int], size: int) -> None:
        """Cuts the first factor that is left into one of ``size`` and the rest, wherever it stands."""
        factor, rest = left[0], max(self.sizes) + 1
        self.sizes[rest] = self.sizes[factor] // size
        self.sizes[factor] = size
        for row in (self.first, left):
            row.insert(row.index(factor) + 1, rest)


def _with_ones(start: tuple[int, ...], end: tuple[int, ...], order: list[int]) -> tuple[int, ...]:
    """The order of a Transpose between two shapes with as many dimensions of 1, of which the others go by ``order``."""
    ones = iter([axis for axis, size in enumerate(start) if size == 1])
    wide = [axis for axis, size in enumerate(start) if size != 1]
    others = iter([wide[place] for place in order])
    return tuple(next(ones) if size == 1 else next(others) for size in end)


def _same_batch_axes(start: tuple[int, ...], steps: list[Step], others: list[Step]) -> bool:
    """Whether every axis of size 1 of the start that comes out of the one chain comes out of the other in its place."""
    for axis in (axis for axis, size in enumerate(start) if size == 1):
        expected = _batch_axis(start, steps, axis)
        if expected is not None and _batch_axis(start, others, axis) != expected:
            return False
    return True


def _batch_axis(shape: tuple[int, ...], steps: list[Step], axis: int) -> int | None:
    """Where samples along an axis of size 1 come out, by the rules of :mod:`edgec.ir.batch_rules`."""
    for step in steps:
        if step.order is not None:
            axis = step.order.index(axis)
        else:
            before = prod(shape[:axis])
            places = [place for place in range(len(step.shape)) if prod(step.shape[:place]) == before]
            if not places:
                return None
            axis = next((place for place in places if step.shape[place] == 1), places[0])
        shape = step.shape
    return axis


def _chain(rw: Rewriter, node: Node) -> list[Node]:
    """The views in a row that end in ``node``, first one first, each read by the next one alone."""
    chain = [node]
    while len(chain) < _LONGEST:
        tensor: Tensor = chain[0].inputs[0]
        source = producer(tensor)
        if source is None or source.op not in VIEWS or source.domain not in ("", "ai.onnx"):
            break
        if not rw.owns(source) or not rw.single_use(tensor):
            break
        chain.insert(0, source)
    return chain


def _step(rw: Rewriter, node: Node) -> Step | None:
    shape = rw.static(node.outputs[0])
    if shape is None:
        return None
    if node.op != "Transpose":
        return Step(shape)
    order = permutation(rw, node)
    return None if order is None else Step(shape, tuple(order))
