"""Attributes and shape constants that state a width, made right for a graph that loses channels.

Each correction runs while all tensors still have their old widths, and knows which positions of which axes stay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgec.ir.graph import Constant, Graph, Node
from edgec.passes.prune.kept import Kept
from edgec.passes.prune.slice_bounds import correct_slice


def _group(graph: Graph, node: Node, kept: Kept) -> None:
    """Conv and its quantized forms, ConvTranspose: groups by the channels that each has."""
    group = int(node.attrs.get("group", 1))
    if group == 1:
        return
    weights = node.inputs[3 if node.op == "QLinearConv" else 1]
    # Channels of all groups against the places in one, on the side on which the weights hold the places.
    channels = node.outputs[0] if node.op == "ConvTranspose" else node.inputs[0]
    mask = kept.mask(channels, 1)
    if mask is not None:
        places = kept.width(weights, 1, len(mask) // group)
        node.attrs["group"] = int(mask.sum()) // places


def _num_groups(graph: Graph, node: Node, kept: Kept) -> None:
    """GroupNormalization loses whole groups."""
    mask = kept.mask(node.inputs[0], 1)
    if mask is not None:
        each = len(mask) // int(node.attrs["num_groups"])
        node.attrs["num_groups"] = int(mask.sum()) // each


def _reshape(graph: Graph, node: Node, kept: Kept) -> None:
    """Reshape: each number of the target that a cut changes; 0 and -1 where they still say the same."""
    before, behind = node.inputs[0], node.outputs[0]
    target = _shape(node)
    changed = target.copy()
    for axis in range(len(target)):
        mask = kept.mask(behind, axis)
        if target[axis] > 0 and mask is not None:
            changed[axis] = int(mask.sum())
        elif target[axis] == 0 and not node.attrs.get("allowzero"):
            length = kept.shape(behind)[axis]
            if length is not None and kept.width(before, axis, length) != kept.width(behind, axis, length):
                changed[axis] = kept.width(behind, axis, length)
    if (changed != target).any():
        _set_integers(graph, node, "shape", 1, changed)


def _shape(node: Node) -> np.ndarray:
    if "shape" in node.attrs:
        return np.asarray(node.attrs["shape"], np.int64)
    shape = node.inputs[1]
    if not isinstance(shape, Constant):
        raise ValueError(f"node '{node.name}' ({node.op}): its shape is not constant")
    return np.array(shape.values, np.int64)


def _expand(graph: Graph, node: Node, kept: Kept) -> None:
    """Expand: the target's numbers are aligned from the right with the axes of the result."""
    target = _shape(node)
    changed = target.copy()
    rank = len(kept.shape(node.outputs[0]))
    for back in range(1, len(target) + 1):
        mask = kept.mask(node.outputs[0], rank - back)
        if mask is not None and target[-back] != 1:
            changed[-back] = int(mask.sum())
    if (changed != target).any():
        _set_integers(graph, node, "shape", 1, changed)


def _resize(graph: Graph, node: Node, kept: Kept) -> None:
    """Resize to given sizes."""
    if len(node.inputs) < 4 or not isinstance(node.inputs[3], Constant):
        return
    sizes = np.array(node.inputs[3].values, np.int64)
    changed = sizes.copy()
    rank = len(kept.shape(node.outputs[0]))
    for place, axis in enumerate(node.attrs.get("axes") or range(len(sizes))):
        changed[place] = kept.width(node.outputs[0], int(axis) % rank, int(sizes[place]))
    if (changed != sizes).any():
        _set_integers(graph, node, "sizes", 3, changed)


def _split(graph: Graph, node: Node, kept: Kept) -> None:
    """Split: explicit sizes, because even parts may have become uneven."""
    mask = kept.mask(node.inputs[0], int(node.attrs.get("axis", 0)) % len(kept.shape(node.inputs[0])))
    if mask is None:
        return
    stated = node.attrs.get("split")
    if stated is None and len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        stated = node.inputs[1].values
    if stated is None:
        each = -(-len(mask) // len(node.outputs))
        stated = [min(each, len(mask) - start) for start in range(0, len(mask), each)]
    ends = np.cumsum(np.asarray(stated, np.int64))
    sizes = np.diff(np.concatenate([[0], np.cumsum(mask)[ends - 1]]))
    node.attrs.pop("num_outputs", None)
    _set_integers(graph, node, "split", 1, sizes, attribute=graph.opset < 13)


def _gather(graph: Graph, node: Node, kept: Kept) -> None:
    """Gather: the indices that are left, in the new numbering."""
    indices = node.inputs[1]
    mask = kept.mask(node.inputs[0], int(node.attrs.get("axis", 0)) % len(kept.shape(node.inputs[0])))
    if mask is None or not isinstance(indices, Constant):
        return
    old = np.asarray(indices.values, np.int64) % len(mask)
    stays = mask[old]
    new = (np.cumsum(mask) - 1)[old[stays] if old.ndim else old]
    node.inputs[1] = graph.const(f"{indices.name}.cut", new.astype(indices.dtype))


def _squeeze(graph: Graph, node: Node, kept: Kept) -> None:
    """Squeeze of all axes of length 1: those of now, stated, so that an axis that is cut to 1 stays."""
    if "axes" in node.attrs or (len(node.inputs) > 1 and node.inputs[1].name):
        return
    shape = kept.shape(node.inputs[0])
    axes = np.array([axis for axis, length in enumerate(shape) if length == 1], np.int64)
    _set_integers(graph, node, "axes", 1, axes, attribute=graph.opset < 13)


def _set_integers(
    graph: Graph, node: Node, name: str, place: int, values: np.ndarray, *, attribute: bool | None = None
) -> None:
    """Writes a list where the node keeps it: in an attribute, or in a constant of its own."""
    if name in node.attrs or attribute:
        node.attrs[name] = [int(v) for v in values]
        return
    made = graph.const(f"{node.name}.{name}", np.asarray(values, np.int64))
    if place < len(node.inputs):
        node.inputs[place] = made
    else:
        node.inputs.append(made)


# The operators of which only the number of groups is corrected; no other needs shapes for it.
GROUPED = frozenset({"Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "GroupNormalization"})
CORRECTIONS: dict[str, Callable[[Graph, Node, Kept], None]] = {
    "Conv": _group,
    "ConvInteger": _group,
    "QLinearConv": _group,
    "ConvTranspose": _group,
    "GroupNormalization": _num_groups,
    "Reshape": _reshape,
    "Expand": _expand,
    "Resize": _resize,
    "Split": _split,
    "Slice": correct_slice,
    "Gather": _gather,
    "Squeeze": _squeeze,
}
