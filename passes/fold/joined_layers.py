"""Layers that are one: convolutions side by side whose results are added, and layers in a row with nothing between.

Side by side they come from networks that are trained with more branches than they need (RepVGG, arXiv 2101.03697,
MobileOne); in a row from projections that nobody looked at together. The arithmetic is in float64.
"""

from __future__ import annotations

from math import prod

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor, producer, static_shape
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.affine import affine_of
from edgec.passes.layers.linear import bias, groups, padding


def fold_branches(rw: Rewriter, node: Node) -> bool:
    """Convolutions of one tensor whose results are added are one; a BatchNormalization of it is a convolution, too.

    ``node`` is the Add.
    """
    sources = [producer(tensor) for tensor in node.inputs]
    if len(sources) != 2 or any(s is None or not rw.owns(s) for s in sources) or sources[0] is sources[1]:
        return False
    if not all(rw.single_use(tensor) for tensor in node.inputs):
        return False
    wide, small = sorted((s for s in sources if s is not None), key=lambda one: -_taps(one))
    if wide.op != "Conv" or small.inputs[0] is not wide.inputs[0] or small.op not in ("Conv", "BatchNormalization"):
        return False
    if rw.static(wide.outputs[0]) is None or rw.static(wide.outputs[0]) != rw.static(small.outputs[0]):
        return False
    kernel, added = rw.fixed(wide.inputs[1]), _as_convolution(rw, small, wide)
    own = _bias_of(rw, wide)
    if kernel is None or kernel.dtype.kind != "f" or added is None or own is None or not _is_plain(wide):
        return False
    weights, shift, pads = added
    room = padding(wide, kernel.ndim - 2)
    if room is None:
        return False
    spatial = len(room) // 2
    begins = [a - b for a, b in zip(room, pads, strict=True)]
    ends = [k - w - b for k, w, b in zip(kernel.shape[2:], weights.shape[2:], begins[:spatial], strict=True)]
    if min(*begins, *ends) < 0 or begins[spatial:] != ends:
        return False
    total = kernel.astype(np.float64)
    window = tuple(slice(b, b + w) for b, w in zip(begins[:spatial], weights.shape[2:], strict=True))
    total[(slice(None), slice(None), *window)] += weights
    rw.did(node, f"{quoted(small)} went into {quoted(wide)}")
    rw.set_constant(wide, 1, total.astype(kernel.dtype), f"{wide.inputs[1].name}.joined")
    joined = np.ascontiguousarray((own + shift).astype(kernel.dtype))
    rw.set_constant(wide, 2, joined, f"{wide.name or 'conv'}.bias")
    rw.replace(node, wide.outputs[0])
    return True


def fold_layers_in_a_row(rw: Rewriter, node: Node) -> bool:
    """A convolution of kernel 1 and stride 1 joins the one in front of it or behind it, where that saves work."""
    first = producer(node.inputs[0])
    if first is None or first.op != "Conv" or not rw.single_use(node.inputs[0]) or groups(node) != 1:
        return False
    before, behind = rw.fixed(first.inputs[1]), rw.fixed(node.inputs[1])
    if before is None or behind is None or before.dtype.kind != "f" or before.dtype != behind.dtype:
        return False
    if groups(first) != 1 or before.ndim != behind.ndim:
        return False
    shift = _bias_of(rw, first)
    own = _bias_of(rw, node)
    if shift is None or own is None:
        return False
    if _is_projection(node, behind):
        kept, joined = first, np.einsum("km,mc...->kc...", _matrix(behind), before.astype(np.float64))
    elif _is_projection(first, before) and not (np.any(shift) and any(padding(node, behind.ndim - 2) or [1])):
        kept, joined = node, np.einsum("mc,km...->kc...", _matrix(before), behind.astype(np.float64))
    else:
        return False
    if not _saves(rw, first, node, joined.size):
        return False
    taps = behind.reshape(*behind.shape[:2], -1).sum(axis=2, dtype=np.float64)
    total = own + taps @ shift
    kind = before.dtype
    label = node.name or "conv"
    rw.did(node, f"joined with {quoted(first)}, which saves work")
    if kept is first:
        for key in ("kernel_shape", "strides", "pads", "dilations", "auto_pad"):
            node.attrs.pop(key, None)
            if key in first.attrs:
                node.attrs[key] = first.attrs[key]
    rw.set_constant(node, 1, np.ascontiguousarray(joined.astype(kind)), f"{label}.joined")
    rw.set_constant(node, 2, np.ascontiguousarray(total.astype(kind)), f"{label}.bias")
    rw.set_input(node, 0, first.inputs[0])
    return True


