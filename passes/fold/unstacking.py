"""Parts that are taken off one by one along the first axis: queries, keys and values of an attention mostly.

Exporters take each part and turn it then. Turned while they are together, they are turned by one node.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Node, producer
from edgec.passes.fold.transposes import permutation
from edgec.passes.framework.rewriter import Rewriter, quoted


def fold_unstacking(rw: Rewriter, node: Node) -> bool:
    """A Split into parts of 1, each of which a Squeeze follows, is a Gather for each. ``node`` is the Split."""
    x, shape = node.inputs[0], rw.shape(node.inputs[0])
    if shape is None:
        return False
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    if shape[axis] != len(node.outputs):
        return False
    squeezes = []
    for part in node.outputs:
        if not rw.single_use(part):
            return False
        reader = part.outputs[0]
        axes = rw.fixed(reader.inputs[1]) if reader.op == "Squeeze" and len(reader.inputs) > 1 else None
        if axes is None or [int(a) % len(shape) for a in axes.reshape(-1)] != [axis]:
            return False
        squeezes.append(reader)
    for place, squeeze in enumerate(squeezes):
        out = squeeze.outputs[0]
        index = rw.graph.const(f"{squeeze.name or 'part'}.index", np.array(place, np.int64))
        name = f"{squeeze.name or out.name}.part"
        part = rw.insert(squeeze, "Gather", [x, index], name=name, shape=rw.shape(out), dtype=rw.dtype(out), axis=axis)
        rw.did(squeeze, f"takes part {place} of what {quoted(node)} took apart")
        rw.replace(squeeze, part)
    return True


def fold_views_of_parts(rw: Rewriter, node: Node) -> bool:
    """Where every part of ``x`` is viewed in the same way, x is, once. ``node`` is one of the Gathers."""
    x, shape = node.inputs[0], rw.static(node.inputs[0])
    gathers = rw.readers(x)
    if shape is None or gathers is None or len(gathers) < 2 or producer(x) is None:
        return False
    views: list[Node] = []
    for gather in gathers:
        index = rw.fixed(gather.inputs[1]) if gather.op == "Gather" else None
        if index is None or index.ndim or gather.attrs.get("axis", 0) != 0 or not rw.single_use(gather.outputs[0]):
            return False
        views.append(gather.outputs[0].outputs[0])
    first, target = views[0], rw.static(views[0].outputs[0])
    if target is None or any(not _same(rw, first, view) for view in views):
        return False
    whole, label = (shape[0], *target), first.name or first.op.lower()
    kind = rw.dtype(x)
    if first.op == "Transpose":
        order = permutation(rw, first)
        assert order is not None, "the shape is known"
        perm = [0, *(axis + 1 for axis in order)]
        turned = rw.insert(gathers[0], "Transpose", [x], name=f"{label}.whole", shape=whole, dtype=kind, perm=perm)
    else:
        shape_of = rw.graph.const(f"{label}.whole_shape", np.array(whole, np.int64))
        turned = rw.insert(gathers[0], "Reshape", [x, shape_of], name=f"{label}.whole", shape=whole, dtype=kind)
    rw.did(first, f"{len(views)} parts of one tensor are viewed alike: it is, once")
    for gather, view in zip(gathers, views, strict=True):
        rw.set_input(gather, 0, turned)
        part = rw.renew_output(gather, 0, target)
        rw.replace(view, part)
    return True


def _same(rw: Rewriter, one: Node, other: Node) -> bool:
    """Whether two nodes are the same view, of data of one shape."""
    if one.op != other.op or one.op not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"):
        return False
    if one.op == "Transpose":
        return permutation(rw, one) == permutation(rw, other)
    return rw.static(one.outputs[0]) == rw.static(other.outputs[0])
