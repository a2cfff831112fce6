"""Nodes that change nothing, and pairs of nodes that are one.

Only what is exact for every finite input is removed. Shapes are compared where they are fully known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.pad import NON_NEGATIVE, pads_of
from edgec.passes.fold.transposes import BROADCASTING, permutation
from edgec.passes.fold.view_chains import RESHAPES
from edgec.passes.framework.rewriter import Rewriter, quoted


def fold_identity(rw: Rewriter, node: Node) -> bool:
    """Removes a node that gives out its first input as it is."""
    test = _TESTS.get(node.op)
    if test is None or not node.inputs or any(t.name and t.outputs for t in list(node.outputs)[1:]):
        return False
    if any(rw.is_output(t) for t in list(node.outputs)[1:]):
        return False
    kept = test(rw, node)
    if kept is None or (node.op == "Identity" and not rw.can_replace(node, kept)):
        return False
    rw.did(node, "changes nothing: removed")
    rw.replace(node, kept)
    return True


def fold_views(rw: Rewriter, node: Node) -> bool:
    """A view of a view is one view: Reshape, Flatten, Squeeze and Unsqueeze in a row, Transposes in a row."""
    x = node.inputs[0]
    first = producer(x)
    if first is None or rw.is_fixed(x):
        return False
    if node.op == "Transpose" and first.op == "Transpose":
        inner, outer = permutation(rw, first), permutation(rw, node)
        if inner is None or outer is None:
            return False
        node.attrs["perm"] = [inner[axis] for axis in outer]
        rw.did(node, f"joined with {quoted(first)}")
        rw.set_input(node, 0, first.inputs[0])
        return True
    if node.op not in RESHAPES or first.op not in RESHAPES:
        return False
    shape = rw.static(node.outputs[0])
    if shape is None or 0 in shape:
        return False
    if node.op == "Reshape" and _takes_no_dimension_over(rw, node):
        rw.did(node, f"joined with {quoted(first)}")
        rw.set_input(node, 0, first.inputs[0])
        return True
    node.op = "Reshape"
    node.attrs.clear()
    rw.did(node, f"joined with {quoted(first)} to one Reshape")
    rw.set_input(node, 1, rw.graph.const(f"{node.name or 'reshape'}.shape", np.array(shape, np.int64)))
    rw.set_input(node, 0, first.inputs[0])
    return True


def fold_expand(rw: Rewriter, node: Node) -> bool:
    """Removes an Expand whose readers broadcast by themselves, to no other shape than before."""
    out, x = node.outputs[0], node.inputs[0]
    readers, shape, small = rw.readers(out), rw.static(out), rw.static(x)
    if not readers or shape is None or small is None:
        return False
    for reader in readers:
        others = [rw.static(t) for t in reader.inputs if t is not out]
        if reader.op not in BROADCASTING - {"PRelu"} or None in others or rw.static(reader.outputs[0]) is None:
            return False
        shapes = [small, *(other for other in others if other is not None)]
        if np.broadcast_shapes(*shapes) != rw.static(reader.outputs[0]):
            return False
    rw.did(node, f"{', '.join(map(quoted, readers))} broadcast by themselves: removed")
    rw.replace(node, x)
    return True


def fold_relu(rw: Rewriter, node: Node) -> bool:
    """A Relu of what is never negative goes; a Clip from 0 or above needs no Relu in front of it."""
    first = producer(node.inputs[0])
    if first is None:
        return False
    if node.op == "Relu":
        bounds = _bounds(rw, first) if first.op == "Clip" else None
        if first.op in NON_NEGATIVE or (bounds is not None and bounds[0] >= 0):
            rw.did(node, f"{quoted(first)} gives nothing negative: removed")
            rw.replace(node, node.inputs[0])
            return True
        return False
    own = _bounds(rw, node)
    if own is None:
        return False
    if first.op == "Relu" and own[0] >= 0:
        rw.did(node, f"bounds from {own[0]:g} up: {quoted(first)} in front of it is not needed")
        rw.set_input(node, 0, first.inputs[0])
        return True
    inner = _bounds(rw, first) if first.op == "Clip" else None
    if inner is None or inner[0] > inner[1] or own[0] > own[1] or node.attrs:
        return False
    low, high = (float(np.clip(bound, own[0], own[1])) for bound in inner)
    kind = rw.dtype(node.outputs[0])
    rw.did(node, f"joined with {quoted(first)}")
    x = first.inputs[0]
    for place, bound in ((1, low), (2, high)):
        rw.set_input(
            node, place, rw.graph.const(f"{node.name or 'clip'}.{('min', 'max')[place - 1]}", np.array(bound, kind))
        )
    rw.set_input(node, 0, x)
    return True


def _first(rw: Rewriter, node: Node) -> Tensor | None:
    return node.inputs[0]


def _only(rw: Rewriter, node: Node) -> Tensor | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _single_output(rw: Rewriter, node: Node) -> Tensor | None:
    return node.inputs[0] if len(node.outputs) == 1 else None


def _same_shape(rw: Rewriter, node: Node) -> Tensor | None:
    shape = rw.static(node.inputs[0])
    return node.inputs[0] if shape is not None and shape == rw.static(node.outputs[0]) else None


def _flatten(rw: Rewriter, node: Node) -> Tensor | None:
    flat = rw.rank(node.inputs[0]) == 2 and node.attrs.get("axis", 1) in (1, -1)
    return node.inputs[0] if flat else _same_shape(rw, node)


def _dropout(rw: Rewriter, node: Node) -> Tensor | None:
    if len(node.inputs) > 2 and node.inputs[2].name:
        training = rw.fixed(node.inputs[2])
        if training is None or bool(np.any(training)):
            return None
    return node.inputs[0]


def _cast(rw: Rewriter, node: Node) -> Tensor | None:
    before, after = rw.dtype(node.inputs[0]), rw.dtype(node.outputs[0])
    return node.inputs[0] if before is not None and before == after else None


def _transpose(rw: Rewriter, node: Node) -> Tensor | None:
    order = permutation(rw, node)
    return node.inputs[0] if order is not None and order == list(range(len(order))) else None


def _neutral(rw: Rewriter, node: Node) -> Tensor | None:
    """Adding or subtracting 0, multiplying or dividing by 1, the power 1."""
    element = 0 if node.op in ("Add", "Sub") else 1
    left, right = node.inputs
    pairs = [(left, right)] if node.op in ("Sub", "Div", "Pow") else [(left, right), (right, left)]
    for x, constant in pairs:
        values = rw.fixed(constant)
        if values is None or not np.all(values == element):
            continue
        if node.op == "Pow" and rw.dtype(x) != rw.dtype(node.outputs[0]):
            continue
        rank = rw.rank(x)
        scalar = values.size == 1 and (values.ndim == 0 or (rank is not None and values.ndim <= rank))
        shape = rw.static(x)
        if scalar or (shape is not None and shape == rw.static(node.outputs[0])):
            return x
    return None


def _pad(rw: Rewriter, node: Node) -> Tensor | None:
    pads = pads_of(rw, node)
    return node.inputs[0] if pads is not None and not any(pads) else None


def _slice(rw: Rewriter, node: Node) -> Tensor | None:
    if len(node.inputs) > 4 and node.inputs[4].name:
        steps = rw.fixed(node.inputs[4])
        if steps is None or not np.all(steps == 1):
            return None
    return _same_shape(rw, node)


def _resize(rw: Rewriter, node: Node) -> Tensor | None:
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return None
    if _same_shape(rw, node) is None:
        return None
    if len(node.inputs) > 3 and node.inputs[3].name:
        exact = node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    else:
        place = 2 if len(node.inputs) > 2 else 1
        scales = rw.fixed(node.inputs[place]) if place < len(node.inputs) else None
        exact = scales is not None and bool(np.all(scales == 1))
    return node.inputs[0] if exact else None


def _clip(rw: Rewriter, node: Node) -> Tensor | None:
    bounds = _bounds(rw, node)
    return node.inputs[0] if bounds == (-np.inf, np.inf) else None


def _pool(rw: Rewriter, node: Node) -> Tensor | None:
    ones = all(
        all(v == neutral for v in node.attrs.get(key, [neutral]))
        for key, neutral in (("kernel_shape", 1), ("strides", 1), ("pads", 0))
    )
    return _same_shape(rw, node) if ones else None


def _bounds(rw: Rewriter, node: Node) -> tuple[float, float] | None:
    """The bounds of a Clip; ``None`` where they are computed or the element type is no float."""
    kind = rw.dtype(node.inputs[0])
    if kind is None or kind.kind != "f":
        return None
    found = [float(node.attrs.get("min", -np.inf)), float(node.attrs.get("max", np.inf))]
    for place, tensor in enumerate(list(node.inputs)[1:3]):
        if tensor.name:
            value = rw.fixed(tensor)
            if value is None or value.size != 1:
                return None
            found[place] = float(value.reshape(()))
    return found[0], found[1]


def _takes_no_dimension_over(rw: Rewriter, node: Node) -> bool:
    """Whether a Reshape's target says all by itself: no 0 that stands for the input's own dimension."""
    target = rw.fixed(node.inputs[1])
    return target is not None and not np.any(target == 0)


_TESTS: Mapping[str, Callable[[Rewriter, Node], Tensor | None]] = {
    "Identity": _first,
    "Dropout": _dropout,
    "Cast": _cast,
    "Transpose": _transpose,
    "Reshape": _same_shape,
    "Flatten": _flatten,
    "Squeeze": _same_shape,
    "Unsqueeze": _same_shape,
    "Expand": _same_shape,
    "Tile": _same_shape,
    "Add": _neutral,
    "Sub": _neutral,
    "Mul": _neutral,
    "Div": _neutral,
    "Pow": _neutral,
    "Pad": _pad,
    "Concat": _only,
    "Sum": _only,
    "Max": _only,
    "Min": _only,
    "Mean": _only,
    "Split": _single_output,
    "Slice": _slice,
    "Resize": _resize,
    "Clip": _clip,
    "MaxPool": _pool,
    "AveragePool": _pool,
}
OPERATORS = tuple(_TESTS)
