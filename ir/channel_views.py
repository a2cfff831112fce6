"""How channels pass through operators that only give a tensor other axes: Reshape, Flatten, Transpose and their kin.

A reshape is taken apart into the finest factors that the axes on both sides are products of: (C, H, W) to (C*H*W) has
the factors C, H and W. An axis that is one factor goes straight through; one that is several is a merge (see
:mod:`edgec.ir.coupling`).
"""

from __future__ import annotations

import numpy as np

from edgec.ir.channel_wiring import Wiring, quoted
from edgec.ir.graph import Node


def reshape(wiring: Wiring, node: Node) -> None:
    """Reshape: its target must be a constant, because a cut rewrites it."""
    if wiring.constant(node, 1) is None and "shape" not in node.attrs:
        wiring.fix_node(node, f"the shape that {quoted(node)} gives is computed when the network runs")
        return
    refactor(wiring, node, wiring.of(node.inputs[0]), wiring.of(node.outputs[0]))


def flatten(wiring: Wiring, node: Node) -> None:
    """Flatten: a reshape to two axes."""
    refactor(wiring, node, wiring.of(node.inputs[0]), wiring.of(node.outputs[0]))


def refactor(wiring: Wiring, node: Node, before: list[int], behind: list[int]) -> None:
    """Joins the axes on both sides of a reshape by their common factors."""
    lengths = wiring.coupling.lengths
    if before and behind and lengths[before[0]] == lengths[behind[0]] and wiring.length(before[0]) is None:
        # A batch of unknown size stays what it is, if the axes behind it agree on their own.
        wiring.same(before[0], behind[0], node)
        before, behind = before[1:], behind[1:]
    sizes = [[wiring.length(d) for d in side] for side in (before, behind)]
    known = [[d for d in side if d is not None] for side in sizes]
    parts = None
    if all(len(k) == len(s) and 0 not in k for k, s in zip(known, sizes, strict=True)):
        parts = factors(known[0], known[1])
    if parts is None:
        wiring.fix((*before, *behind), f"{quoted(node)} cuts its axis across channels")
        return
    pieces = [wiring.coupling.dimension(size) for size, _, _ in parts]
    for side, place in ((before, 1), (behind, 2)):
        for axis, dimension in enumerate(side):
            inside = [piece for piece, part in zip(pieces, parts, strict=True) if part[place] == axis]
            wiring.coupling.merge(dimension, inside, f"{quoted(node)} makes one axis of several")


def factors(before: list[int], behind: list[int]) -> list[tuple[int, int, int]] | None:
    """The common factors of two shapes with the same number of elements, each with its axis on both sides.

    ``None`` where an axis ends in the middle of another and neither divides the other: (6, 4) to (4, 6).
    """
    found: list[tuple[int, int, int]] = []
    left, right = 0, 0
    rest_left, rest_right = 1, 1
    while True:
        while rest_left == 1 and left < len(before):
            rest_left, left = before[left], left + 1
        while rest_right == 1 and right < len(behind):
            rest_right, right = behind[right], right + 1
        if rest_left == 1 or rest_right == 1:
            return found if rest_left == rest_right else None
        size = min(rest_left, rest_right)
        if max(rest_left, rest_right) % size:
            return None
        found.append((size, left - 1, right - 1))
        rest_left //= size
        rest_right //= size


def transpose(wiring: Wiring, node: Node) -> None:
    """Transpose: axes in another order."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    order = node.attrs.get("perm") or list(reversed(range(len(before))))
    for axis, source in enumerate(order):
        wiring.same(before[int(source)], behind[axis], node)


def squeeze(wiring: Wiring, node: Node) -> None:
    """Squeeze: axes of length 1 go."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    axes = wiring.integers(node, "axes", 1)
    if axes is None and len(node.inputs) > 1 and node.inputs[1].name:
        wiring.fix_node(node, f"the axes of {quoted(node)} are computed when the network runs")
        return
    if axes is None:
        gone = {axis for axis, dimension in enumerate(before) if wiring.length(dimension) == 1}
    else:
        gone = {axis % len(before) for axis in axes}
    kept = [dimension for axis, dimension in enumerate(before) if axis not in gone]
    wiring.fix((before[axis] for axis in gone), f"{quoted(node)} removes the axis")
    _pairwise(wiring, node, kept, behind)


def unsqueeze(wiring: Wiring, node: Node) -> None:
    """Unsqueeze: new axes of length 1."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    axes = wiring.integers(node, "axes", 1)
    if axes is None:
        wiring.fix_node(node, f"the axes of {quoted(node)} are computed when the network runs")
        return
    new = {axis % len(behind) for axis in axes}
    _pairwise(wiring, node, before, [d for axis, d in enumerate(behind) if axis not in new])


def _pairwise(wiring: Wiring, node: Node, before: list[int], behind: list[int]) -> None:
    if len(before) != len(behind):
        wiring.fix((*before, *behind), f"{quoted(node)} does not keep its axes")
        return
    for a, b in zip(before, behind, strict=True):
        wiring.same(a, b, node)


def depth_to_space(wiring: Wiring, node: Node) -> None:
    """DepthToSpace: channels are (b, b, C) in the mode DCR and (C, b, b) in the mode CRD."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    block = [wiring.coupling.dimension(int(node.attrs["blocksize"])) for _ in range(2)]
    crd = node.attrs.get("mode", "DCR") == "CRD"
    _blocks(wiring, node, before, behind, [behind[1], *block] if crd else [*block, behind[1]], before[1], block)


def space_to_depth(wiring: Wiring, node: Node) -> None:
    """SpaceToDepth: channels become (b, b, C)."""
    before, behind = wiring.of(node.inputs[0]), wiring.of(node.outputs[0])
    block = [wiring.coupling.dimension(int(node.attrs["blocksize"])) for _ in range(2)]
    _blocks(wiring, node, before, behind, [*block, before[1]], behind[1], block)


def _blocks(
    wiring: Wiring, node: Node, before: list[int], behind: list[int], parts: list[int], whole: int, block: list[int]
) -> None:
    reason = f"{quoted(node)} moves blocks between channels and space"
    wiring.same(before[0], behind[0], node)
    wiring.fix((*before[2:], *behind[2:], *block), reason)
    lengths = [wiring.length(part) for part in parts]
    if None in lengths or wiring.length(whole) != int(np.prod([n or 0 for n in lengths])):
        wiring.fix((*parts, whole), reason)
        return
    wiring.coupling.merge(whole, parts, reason)
