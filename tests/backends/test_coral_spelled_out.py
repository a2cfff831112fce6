"""Operators that are written by others: exactly what onnxruntime computes, and what its file gives."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.execution import Session

IMAGE = (1, 4, 6, 5)
CASES = {
    "ReduceL1": lambda b, x: b("ReduceL1", x, axes=[1], keepdims=0),
    "ReduceSumSquare": lambda b, x: b("ReduceSumSquare", x, axes=[2, 3]),
    "ReduceLogSum": lambda b, x: b("ReduceLogSum", b("Exp", x), axes=[3], keepdims=0),
    "ReduceLogSumExp": lambda b, x: b("ReduceLogSumExp", b("Mul", x, b.const(60.0)), axes=[1]),
    "Reciprocal": lambda b, x: b("Reciprocal", b("Add", x, b.const(3.0))),
    "Mean": lambda b, x: b("Mean", x, b("Relu", x), b.const(1.0)),
    "Softsign": lambda b, x: b("Softsign", x),
    "ThresholdedRelu": lambda b, x: b("ThresholdedRelu", x, alpha=0.3),
    "Shrink": lambda b, x: b("Shrink", x, bias=0.1, lambd=0.4),
    "Shrink, hard": lambda b, x: b("Shrink", x, lambd=0.2),
    "LpNormalization, 1": lambda b, x: b("LpNormalization", x, p=1, axis=1),
    "LpNormalization, 2": lambda b, x: b("LpNormalization", x, axis=1),
    "LpNormalization of zeros": lambda b, x: b("LpNormalization", b("Mul", x, b.const(0.0))),
    "Hardmax": lambda b, x: b("Hardmax", x, axis=1),
    "Hardmax, last": lambda b, x: b("Hardmax", x),
    "LpPool, 1": lambda b, x: b("LpPool", x, p=1, kernel_shape=[2, 2], strides=[2, 1]),
    "LpPool, 2": lambda b, x: b("LpPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "Sinh": lambda b, x: b("Sinh", x),
    "Cosh": lambda b, x: b("Cosh", x),
    "Tan": lambda b, x: b("Tan", x),
    "Sign": lambda b, x: b("Sign", x),
    "IsNaN": lambda b, x: b("Cast", b("IsNaN", b("Sqrt", x)), to=1),
    "CumSum": lambda b, x: b("CumSum", x, b.const(3, np.int64)),
    "CumSum, exclusive": lambda b, x: b("CumSum", x, b.const(1, np.int64), exclusive=1),
    "CumSum, reverse": lambda b, x: b("CumSum", x, b.const(-2, np.int64), reverse=1),
    "CumSum, both": lambda b, x: b("CumSum", x, b.const(3, np.int64), exclusive=1, reverse=1),
}
LEFT = {"Sign"}


@pytest.mark.parametrize("case", list(CASES))
def test_it_is_exact_and_the_file_agrees(lab, case):
    graph = lab.build(CASES[case], [IMAGE])
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)["y0"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    op = case.partition(",")[0].partition(" ")[0]
    assert (op in {node.op for node in graph.nodes}) == (op in LEFT)
    np.testing.assert_allclose(Session(graph).run(feeds)["y0"], wanted, rtol=2e-5, atol=1e-5)
    lab.compared(graph, feeds).close()


def test_rms_normalization(lab):
    """onnxruntime has no kernel for it: against its definition."""
    graph = lab.build(lambda b, x: b("RMSNormalization", x, b.const([1.0, 2.0, 3.0, 4.0, 5.0])), [IMAGE], opset=23)
    x = lab.noise(graph)["x0"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    wanted = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * np.arange(1, 6, dtype=np.float32)
    np.testing.assert_allclose(lab.compared(graph, {"x0": x}).fast["y0"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["ThresholdedRelu", "Shrink", "Shrink, hard"])
def test_infinite_numbers_stay_what_they_are(lab, case):
    graph = lab.build(CASES[case], [(1, 1, 1, 4)])
    feeds = {"x0": np.array([np.inf, -np.inf, 0.0, 2.0], np.float32).reshape(1, 1, 1, 4)}
    wanted = Session(graph).run(feeds)["y0"]
    assert not np.isnan(wanted).any()
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    np.testing.assert_allclose(lab.compared(graph, feeds).fast["y0"], wanted, rtol=1e-6)
