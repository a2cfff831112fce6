"""Activations that exporters spell out, put together again: Gelu in both forms, HardSigmoid, HardSwish, Mish, Softmax.

Spelled out, their steps are rounded to 8 bits one by one, which the difference of two near numbers does not survive,
and no device's kernel for the whole would be found.
"""

from __future__ import annotations

from math import isclose, pi, sqrt

import numpy as np

from edgec.ir.graph import Constant, Node, Tensor, producer
from edgec.passes.fold.matching import (
    factors_behind,
    number,
    polynomial,
    reduced_axes,
    replace_by,
    sole_reader,
    times,
    with_number,
)
from edgec.passes.framework.rewriter import Rewriter

# The opsets that the operators came with.
_GELU_SINCE, _HARD_SWISH_SINCE, _MISH_SINCE, _SOFTMAX_OF_ONE_AXIS = 20, 14, 18, 13
# The tanh form: tanh(sqrt(2 / pi) * (x + 0.044715 x^3)); Hendrycks and Gimpel, arXiv 1606.08415.
_TANH_GELU = np.array([0.0, sqrt(2 / pi), 0.0, 0.044715 * sqrt(2 / pi)])
# How near a constant must be to what it is taken for: what is written with fewer digits computes something else.
_DIGITS = 1e-6
# Slopes of the lines that are called a hard sigmoid; they pass 0.5 at 0. The first one is that of HardSwish.
_SLOPES = (1 / 6, 0.2)


def fold_gelu(rw: Rewriter, node: Node) -> bool:
    """``0.5 * x * (1 + erf(x / sqrt(2)))``, its factors in any order, is one Gelu. ``node`` is the Erf."""
    scaled = producer(node.inputs[0])
    if rw.graph.opset < _GELU_SINCE or scaled is None or scaled.op not in ("Mul", "Div"):
        return False
    x, _ = with_number(rw, scaled)
    share = None if x is None else times(rw, node.inputs[0], x)
    if x is None or share is None or not isclose(share, 1 / sqrt(2), rel_tol=1e-5):
        return False
    return _finish_gelu(rw, node, x, "none")


def fold_tanh_gelu(rw: Rewriter, node: Node) -> bool:
    """The same with the Tanh of a polynomial of the third degree, which comes near to the Erf. ``node`` is the Tanh."""
    if rw.graph.opset < _GELU_SINCE:
        return False
    for x in _arithmetic_behind(node.inputs[0]):
        coefficients = polynomial(rw, node.inputs[0], x)
        if coefficients is not None and np.allclose(coefficients, _TANH_GELU, rtol=_DIGITS, atol=1e-12):
            return _finish_gelu(rw, node, x, "tanh")
    return False


def fold_hard_sigmoid(rw: Rewriter, node: Node) -> bool:
    """``clip(x + 3, 0, 6) / 6``, or Keras' ``clip(x / 5 + 0.5, 0, 1)``, is one HardSigmoid; times x, one HardSwish.

    ``node`` is the Clip.
    """
    bounds = [number(rw, tensor) for tensor in list(node.inputs)[1:3]]
    line = producer(node.inputs[0])
    if len(bounds) < 2 or bounds[0] != 0 or not bounds[1] or line is None or line.op not in ("Add", "Mul", "Div"):
        return False
    for x in _arithmetic_behind(node.inputs[0]):
        coefficients = polynomial(rw, node.inputs[0], x)
        if coefficients is None or np.any(coefficients[2:]) or coefficients[1] <= 0:
            continue
        alpha = next((a for a in _SLOPES if isclose(coefficients[1] / bounds[1], a, rel_tol=_DIGITS)), None)
        if alpha is None or not isclose(coefficients[0] / bounds[1], 0.5, rel_tol=1e-6):
            continue
        swish = rw.graph.opset >= _HARD_SWISH_SINCE and alpha == _SLOPES[0]
        gate: Node | None = node if isclose(bounds[1], 1.0) else None
        for reader, factor, taken in factors_behind(rw, node.outputs[0], x):
            if isclose(factor * bounds[1], 1.0, rel_tol=_DIGITS):
                if taken and swish:
                    return replace_by(rw, reader, "HardSwish", [x], "hard_swish")
                gate = None if taken else reader
        if gate is not None:
            return replace_by(rw, gate, "HardSigmoid", [x], "hard_sigmoid", alpha=alpha, beta=0.5)
    return False


