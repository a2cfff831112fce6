"""The operators of the QLinear family, and those on integers alone, by what they stand for in float.

Sources: ONNX operators QLinearMatMul, MatMulInteger and ConvInteger. The products of 8-bit integers and their sums are
whole numbers below 2^24 for up to 256 terms, so float32 holds them exactly; more terms are rounded as float sums are.
"""

from __future__ import annotations

import numpy as np

from edgec.backends.coral.legalize import rewrites
from edgec.backends.coral.steps import Steps
from edgec.ir.graph import Graph, Node, Tensor


@rewrites("QLinearMatMul")
def qlinear_matmul(graph: Graph, node: Node) -> bool:
    """DequantizeLinear on both sides, MatMul, QuantizeLinear."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
    steps = Steps(graph, node)
    left, right = _real(steps, a, a_scale, a_zero, -2), _real(steps, b, b_scale, b_zero, -1)
    product = steps("MatMul", left, right)
    result = steps("QuantizeLinear", steps.cast(product, np.float32), steps.cast(y_scale, np.float32), y_zero)
    result.dtype = y_zero.dtype
    return steps.done(result)


def _real(steps: Steps, x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """The numbers that integers stand for, as float32."""
    rank = len(x.shape or ())
    vector = scale.shape is not None and len(scale.shape) == 1 and scale.shape[0] != 1
    attrs = {"axis": rank + axis} if vector else {}
    result = steps("DequantizeLinear", x, steps.cast(scale, np.float32), zero, **attrs)
    result.dtype = np.dtype(np.float32)
    return result


@rewrites("MatMulInteger", "ConvInteger")
def integer_product(graph: Graph, node: Node) -> bool:
    """MatMul or Conv of the integers less their zero-points, as float32, then int32."""
    steps = Steps(graph, node)
    sides: list[Tensor] = []
    for place, x in enumerate(node.inputs[:2]):
        side = steps.cast(x, np.float32)
        if len(node.inputs) > 2 + place and node.inputs[2 + place].name:
            zero = node.inputs[2 + place]
            if zero.shape is None or (len(zero.shape) == 1 and zero.shape[0] != 1 and place == 0):
                return False
            wide = steps.cast(zero, np.float32)
            if node.op == "ConvInteger" and place == 1 and len(zero.shape) == 1:
                wide = steps.reshaped(wide, [-1, *[1] * (len(x.shape or ()) - 1)])
            side = steps("Sub", side, wide)
        sides.append(side)
    product = steps("MatMul" if node.op == "MatMulInteger" else "Conv", *sides, **node.attrs)
    return steps.done(steps.cast(product, np.int32))
