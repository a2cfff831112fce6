"""Removing the channels of coupled groups from a graph: weights are sliced, and what depends on widths is corrected.

A cut is exact: what is left computes what the network computed with the removed channels set to zero where layers read
them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.ir.channels import Group
from edgec.ir.graph import Constant, Graph, Variable
from edgec.passes.prune.kept import Kept
from edgec.passes.prune.width_attributes import CORRECTIONS, GROUPED

__all__ = ["cut", "spare"]


def cut(graph: Graph, plan: Mapping[Group, np.ndarray]) -> None:
    """Removes units of groups in place; the signature stays.

    Several groups at once come out as one after the other would. The groups are the graph's as it is: ask for
    :class:`~edgec.ir.channels.Channels` again behind every cut (a pass calls ``ctx.changed()`` first).

    Args:
        graph: what is cut.
        plan: by group, which of its units are kept; bool, shape (width,).

    Raises:
        ValueError: a mask is no bool array of the group's width; a group that is fixed would lose a unit; a tensor
            would be left without a channel (:func:`spare` makes a mask that cannot do that). The graph is then as it
            was.
    """
    kept = _kept(plan)
    constants = [tensor for tensor in kept.tensors() if isinstance(tensor, Constant)]
    corrected = [node for node in graph.nodes if node.op in CORRECTIONS and kept.touches_node(node)]
    if any(node.op not in GROUPED for node in corrected):
        kept.read_shapes(graph)
    for node in corrected:
        CORRECTIONS[node.op](graph, node, kept)
    for constant in constants:
        constant.values = _sliced(constant.values, kept.axes(constant))
    for tensor in kept.tensors():
        if isinstance(tensor, Variable) and tensor.shape is not None:
            for axis, mask in kept.axes(tensor).items():
                tensor.shape[axis] = int(mask.sum())


def spare(group: Group, keep: np.ndarray, scores: np.ndarray | None = None) -> np.ndarray:
    """``keep`` with the units added that no tensor could do without.

    Where a split or a slice takes part of a group, removing all of that part would leave a tensor without channels:
    of each such part the unit with the highest score is kept.

    Args:
        group: whose units they are.
        keep: which are kept, bool, shape (width,).
        scores: how much each unit matters, shape (width,); by default the first matters most.
    """
    keep = np.array(keep, bool)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable") if scores is not None else np.arange(group.width)
    rank = np.empty(group.width, np.int64)
    rank[order] = np.arange(group.width)
    for index in _indices(group):
        present = index[index >= 0]
        if not keep[present].any():
            keep[present[np.argmin(rank[present])]] = True
    return keep


def _indices(group: Group) -> list[np.ndarray]:
    """Each distinct way in which its units lie along an axis, the shortest first."""
    indices = [*(slot.index for slot in group.slots), *(carrier.index for carrier in group.carriers)]
    found = {id(index): index for index in indices}
    return sorted(found.values(), key=len)


def _kept(plan: Mapping[Group, np.ndarray]) -> Kept:
    kept = Kept()
    for group, keep in plan.items():
        if keep.dtype != bool or keep.shape != (group.width,):
            raise ValueError(f"group '{group.name}': its mask must be bool of shape ({group.width},)")
        if keep.all():
            continue
        if group.fixed is not None:
            raise ValueError(f"group '{group.name}' cannot be cut: {group.fixed}")
        for slot in group.slots:
            kept.restrict(slot.constant, slot.axis, slot.index, keep)
        for carrier in group.carriers:
            kept.restrict(carrier.tensor, carrier.axis, carrier.index, keep)
    for tensor in kept.tensors():
        for axis, mask in kept.axes(tensor).items():
            if not mask.any():
                raise ValueError(f"'{tensor.name}' would have no channel left on axis {axis}")
    return kept


def _sliced(values: np.ndarray, axes: Mapping[int, np.ndarray]) -> np.ndarray:
    for axis, mask in sorted(axes.items(), key=lambda item: float(item[1].mean())):
        values = np.compress(mask, values, axis=axis)
    return np.ascontiguousarray(values)