def fold_hard_swish(rw: Rewriter, node: Node) -> bool:
    """``x * HardSigmoid(x)`` is one HardSwish. ``node`` is the HardSigmoid."""
    alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
    if rw.graph.opset < _HARD_SWISH_SINCE or not isclose(alpha, 1 / 6, rel_tol=_DIGITS) or beta != 0.5:
        return False
    return _times_x(rw, node.outputs[0], node.inputs[0], "HardSwish", "hard_swish")


def fold_softplus(rw: Rewriter, node: Node) -> bool:
    """``log(1 + exp(x))`` is one Softplus. ``node`` is the Exp."""
    added = sole_reader(rw, node.outputs[0])
    if added is None or added.op != "Add" or with_number(rw, added) != (node.outputs[0], 1.0):
        return False
    last = sole_reader(rw, added.outputs[0])
    if last is None or last.op != "Log":
        return False
    return replace_by(rw, last, "Softplus", [node.inputs[0]], "softplus")


def fold_mish(rw: Rewriter, node: Node) -> bool:
    """``x * tanh(softplus(x))`` is one Mish. ``node`` is the Softplus."""
    bent = sole_reader(rw, node.outputs[0])
    if rw.graph.opset < _MISH_SINCE or bent is None or bent.op != "Tanh":
        return False
    return _times_x(rw, bent.outputs[0], node.inputs[0], "Mish", "mish")


def fold_softmax(rw: Rewriter, node: Node) -> bool:
    """``exp(x) / sum(exp(x))`` along one axis is one Softmax, with or without the largest x taken away first.

    ``node`` is the Exp.
    """
    out = node.outputs[0]
    readers = rw.readers(out)
    if rw.graph.opset < _SOFTMAX_OF_ONE_AXIS or readers is None or len(readers) != 2:
        return False
    total = next((reader for reader in readers if reader.op == "ReduceSum"), None)
    ratio = next((reader for reader in readers if reader.op == "Div"), None)
    if total is None or ratio is None or list(ratio.inputs) != [out, total.outputs[0]]:
        return False
    axis = _kept_axis(rw, total)
    if axis is None or sole_reader(rw, total.outputs[0]) is not ratio:
        return False
    x = node.inputs[0]
    shifted = producer(x)
    if shifted is not None and shifted.op == "Sub":
        largest = producer(shifted.inputs[1])
        if largest is not None and largest.op == "ReduceMax" and largest.inputs[0] is shifted.inputs[0]:
            x = shifted.inputs[0] if _kept_axis(rw, largest) is not None else x
    return replace_by(rw, ratio, "Softmax", [x], "softmax", axis=axis)


def _times_x(rw: Rewriter, gate: Tensor, x: Tensor, op: str, label: str) -> bool:
    """Puts ``op`` in the place of ``x * gate``, where that follows."""
    for reader, factor, taken in factors_behind(rw, gate, x):
        if taken and factor == 1.0:
            return replace_by(rw, reader, op, [x], label)
    return False


def _kept_axis(rw: Rewriter, node: Node) -> int | None:
    """The only axis that a reduction takes together, where it keeps it as 1; ``None`` otherwise."""
    axes = reduced_axes(rw, node)
    return axes[0] if axes is not None and len(axes) == 1 and node.attrs.get("keepdims", 1) else None


def _finish_gelu(rw: Rewriter, node: Node, x: Tensor, approximate: str) -> bool:
    added = sole_reader(rw, node.outputs[0])
    if added is None or added.op != "Add" or with_number(rw, added) != (node.outputs[0], 1.0):
        return False
    for reader, factor, taken in factors_behind(rw, added.outputs[0], x):
        if taken and isclose(factor, 0.5, rel_tol=1e-6):
            form = {} if approximate == "none" else {"approximate": approximate}
            return replace_by(rw, reader, "Gelu", [x], "gelu", **form)
    return False


def _arithmetic_behind(tensor: Tensor, depth: int = 8) -> list[Tensor]:
    """What arithmetic starts from, nearest first: every tensor that is computed on the way, and the leaves."""
    seen: dict[Tensor, None] = {}
    level = [tensor]
    for _ in range(depth):
        behind: list[Tensor] = []
        for one in level:
            node = producer(one)
            if node is not None and node.op in ("Add", "Sub", "Mul", "Div", "Pow", "Neg"):
                behind += [operand for operand in node.inputs if operand.name and operand not in seen]
        seen.update(dict.fromkeys(behind))
        level = behind
    return [one for one in seen if not isinstance(one, Constant)]
