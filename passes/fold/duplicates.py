"""What is computed twice from the same is computed once, and weights that are the same are kept once.

Two nodes compute the same where operator, attributes and what they read are the same, in any order for operators that
commute. Nothing is shared with what is random, or with what has graphs inside.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.stored import Stored
from edgec.passes.framework.context import Context

_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
_COMMUTE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal", "Sum", "Mean"})
# Weights are compared from so many bytes on: below it the file gains nothing.
_LEAST_BYTES = 64


def share_duplicates(graph: Graph, ctx: Context, *, weights: bool) -> int:
    """Rewrites a sorted graph in place; returns how many nodes and weights are gone.

    Outputs of the model keep their names: of two nodes that both compute one, both stay.

    Args:
        graph: sorted.
        ctx: is told what is shared.
        weights: whether weights that are equal are kept once, too.
    """
    gone = _share_weights(graph, ctx) if weights else 0
    outputs = set(graph.outputs)
    first: dict[Hashable, Node] = {}
    for node in list(graph.nodes):
        if node.op in _RANDOM or any(node.subgraphs()) or node.op == "Dropout":
            continue
        key = (node.op, node.domain, _reads(node), _attributes(node), tuple(bool(t.name) for t in node.outputs))
        earlier = first.setdefault(key, node)
        if earlier is node or any(tensor in outputs for tensor in node.outputs):
            continue
        for old, new in zip(list(node.outputs), list(earlier.outputs), strict=True):
            graph.replace_uses(old, new)
        graph.erase(node)
        ctx.did(node, f"computes what '{earlier.name or earlier.op}' does: shared")
        gone += 1
    return gone


def _reads(node: Node) -> Hashable:
    own = [id(tensor) if tensor.name else 0 for tensor in node.inputs]
    return tuple(sorted(own)) if node.op in _COMMUTE else tuple(own)


def _attributes(node: Node) -> Hashable:
    return tuple(sorted((key, _frozen(value)) for key, value in node.attrs.items()))


def _frozen(value: Any) -> str:
    if isinstance(value, Constant):
        value = value.values
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{value.tobytes().hex()}"
    return repr(value)


def _share_weights(graph: Graph, ctx: Context) -> int:
    """Lets the readers of a weight read an equal one that comes before it."""
    outputs: set[Tensor] = set(graph.outputs)
    by_shape: dict[Hashable, list[Constant]] = {}
    gone = 0
    for constant in graph.constants():
        if constant.dtype.kind not in "fiub" or constant.nbytes < _LEAST_BYTES or constant in outputs:
            continue
        alike = by_shape.setdefault((constant.dtype, constant.shape), [])
        earlier = next((other for other in alike if _equal(other, constant)), None)
        if earlier is None:
            alike.append(constant)
            continue
        graph.replace_uses(constant, earlier)
        ctx.did(constant.name, f"holds what '{earlier.name}' does: kept once")
        gone += 1
    return gone


def _equal(one: Constant, other: Constant) -> bool:
    """Whether two constants of one type and shape hold the same bytes; the first few decide most often."""
    held, theirs = one.held, other.held
    if isinstance(held, Stored) and held is theirs:
        return True
    a, b = one.values.reshape(-1), other.values.reshape(-1)
    return a[:16].tobytes() == b[:16].tobytes() and a[-16:].tobytes() == b[-16:].tobytes() and np.array_equal(a, b)
