"""Operators that are a few of those that TFLite has: reductions, norms, activations, comparisons.

Each is exact up to float32 rounding, of finite numbers. What is made here is rewritten in its turn where it has a rule
of its own.
Sources: the definitions in ONNX's operator specification.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.backends.coral.legalize import known, rewrites
from edgec.backends.coral.steps import Steps, is_float
from edgec.ir.graph import Graph, Node, Tensor, Variable

# From this opset on a reduction takes its axes as an input; the sum alone did so earlier.
_AXES_AS_INPUT = {"ReduceSum": 13}
_ALL_AXES_AS_INPUT = 18


def _reduced(steps: Steps, op: str, x: Tensor) -> Variable:
    """``op`` over the axes that the node names, in the form in which ``op`` takes them."""
    node, graph = steps.node, steps.graph
    attrs, axes = dict(node.attrs), list(node.inputs[1:])
    if "axes" in attrs and graph.opset >= _AXES_AS_INPUT.get(op, _ALL_AXES_AS_INPUT):
        axes = [graph.const(f"{node.name}.axes", np.array(attrs.pop("axes"), np.int64))]
    return steps(op, x, *axes, **attrs)


@rewrites("ReduceL1")
def reduce_l1(graph: Graph, node: Node) -> bool:
    """The sum of what is positive."""
    steps = Steps(graph, node)
    return is_float(node) and steps.done(_reduced(steps, "ReduceSum", steps("Abs", node.inputs[0])))


@rewrites("ReduceSumSquare")
def reduce_sum_square(graph: Graph, node: Node) -> bool:
    """The sum of squares."""
    steps, x = Steps(graph, node), node.inputs[0]
    return is_float(node) and steps.done(_reduced(steps, "ReduceSum", steps("Mul", x, x)))


@rewrites("ReduceLogSum")
def reduce_log_sum(graph: Graph, node: Node) -> bool:
    """The logarithm of a sum."""
    steps = Steps(graph, node)
    return is_float(node) and steps.done(steps("Log", _reduced(steps, "ReduceSum", node.inputs[0])))


@rewrites("ReduceLogSumExp")
def reduce_log_sum_exp(graph: Graph, node: Node) -> bool:
    """The same of exponentials, less the greatest of them, so that none overflows."""
    if not is_float(node) or not node.attrs.get("keepdims", 1):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    top = _reduced(steps, "ReduceMax", x)
    powers = steps("Exp", steps("Sub", x, top))
    return steps.done(steps("Add", steps("Log", _reduced(steps, "ReduceSum", powers)), top))


@rewrites("Reciprocal")
def reciprocal(graph: Graph, node: Node) -> bool:
    """1 / x."""
    steps = Steps(graph, node)
    return is_float(node) and steps.done(steps("Div", 1.0, node.inputs[0]))


@rewrites("Mean")
def mean(graph: Graph, node: Node) -> bool:
    """A sum by its number of terms."""
    steps = Steps(graph, node)
    if not is_float(node):
        return False
    total: Tensor = node.inputs[0]
    for term in node.inputs[1:]:
        total = steps("Add", total, term)
    return steps.done(steps("Mul", total, 1.0 / len(node.inputs)))


@rewrites("Softsign")
def softsign(graph: Graph, node: Node) -> bool:
    """x / (1 + |x|)."""
    steps, x = Steps(graph, node), node.inputs[0]
    return is_float(node) and steps.done(steps("Div", x, steps("Add", steps("Abs", x), 1.0)))


@rewrites("ThresholdedRelu")
def thresholded_relu(graph: Graph, node: Node) -> bool:
    """x above alpha, else 0."""
    steps, x = Steps(graph, node), node.inputs[0]
    if not is_float(node):
        return False
    return steps.done(_chosen(steps, _above(steps, x, float(node.attrs.get("alpha", 1.0))), x, 0.0))


@rewrites("Shrink")
def shrink(graph: Graph, node: Node) -> bool:
    """x nearer to zero by bias beyond lambd on either side, else 0."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    bias, edge = float(node.attrs.get("bias", 0.0)), float(node.attrs.get("lambd", 0.5))
    below = _above(steps, steps("Mul", x, -1.0), edge)
    left = _chosen(steps, below, steps("Add", x, bias), 0.0)
    return steps.done(_chosen(steps, _above(steps, x, edge), steps("Sub", x, bias), left))


def _above(steps: Steps, x: Tensor, edge: float) -> Variable:
    """Where x is above a number."""
    made = steps("Greater", x, edge)
    made.dtype = np.dtype(bool)
    return made


def _chosen(steps: Steps, where: Variable, x: Tensor, other: Tensor | float) -> Variable:
    """x there, and the other elsewhere; a product with 0 and 1 would make infinite numbers none."""
    made = steps("Where", where, x, other)
    made.dtype = np.dtype(np.float32)
    return made


