"""Inverse trigonometry by ATAN2, and the error function.

Sources: the TFLite operator ATAN2; Abramowitz and Stegun, "Handbook of Mathematical Functions", 1964, 7.1.26 for the
error function, whose error is 1.5e-7 at most.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgec.backends.coral.legalize import rewrites
from edgec.backends.coral.lowering import Lowering, lowers
from edgec.backends.coral.steps import Steps, is_float
from edgec.backends.coral.value import Value, constant
from edgec.ir.graph import Graph, Node

_SCALE = 0.3275911
_COEFFICIENTS = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


@lowers("Atan")
def arc_tangent(low: Lowering, node: Node) -> None:
    """ATAN2(x, 1)."""
    x = low.real(low.value(node.inputs[0]))
    one = low.file.constant(f"{node.name}.one", np.ones(x.stored, np.float32))
    low.set(node.outputs[0], _atan2(low, [x, one], x, node.outputs[0].name))


@lowers("Asin", "Acos")
def arc_sine(low: Lowering, node: Node) -> None:
    """ATAN2 of x and the root of 1 - x^2, one way round or the other."""
    x = low.real(low.value(node.inputs[0]))
    name = node.outputs[0].name
    square = low.emit("MUL", [x, x], x.stored, x, schema.MulOptionsT(), name=f"{name}.square")
    one = constant(f"{node.name}.one", np.ones((), np.float32))
    rest = low.emit("SUB", [one, square], x.stored, x, schema.SubOptionsT(), name=f"{name}.rest")
    root = low.emit("SQRT", [rest], x.stored, x, name=f"{name}.root")
    low.set(node.outputs[0], _atan2(low, [x, root] if node.op == "Asin" else [root, x], x, name))


def _atan2(low: Lowering, inputs: list[Value | int], like: Value, name: str) -> Value:
    return low.emit("ATAN2", inputs, like.stored, like, schema.ATan2OptionsT(), name=name)


@rewrites("Asinh")
def area_sine(graph: Graph, node: Node) -> bool:
    """sign(x) log(|x| + root(x^2 + 1)): of the magnitude, for near -x the sum would be lost."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    size = steps("Abs", x)
    root = steps("Sqrt", steps("Add", steps("Mul", x, x), 1.0))
    return steps.done(steps("Mul", steps("Sign", x), steps("Log", steps("Add", size, root))))


@rewrites("Acosh")
def area_cosine(graph: Graph, node: Node) -> bool:
    """log(x + root(x^2 - 1))."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    root = steps("Sqrt", steps("Sub", steps("Mul", x, x), 1.0))
    return steps.done(steps("Log", steps("Add", x, root)))


@rewrites("Atanh")
def area_tangent(graph: Graph, node: Node) -> bool:
    """Half the log of (1 + x) / (1 - x)."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    ratio = steps("Div", steps("Add", x, 1.0), steps("Sub", 1.0, x))
    return steps.done(steps("Mul", steps("Log", ratio), 0.5))


@rewrites("Erf")
def error_function(graph: Graph, node: Node) -> bool:
    """sign(x) (1 - p(t) exp(-x^2)) with t = 1 / (1 + c |x|) and p of fifth degree."""
    if not is_float(node):
        return False
    steps, x = Steps(graph, node), node.inputs[0]
    t = steps("Div", 1.0, steps("Add", steps("Mul", steps("Abs", x), _SCALE), 1.0))
    series = steps("Mul", t, _COEFFICIENTS[-1])
    for coefficient in reversed(_COEFFICIENTS[:-1]):
        series = steps("Mul", steps("Add", series, coefficient), t)
    falling = steps("Exp", steps("Mul", steps("Mul", x, x), -1.0))
    return steps.done(steps("Mul", steps("Sign", x), steps("Sub", 1.0, steps("Mul", series, falling))))
