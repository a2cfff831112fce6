"""LayerNormalization and RMSNormalization that exporters spell out, put together again.

Spelled out, their steps are rounded to 8 bits one by one, which a variance does not survive, and no device's kernel
for the whole would be found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.fold.matching import reduced_axes, sole_reader, with_number
from edgec.passes.framework.rewriter import Rewriter

# The opsets that the operators came with.
_LAYER_NORMALIZATION_SINCE, _RMS_NORMALIZATION_SINCE = 17, 23


@dataclass(frozen=True)
class _Normalized:
    """What is divided by a root of a mean square.

    Attributes:
        x: what is normalized.
        last: the node that computes the normalized x.
        axes: the axes of the mean.
        epsilon: what is added to the mean square.
        centred: whether x is taken without its mean.
    """

    x: Tensor
    last: Node
    axes: list[int]
    epsilon: float
    centred: bool


def fold_normalization(rw: Rewriter, node: Node) -> bool:
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift`` is one LayerNormalization. ``node`` is the Sqrt.

    Without the mean it is one RMSNormalization. Along channels that other axes follow, as ConvNeXt has it, two
    Transposes stand around it.
    """
    normalized = _normalized(rw, node)
    if normalized is None or rw.dtype(normalized.x) != np.float32:
        return False
    if rw.graph.opset < (_LAYER_NORMALIZATION_SINCE if normalized.centred else _RMS_NORMALIZATION_SINCE):
        return False
    shape = rw.shape(normalized.x)
    assert shape is not None, "a mean's axes are counted from the front by the rank"
    axes, rank = normalized.axes, len(shape)
    if any(shape[axis] is None for axis in axes):
        return False
    order = [axis for axis in range(rank) if axis not in axes] + axes
    moved = order != list(range(rank))
    if moved and (len(axes) > 1 or not normalized.centred):
        return False
    last, scale, shift = _affine_behind(rw, normalized, shape)
    name, kind = f"{node.name or 'sqrt'}.normalization", rw.dtype(normalized.x)
    x, wide = normalized.x, tuple(shape[axis] for axis in order)
    if moved:
        x = rw.insert(last, "Transpose", [x], name=f"{name}.last", shape=wide, dtype=kind, perm=order)
    inputs = [x, rw.graph.const(f"{name}.scale", scale)]
    if normalized.centred and shift is not None:
        inputs.append(rw.graph.const(f"{name}.shift", shift))
    op = "LayerNormalization" if normalized.centred else "RMSNormalization"
    out = rw.insert(
        last, op, inputs, name=name, shape=wide, dtype=kind, axis=rank - len(axes), epsilon=normalized.epsilon
    )
    if moved:
        back = [int(place) for place in np.argsort(order)]
        out = rw.insert(last, "Transpose", [out], name=f"{name}.back", shape=shape, dtype=kind, perm=back)
    rw.did(last, f"the end of a {op} that was spelled out: became one")
    rw.replace(last, out)
    return True


def _normalized(rw: Rewriter, node: Node) -> _Normalized | None:
    """What ``node``, a Sqrt, normalizes."""
    added = producer(node.inputs[0])
    divided = _divided(rw, node)
    if added is None or added.op != "Add" or divided is None:
        return None
    numerator, last = divided
    spread, epsilon = with_number(rw, added)
    squares = None if spread is None else producer(spread)
    if squares is None or spread is None or not _is_square(rw, squares.inputs[0], numerator):
        return None
    axes = _mean_axes(rw, spread, squares.inputs[0])
    if axes is None:
        return None
    difference = producer(numerator)
    if difference is not None and difference.op == "Sub":
        x, mean = difference.inputs
        if _mean_axes(rw, mean, x) == axes:
            return _Normalized(x, last, axes, epsilon, True)
    return _Normalized(numerator, last, axes, epsilon, False)


def _divided(rw: Rewriter, root: Node) -> tuple[Tensor, Node] | None:
    """What is divided by a root, and the node that computes the ratio; by way of a reciprocal, too."""
    reader = sole_reader(rw, root.outputs[0])
    if reader is None:
        return None
    if reader.op == "Div" and reader.inputs[1] is root.outputs[0] and _under_one(rw, reader) is None:
        return reader.inputs[0], reader
    if reader.op != "Reciprocal" and not (reader.op == "Div" and _under_one(rw, reader) is root.outputs[0]):
        return None
    product = sole_reader(rw, reader.outputs[0])
    if product is None or product.op != "Mul":
        return None
    return product.inputs[1 if product.inputs[0] is reader.outputs[0] else 0], product


def _under_one(rw: Rewriter, node: Node) -> Tensor | None:
    """What a Div divides 1 by; ``None`` where it divides something else."""
    values = rw.fixed(node.inputs[0])
    return node.inputs[1] if values is not None and values.size == 1 and float(values.reshape(-1)[0]) == 1.0 else None


def _affine_behind(
    rw: Rewriter, normalized: _Normalized, shape: tuple[int | None, ...]
) -> tuple[Node, np.ndarray, np.ndarray | None]:
    """The last node of a scale and a shift that follow, if they do, and their values along the normalized axes."""
    last, axes = normalized.last, normalized.axes
    wide = tuple((size or 1) if axis in axes else 1 for axis, size in enumerate(shape))
    flat = tuple(shape[axis] or 1 for axis in axes)
    scale, shift = np.ones(flat, np.float32), None
    for op in ("Mul", "Add") if normalized.centred else ("Mul",):
        reader = sole_reader(rw, last.outputs[0])
        if reader is None or reader.op != op:
            continue
        values = next((rw.fixed(t) for t in reader.inputs if rw.is_fixed(t)), None)
        if values is None or values.ndim > len(wide) or not _fits(values.shape, wide):
            continue
        full = np.ascontiguousarray(np.broadcast_to(values, wide)).reshape(flat)
        scale, shift = (full, shift) if op == "Mul" else (scale, full)
        last = reader
    return last, scale, shift


def _mean_axes(rw: Rewriter, tensor: Tensor, x: Tensor) -> list[int] | None:
    """The axes along which ``tensor`` is the mean of ``x``, kept as 1; ``None`` where it is no such mean."""
    node = producer(tensor)
    if node is None or node.op != "ReduceMean" or node.inputs[0] is not x or not node.attrs.get("keepdims", 1):
        return None
    axes = reduced_axes(rw, node)
    return axes if axes is not None and axes == list(range(axes[0], axes[-1] + 1)) else None


def _is_square(rw: Rewriter, tensor: Tensor, x: Tensor) -> bool:
    node = producer(tensor)
    if node is None or not node.inputs or node.inputs[0] is not x:
        return False
    if node.op == "Mul":
        return node.inputs[1] is x
    exponent = rw.fixed(node.inputs[1]) if node.op == "Pow" else None
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) == 2.0


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether ``shape`` broadcasts to ``whole`` and no further."""
    padded = (*[1] * (len(whole) - len(shape)), *shape)
    return all(size in (1, wide) for size, wide in zip(padded, whole, strict=True))
