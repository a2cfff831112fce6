"""Rewrites before quantization: each computes what it replaces, and leaves nothing of it."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.execution import Session
from edgec.ir.graph import Constant

IMAGE = (1, 4, 6, 6)


def _batch_norm(b, x):
    args = b.weight(4), b.weight(4), b.weight(4), b.const([0.5, 1.0, 1.5, 2.0])
    return b("BatchNormalization", x, *args, epsilon=1e-3)


CASES = {
    "HardSwish": (lambda b, x: b("HardSwish", x), {"Add", "Clip", "Mul"}),
    "HardSigmoid": (lambda b, x: b("HardSigmoid", x, alpha=1 / 6, beta=0.5), {"Add", "Clip", "Mul"}),
    "HardSigmoid, default": (lambda b, x: b("HardSigmoid", x), {"Add", "Clip", "Mul"}),
    "BatchNormalization": (_batch_norm, {"Mul", "Add"}),
    "Div": (lambda b, x: b("Div", x, b.const(7.0)), {"Mul"}),
    "Div, by channel": (lambda b, x: b("Div", x, b.const([[[2.0]], [[3.0]], [[5.0]], [[7.0]]])), {"Mul"}),
    "Pow": (lambda b, x: b("Pow", x, b.const(2.0)), {"Mul"}),
    "Sum": (lambda b, x: b("Sum", x, b.const(1.0), x), {"Add"}),
    "Clip": (lambda b, x: b("Clip", x, b.const(0.0)), {"Relu"}),
    "Neg": (lambda b, x: b("Neg", x), {"Mul"}),
    "Abs": (lambda b, x: b("Abs", x), {"Mul", "Max"}),
    "Gather, one": (lambda b, x: b("Gather", x, b.const(-1, np.int64), axis=1), {"Slice", "Squeeze"}),
    "Gather, steps": (lambda b, x: b("Gather", x, b.ints(1, 3, 5), axis=3), {"Slice"}),
    "Gather, any": (lambda b, x: b("Gather", x, b.ints(0, 3, 1), axis=1), {"Gather"}),
    "Pad, negative": (lambda b, x: b("Pad", x, b.ints(0, 0, -1, 0, 0, 0, -2, -1)), {"Slice"}),
    "Pad, both": (lambda b, x: b("Pad", x, b.ints(0, 0, -1, 2, 0, 0, 1, -1), b.const(0.5)), {"Slice", "Pad"}),
    "Expand": (lambda b, x: b("Expand", b("GlobalAveragePool", x), b.ints(1, 4, 6, 6)), {"GlobalAveragePool", "Add"}),
    "Expand, before Mul": (
        lambda b, x: b("Mul", x, b("Expand", b("GlobalAveragePool", x), b.ints(1, 4, 6, 6))),
        {"GlobalAveragePool", "Mul"},
    ),
    "Expand, alone": (
        lambda b, x: b("Mul", b("Expand", b("GlobalAveragePool", x), b.ints(1, 4, 6, 6)), b.const(2.0)),
        {"GlobalAveragePool", "Add", "Mul"},
    ),
    "Dropout": (lambda b, x: b("Relu", b("Dropout", x)), {"Relu"}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_rewrites_are_exact(lab, case):
    make, left = CASES[case]
    graph = lab.build(make, [IMAGE])
    feeds = lab.noise(graph, low=-8, high=8)
    wanted = Session(graph).run(feeds)
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert {node.op for node in graph.nodes} == left
    found = Session(graph).run(feeds)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
    assert all(t.shape is not None for node in graph.nodes for t in node.outputs)


def test_hard_swish_runs_on_integers(lab):
    graph = lab.build(lambda b, x: b("HardSwish", x), [IMAGE])
    feeds = lab.noise(graph, low=-4, high=4)
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    found = lab.compared(lab.quantized(graph, feeds), feeds)
    assert found.kinds == ["ADD", "MUL", "MUL"]
    assert found.steps() <= 2


def test_gemm_factors_go_into_the_weights(lab):
    graph = lab.build(lambda b, x: b("Gemm", x, b.weight(5, 3), b.weight(3), alpha=-0.5, beta=2.0), [(1, 5)])
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)["y0"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    (node,) = graph.nodes
    assert (node.attrs["alpha"], node.attrs["beta"]) == (1.0, 1.0)
    np.testing.assert_allclose(Session(graph).run(feeds)["y0"], wanted, rtol=1e-5, atol=1e-6)


def test_a_product_and_its_bias_become_one_gemm(lab):
    graph = lab.build(lambda b, x: b("Add", b("MatMul", x, b.weight(5, 3)), b.weight(3)), [(2, 5)])
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)["y0"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert [node.op for node in graph.nodes] == ["Gemm"]
    np.testing.assert_allclose(Session(graph).run(feeds)["y0"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda b, x: b("Div", b.const(1.0), x),
        lambda b, x: b("Pow", x, b.const(3.0)),
        lambda b, x: b("Clip", x, b.const(-1.0), b.const(1.0)),
        lambda b, x: b("Add", x, b.const(1.0)),
    ],
)
def test_what_needs_no_rewrite_stays(lab, make):
    graph = lab.build(make, [IMAGE])
    before = [node.op for node in graph.nodes]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert [node.op for node in graph.nodes] == before
    assert all(isinstance(t, Constant) or t is graph.inputs[0] for t in graph.nodes[0].inputs)