def _taps(node: Node) -> int:
    return prod(static_shape(node.inputs[1])[2:]) if node.op == "Conv" and isinstance(node.inputs[1], Constant) else 0


def _is_plain(node: Node) -> bool:
    return all(int(d) == 1 for d in node.attrs.get("dilations", [1]))


def _bias_of(rw: Rewriter, node: Node) -> np.ndarray | None:
    """A convolution's bias in float64, zeros where it has none; ``None`` where it is computed."""
    tensor, weights = bias(node), rw.fixed(node.inputs[1])
    if tensor is None:
        return None if weights is None else np.zeros(weights.shape[0])
    values = rw.fixed(tensor)
    return None if values is None else values.astype(np.float64)


def _as_convolution(rw: Rewriter, node: Node, wide: Node) -> tuple[np.ndarray, np.ndarray, list[int]] | None:
    """Weights, bias and padding of what is added to ``wide``, with its strides and groups."""
    kernel = rw.fixed(wide.inputs[1])
    if kernel is None:
        return None
    strides = [int(s) for s in wide.attrs.get("strides", [1] * (kernel.ndim - 2))]
    if node.op == "Conv":
        weights, shift = rw.fixed(node.inputs[1]), _bias_of(rw, node)
        pads = padding(node, kernel.ndim - 2)
        same = [int(s) for s in node.attrs.get("strides", [1] * (kernel.ndim - 2))] == strides
        if weights is None or shift is None or pads is None or not same or groups(node) != groups(wide):
            return None
        return (weights.astype(np.float64), shift, pads) if _is_plain(node) else None
    known = affine_of(rw, node)
    if known is None or any(s != 1 for s in strides):
        return None
    channels, per_group = kernel.shape[:2]
    diagonal = np.zeros((channels, per_group, *[1] * (kernel.ndim - 2)))
    places = np.arange(channels)
    scale, offset = (np.broadcast_to(values, (channels,)) for values in (known[1].scale, known[1].offset))
    diagonal[places, places % per_group] = scale.reshape(-1, *[1] * (kernel.ndim - 2))
    return diagonal, offset, [0] * (2 * (kernel.ndim - 2))


def _is_projection(node: Node, weights: np.ndarray) -> bool:
    """Whether a convolution works on each place by itself."""
    ones = all(int(s) == 1 for s in node.attrs.get("strides", [1]))
    return prod(weights.shape[2:]) == 1 and ones and not any(padding(node, weights.ndim - 2) or [1])


def _matrix(weights: np.ndarray) -> np.ndarray:
    return weights.reshape(weights.shape[:2]).astype(np.float64)


def _saves(rw: Rewriter, first: Node, second: Node, joined: int) -> bool:
    """Whether one layer of ``joined`` weights takes no more weights and multiplications than the two."""
    middle, end = rw.static(first.outputs[0]), rw.static(second.outputs[0])
    if middle is None or end is None:
        return False
    weights = [_size(first.inputs[1]), _size(second.inputs[1])]
    places = [prod(shape[2:]) for shape in (middle, end)]
    work = sum(size * count for size, count in zip(weights, places, strict=True))
    return joined <= sum(weights) and joined * places[1] <= work


def _size(tensor: Tensor) -> int:
    return prod(static_shape(tensor))
