"""The bounds of a Slice whose axis loses channels."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, constant_of
from edgec.passes.prune.kept import Kept

_NAMES = ("starts", "ends", "axes", "steps")
# Before the first position, where counting from the end would make -1 the last.
_BEFORE_ALL = -(2**31)


def correct_slice(graph: Graph, node: Node, kept: Kept) -> None:
    """Gives a Slice the bounds that take what it took of the positions that stay.

    Where these are no even stretch any more (a Slice of every second channel, and an uneven part of the others is
    gone), a Gather in front of it takes them, and the Slice takes all.
    """
    rank = len(kept.shape(node.inputs[0]))
    bounds = _bounds(node)
    axes = [axis % rank for axis in bounds["axes"]]
    for place, axis in enumerate(axes):
        mask = kept.mask(node.inputs[0], axis)
        if mask is None:
            continue
        taken = np.arange(len(mask))[slice(*(bounds[name][place] for name in ("starts", "ends", "steps")))]
        left = (np.cumsum(mask) - 1)[taken[mask[taken]]]
        steps = np.unique(np.diff(left))
        if len(steps) > 1:
            indices = graph.const(f"{node.name}.channels", left.astype(np.int64))
            node.inputs[0] = graph.op(
                "Gather", [node.inputs[0], indices], name=f"{node.name}.gather", before=node, axis=axis
            )
            start, end, step = 0, len(left), 1
        else:
            step = int(steps[0]) if len(steps) else 1
            start, end = int(left[0]), int(left[-1]) + (1 if step > 0 else -1)
        for name, value in (("starts", start), ("ends", _BEFORE_ALL if end < 0 else end), ("steps", step)):
            bounds[name][place] = value
    _write(graph, node, bounds)


def _bounds(node: Node) -> dict[str, list[int]]:
    """Starts, ends, axes and steps, wherever the opset keeps them."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(_NAMES, start=1):
        if name in node.attrs:
            found[name] = [int(v) for v in node.attrs[name]]
        elif place < len(node.inputs) and isinstance(node.inputs[place], Constant):
            found[name] = [int(v) for v in constant_of(node.inputs[place]).values]
    count = len(found["starts"])
    found.setdefault("axes", list(range(count)))
    found.setdefault("steps", [1] * count)
    return found


def _write(graph: Graph, node: Node, bounds: dict[str, list[int]]) -> None:
    if "starts" in node.attrs:  # before opset 10, which has no steps: only steps of 1 come out of steps of 1 there
        node.attrs.update({name: bounds[name] for name in ("starts", "ends", "axes")})
        return
    data = node.inputs[0]
    made = [graph.const(f"{node.name}.{name}", np.array(bounds[name], np.int64)) for name in _NAMES]
    node.inputs[:] = [data, *made]
