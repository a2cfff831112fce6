"""``axes`` of Resize and Pad, which came with opset 18, written out: onnxruntime's transpose optimizer miscounts them.

It moves a Transpose through such a node and goes on taking the axes for those of the whole tensor; the file is then
refused ("indices element out of data bounds"). Older parsers know no ``axes`` at all.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor
from edgec.ir.shapes import Shapes

_STANDARD = ("", "ai.onnx")


def expand_axes(graph: Graph, shapes: Shapes) -> bool:
    """Writes the pads of Pad, and the scales, sizes and region of Resize, for every axis, in place, where known.

    Args:
        graph: its shape arithmetic is folded.
        shapes: of its tensors.

    Returns:
        Whether anything was changed.
    """
    changed = False
    for inside in graph.graphs():
        for node in [n for n in inside.nodes if n.domain in _STANDARD]:
            shape = shapes.shape(node.inputs[0]) if node.op in ("Pad", "Resize") and node.inputs else None
            if shape is None:
                continue
            if node.op == "Pad" and len(node.inputs) > 3 and node.inputs[3].name:
                changed |= _expand_pad(inside, node, len(shape))
            elif node.op == "Resize" and "axes" in node.attrs:
                changed |= _expand_resize(inside, node, shape)
    return changed


def _expand_pad(graph: Graph, node: Node, rank: int) -> bool:
    pads, axes = node.inputs[1], node.inputs[3]
    if not isinstance(pads, Constant) or not isinstance(axes, Constant):
        return False
    chosen = [int(axis) % rank for axis in axes.values.reshape(-1)]
    amounts = pads.values.reshape(2, -1)
    if len(chosen) != amounts.shape[1]:
        return False  # inference has said so
    whole = np.zeros((2, rank), np.int64)
    whole[:, chosen] = amounts
    node.inputs[1] = graph.const(f"{node.name}.pads", whole.reshape(-1))
    del node.inputs[3:]
    if not node.inputs[-1].name:
        del node.inputs[-1]
    return True


def _expand_resize(graph: Graph, node: Node, shape: tuple[int | None, ...]) -> bool:
    rank = len(shape)
    chosen = [int(axis) % rank for axis in node.attrs["axes"]]
    if chosen == list(range(rank)):
        del node.attrs["axes"]
        return True
    roi, scales, sizes = ([*node.inputs[1:4], None, None, None])[:3]
    region = _region(roi, chosen, rank)
    if region is None and _is_given(roi):
        return False
    if _is_given(sizes):
        # A ratio that is to be kept is that of the chosen axes alone.
        stretches = node.attrs.get("keep_aspect_ratio_policy", "stretch") == "stretch"
        if not isinstance(sizes, Constant) or None in shape or not stretches or sizes.values.size != len(chosen):
            return False
        whole = np.array([d or 0 for d in shape], np.int64)
        whole[chosen] = sizes.values.reshape(-1)
        node.inputs[3] = graph.const(f"{node.name}.sizes", whole)
    else:
        if not isinstance(scales, Constant) or scales.values.size != len(chosen):
            return False
        factors = np.ones(rank, np.float32)
        factors[chosen] = scales.values.reshape(-1)
        node.inputs[2] = graph.const(f"{node.name}.scales", factors)
    if region is not None and _is_given(roi):
        node.inputs[1] = graph.const(f"{node.name}.roi", region)
    del node.attrs["axes"]
    return True


def _region(roi: Tensor | None, chosen: list[int], rank: int) -> np.ndarray | None:
    """The region for every axis: all of those that are not chosen."""
    if not isinstance(roi, Constant) or roi.values.size != 2 * len(chosen):
        return np.zeros(0, np.float32) if isinstance(roi, Constant) and not roi.values.size else None
    whole = np.stack([np.zeros(rank), np.ones(rank)]).astype(roi.dtype)
    whole[:, chosen] = roi.values.reshape(2, -1)
    return whole.reshape(-1)


def _is_given(tensor: Tensor | None) -> bool:
    return tensor is not None and bool(tensor.name)
