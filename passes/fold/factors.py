"""Numbers by which the network multiplies, and which it adds, put together."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.matching import with_number
from edgec.passes.fold.view_chains import VIEWS
from edgec.passes.framework.rewriter import Rewriter, quoted

# Terms above it are taken for a trick that rounds, which adds and subtracts a large number.
_LARGEST_TERM = 4096.0


def fold_factors(rw: Rewriter, node: Node) -> bool:
    """Multiplications and divisions by numbers in a row are one Mul, additions of numbers one Add."""
    x, value = with_number(rw, node)
    first = None if x is None else producer(x)
    if x is None or first is None or not rw.single_use(x):
        return False
    scales, shifts = ("Mul", "Div"), ("Add", "Sub")
    kinds = scales if node.op in scales else shifts
    if first.op not in kinds:
        return False
    start, earlier = with_number(rw, first)
    if start is None or (node.op == "Div" and value == 0) or (first.op == "Div" and earlier == 0):
        return False
    if kinds is scales:
        joined = (value if node.op == "Mul" else 1 / value) * (earlier if first.op == "Mul" else 1 / earlier)
    elif max(abs(value), abs(earlier)) > _LARGEST_TERM:
        return False
    else:
        joined = (value if node.op == "Add" else -value) + (earlier if first.op == "Add" else -earlier)
    kind = rw.dtype(x)
    if kind is None or kind.kind != "f" or not _is_plain(joined, kind):
        return False
    rw.did(node, f"joined with {quoted(first)}")
    node.op = kinds[0]
    rw.set_inputs(node, [start, rw.graph.const(f"{node.name or 'factor'}.joined", np.array(joined, kind))])
    return True


def fold_product_factors(rw: Rewriter, node: Node) -> bool:
    """Factors of both operands of a product are one, of the left operand: attention as torch spells it out."""
    left, right = (_scaling(rw, tensor) for tensor in node.inputs)
    if left is None or right is None or left is right:
        return False
    (start, value), (other, further) = with_number(rw, left), with_number(rw, right)
    assert start is not None and other is not None, "a scaling multiplies by a number"
    kind, joined = rw.dtype(start), value * further
    if kind is None or kind.kind != "f" or not _is_plain(joined, kind):
        return False
    rw.did(left, f"took over the factor of {quoted(right)}")
    rw.set_inputs(left, [start, rw.graph.const(f"{left.name or 'factor'}.joined", np.array(joined, kind))])
    rw.replace(right, other)
    return True


def _scaling(rw: Rewriter, tensor: Tensor) -> Node | None:
    """The Mul by a number that an operand comes from, by way of nothing but views; ``None`` where there is none."""
    while (source := producer(tensor)) is not None and rw.single_use(tensor):
        if source.op == "Mul":
            return source if with_number(rw, source)[0] is not None else None
        if source.op not in VIEWS:
            return None
        tensor = source.inputs[0]
    return None


def _is_plain(value: float, kind: np.dtype) -> bool:
    """Whether a number is neither lost nor infinite in a type."""
    with np.errstate(over="ignore", under="ignore"):
        stored = float(np.asarray(value, kind))
    return bool(np.isfinite(stored)) and (stored != 0 or value == 0)