@rewrites("LpNormalization")
def lp_normalization(graph: Graph, node: Node) -> bool:
    """x by its norm along an axis."""
    if not is_float(node):
        return False
    steps, x, order = Steps(graph, node), node.inputs[0], int(node.attrs.get("p", 2))
    axis = [int(node.attrs.get("axis", -1))]
    powers = steps("Abs", x) if order == 1 else steps("Mul", x, x)
    attrs: dict[str, Any] = {"keepdims": 1}
    axes = [graph.const(f"{node.name}.axes", np.array(axis, np.int64))]
    norm = steps("ReduceSum", powers, *axes, **attrs)
    if order == 2:
        norm = steps("Sqrt", norm)
    # What is zero throughout stays so, as in onnxruntime.
    return steps.done(steps("Div", x, steps("Max", norm, float(np.finfo(np.float32).tiny))))


@rewrites("RMSNormalization")
def rms_normalization(graph: Graph, node: Node) -> bool:
    """x by the root of the mean of its squares over the last axes, scaled."""
    x = node.inputs[0]
    if not is_float(node) or x.shape is None:
        return False
    steps, rank = Steps(graph, node), len(x.shape)
    axis = int(node.attrs.get("axis", -1)) % rank
    attrs = {"keepdims": 1, "axes": list(range(axis, rank))} if graph.opset < 18 else {"keepdims": 1}
    axes = [] if graph.opset < 18 else [graph.const(f"{node.name}.axes", np.arange(axis, rank, dtype=np.int64))]
    square = steps("ReduceMean", steps("Mul", x, x), *axes, **attrs)
    root = steps("Sqrt", steps("Add", square, float(node.attrs.get("epsilon", 1e-5))))
    return steps.done(steps("Mul", steps("Div", x, root), node.inputs[1]))


@rewrites("Hardmax")
def hardmax(graph: Graph, node: Node) -> bool:
    """1 at the first of the greatest along an axis, 0 elsewhere."""
    x = node.inputs[0]
    if not is_float(node) or x.shape is None or graph.opset < 13:
        return False
    axis = int(node.attrs.get("axis", -1)) % len(x.shape)
    size = x.shape[axis]
    if not isinstance(size, int):
        return False
    steps = Steps(graph, node)
    place = steps("ArgMax", x, axis=axis, keepdims=0)
    place.dtype = np.dtype(np.int64)
    place.shape = [s for a, s in enumerate(x.shape) if a != axis]
    depth = graph.const(f"{node.name}.depth", np.array(size, np.int64))
    values = graph.const(f"{node.name}.values", np.array([0, 1], np.float32))
    made = steps("OneHot", place, depth, values, axis=axis)
    made.dtype = np.dtype(np.float32)
    return steps.done(made)


@rewrites("Sinh", "Cosh")
def hyperbolic(graph: Graph, node: Node) -> bool:
    """Half the difference, or the sum, of two exponentials."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    rising, falling = steps("Exp", x), steps("Exp", steps("Mul", x, -1.0))
    return steps.done(steps("Mul", steps("Sub" if node.op == "Sinh" else "Add", rising, falling), 0.5))


@rewrites("Tan")
def tangent(graph: Graph, node: Node) -> bool:
    """Sine by cosine."""
    steps, x = Steps(graph, node), node.inputs[0]
    return is_float(node) and steps.done(steps("Div", steps("Sin", x), steps("Cos", x)))


@rewrites("IsNaN")
def is_nan(graph: Graph, node: Node) -> bool:
    """What is not equal to itself."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    equal = steps("Equal", x, x)
    equal.dtype = np.dtype(bool)
    made = steps("Not", equal)
    made.dtype = np.dtype(bool)
    return steps.done(made)


@rewrites("CumSum")
def cumulative_sum(graph: Graph, node: Node) -> bool:
    """A product with a triangle of ones along the axis."""
    x, axis = node.inputs[0], known(node.inputs[1])
    if not is_float(node) or axis is None or x.shape is None:
        return False
    place = int(axis.reshape(-1)[0]) % len(x.shape)
    size = x.shape[place]
    if not isinstance(size, int):
        return False
    ones = np.triu(np.ones((size, size), np.float32), 1 if node.attrs.get("exclusive", 0) else 0)
    if node.attrs.get("reverse", 0):
        ones = ones.T
    steps = Steps(graph, node)
    weights = graph.const(f"{node.name}.ones", np.ascontiguousarray(ones))
    last = len(x.shape) - 1
    if len(x.shape) == 1:
        return False
    if place == last:
        return steps.done(steps("MatMul", x, weights))
    order = [last if a == place else place if a == last else a for a in range(last + 1)]
    turned = steps("MatMul", steps("Transpose", x, perm=order), weights)
    return steps.done(steps("Transpose", turned, perm=order))
