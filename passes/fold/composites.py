"""Operators that exporters spell out, put together again: Gelu and LayerNormalization.

Spelt out, their steps are rounded to 8 bits one by one, which a variance or the difference of two near numbers does
not survive, and no device's kernel for the whole would be found.
"""

from __future__ import annotations

from math import isclose, sqrt

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.framework.rewriter import Rewriter

# The opsets that the operators came with.
_GELU_SINCE, _LAYER_NORMALIZATION_SINCE = 20, 17


def fold_gelu(rw: Rewriter, node: Node) -> bool:
    """``0.5 * x * (1 + erf(x / sqrt(2)))``, its factors in any order, is one Gelu. ``node`` is the Erf."""
    scaled = producer(node.inputs[0])
    if rw.graph.opset < _GELU_SINCE or scaled is None or scaled.op not in ("Mul", "Div"):
        return False
    x, number = _with_scalar(rw, scaled)
    if x is None or not isclose(number if scaled.op == "Mul" else 1 / (number or 1.0), 1 / sqrt(2), rel_tol=1e-5):
        return False
    last = _sole_reader(rw, node.outputs[0])
    if last is None or last.op != "Add" or _with_scalar(rw, last) != (node.outputs[0], 1.0):
        return False
    factor, found = 1.0, False
    while not (found and isclose(factor, 0.5, rel_tol=1e-6)):
        reader = _sole_reader(rw, last.outputs[0])
        if reader is None or reader.op != "Mul":
            return False
        rest, number = _with_scalar(rw, reader)
        if rest is not None:
            factor *= number
        elif not found:
            other = next((t for t in reader.inputs if t is not last.outputs[0]), None)
            times = _times(rw, other, x)
            if times is None:
                return False
            factor, found = factor * times, True
        else:
            return False
        last = reader
    out = last.outputs[0]
    made = rw.insert(last, "Gelu", [x], name=f"{node.name or 'erf'}.gelu", shape=rw.shape(out), dtype=rw.dtype(out))
    rw.did(last, "the end of a Gelu that was spelt out: became one")
    rw.replace(last, made)
    return True


def fold_layer_normalization(rw: Rewriter, node: Node) -> bool:
    """``(x - mean) / sqrt(variance + epsilon) * scale + shift`` is one LayerNormalization. ``node`` is the Sqrt."""
    if rw.graph.opset < _LAYER_NORMALIZATION_SINCE:
        return False
    last = _sole_reader(rw, node.outputs[0])
    added = producer(node.inputs[0])
    if last is None or last.op != "Div" or last.inputs[1] is not node.outputs[0] or added is None or added.op != "Add":
        return False
    variance, epsilon = _with_scalar(rw, added)
    centred = last.inputs[0]
    difference = producer(centred)
    if variance is None or difference is None or difference.op != "Sub":
        return False
    x, mean = difference.inputs
    axis = _mean_from(rw, mean, x)
    squares = producer(variance)
    if axis is None or squares is None or axis != _mean_from(rw, variance, squares.inputs[0]):
        return False
    if not _is_square(rw, squares.inputs[0], centred):
        return False
    shape = rw.static(x)
    if shape is None or rw.dtype(x) != np.float32:
        return False
    wide = shape[axis:]
    numbers: dict[str, np.ndarray] = {"Mul": np.ones(wide, np.float32)}
    for op in ("Mul", "Add"):
        reader = _sole_reader(rw, last.outputs[0])
        if reader is None or reader.op != op:
            continue
        values = next((rw.fixed(t) for t in reader.inputs if rw.is_fixed(t)), None)
        if values is not None and values.ndim <= len(wide) and _fits(values.shape, wide):
            numbers[op] = np.ascontiguousarray(np.broadcast_to(values, wide))
            last = reader
    name = f"{node.name or 'sqrt'}.layer_normalization"
    inputs: list[Tensor] = [x, rw.graph.const(f"{name}.scale", numbers["Mul"])]
    if "Add" in numbers:
        inputs.append(rw.graph.const(f"{name}.shift", numbers["Add"]))
    made = rw.insert(
        last, "LayerNormalization", inputs, name=name, shape=shape, dtype=rw.dtype(x), axis=axis, epsilon=epsilon
    )
    rw.did(last, "the end of a LayerNormalization that was spelt out: became one")
    rw.replace(last, made)
    return True


def _sole_reader(rw: Rewriter, tensor: Tensor) -> Node | None:
    return tensor.outputs[0] if rw.single_use(tensor) else None


def _with_scalar(rw: Rewriter, node: Node) -> tuple[Tensor | None, float]:
    """What an operator takes together with a known number, and the number; ``None`` where there is none."""
    for place in (1, 0) if node.op != "Div" else (1,):
        values = rw.fixed(node.inputs[place])
        if values is not None and values.size == 1 and values.dtype.kind == "f":
            return node.inputs[1 - place], float(values.reshape(-1)[0])
    return None, 0.0


def _times(rw: Rewriter, tensor: Tensor | None, x: Tensor) -> float | None:
    """The number that ``tensor`` is ``x`` times; ``None`` where it is something else."""
    if tensor is x:
        return 1.0
    maker = None if tensor is None else producer(tensor)
    if maker is None or maker.op != "Mul":
        return None
    rest, number = _with_scalar(rw, maker)
    return number if rest is x else None


def _mean_from(rw: Rewriter, tensor: Tensor, x: Tensor) -> int | None:
    """The dimension from which on ``tensor`` is the mean of ``x``, kept as 1; ``None`` where it is no such mean."""
    node, rank = producer(tensor), rw.rank(x)
    if node is None or node.op != "ReduceMean" or node.inputs[0] is not x or rank is None:
        return None
    given = rw.fixed(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = node.attrs.get("axes") if given is None else given.reshape(-1).tolist()
    if not axes or not node.attrs.get("keepdims", 1):
        return None
    along = sorted({int(axis) % rank for axis in axes})
    return along[0] if along == list(range(along[0], rank)) else None


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
