"""Whether a graph is still what a copy of it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor


def unchanged(before: Graph, graph: Graph) -> bool:
    """Whether nothing was changed in ``graph`` since ``before`` was copied from it.

    Weights are told by the array that holds them, not by their content: nothing is read. A graph that was changed and
    changed back may count as changed.
    """
    twins: dict[Tensor, Tensor] = {}
    return _same_graph(before, graph, twins)


def _same_graph(before: Graph, graph: Graph, twins: dict[Tensor, Tensor]) -> bool:
    return (
        len(before.nodes) == len(graph.nodes)
        and before.opsets == graph.opsets
        and before.metadata == graph.metadata
        and _same_tensors(before.inputs, graph.inputs, twins)
        and all(_same_node(old, new, twins) for old, new in zip(before.nodes, graph.nodes, strict=True))
        and _same_tensors(before.outputs, graph.outputs, twins)
    )


def _same_node(old: Node, new: Node, twins: dict[Tensor, Tensor]) -> bool:
    return (
        (old.op, old.domain, old.name) == (new.op, new.domain, new.name)
        and old.attrs.keys() == new.attrs.keys()
        and _same_tensors(old.inputs, new.inputs, twins)
        and all(_same_attribute(value, new.attrs[key], twins) for key, value in old.attrs.items())
        and _same_tensors(old.outputs, new.outputs, twins)
    )


def _same_tensors(old: Sequence[Tensor], new: Sequence[Tensor], twins: dict[Tensor, Tensor]) -> bool:
    return len(old) == len(new) and all(_same_tensor(a, b, twins) for a, b in zip(old, new, strict=True))


def _same_tensor(old: Tensor, new: Tensor, twins: dict[Tensor, Tensor]) -> bool:
    if old in twins:
        return twins[old] is new
    twins[old] = new
    if old.name != new.name or type(old) is not type(new):
        return False
    if isinstance(old, Constant) and isinstance(new, Constant):
        return _same_array(old.held, new.held)
    return old.dtype == new.dtype and old.shape == new.shape


def _same_array(old: Any, new: Any) -> bool:
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):  # a copy is a view of the same memory
        place, other = old.__array_interface__, new.__array_interface__
        return all(place[key] == other[key] for key in ("data", "shape", "typestr", "strides"))
    return old is new


def _same_attribute(old: Any, new: Any, twins: dict[Tensor, Tensor]) -> bool:
    if isinstance(old, Graph):
        return isinstance(new, Graph) and _same_graph(old, new, twins)
    if isinstance(old, Constant):
        return isinstance(new, Constant) and _same_array(old.held, new.held)
    if isinstance(old, np.ndarray):
        return isinstance(new, np.ndarray) and np.array_equal(old, new)
    if isinstance(old, list):
        return (
            isinstance(new, list)
            and len(old) == len(new)
            and all(_same_attribute(a, b, twins) for a, b in zip(old, new, strict=True))
        )
    return bool(old == new)
