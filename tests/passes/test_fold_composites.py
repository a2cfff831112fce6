"""fold: Gelu and LayerNormalization that an exporter spelled out."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, model, operators, run_pass

GELU = "e = Erf(d)\na = Add(e, one)\n"
GELUS = {
    "torch": f"d = Div(c, root)\n{GELU}m = Mul(c, a)\ng = Mul(m, half)",
    "by the inverse": f"d = Mul(c, inverse)\n{GELU}m = Mul(a, c)\ng = Mul(half, m)",
    "half of x": f"d = Div(c, root)\n{GELU}h = Mul(c, half)\ng = Mul(h, a)",
    "half of the bracket": f"d = Div(c, root)\n{GELU}h = Mul(a, half)\ng = Mul(c, h)",
}
NORMALIZATION = "m = ReduceMean<axes=[-1]>(c)\nd = Sub(c, m)\n{square}\nv = ReduceMean<axes=[-1]>(p)\n"
NORMALIZATION += "e = Add(v, eps)\ns = Sqrt(e)\nn = Div(d, s)\n"


def gelu(body: str, opset: int = 20, half: float = 0.5) -> Graph:
    return model(
        f"c = MatMul(x, w)\n{body}\ny = MatMul(g, v)",
        "(float[3,8] x) => (float[3,4] y)",
        "float[8,8] w, float[8,4] v, float root, float inverse, float one, float half",
        opset=opset,
        root=np.sqrt(2),
        inverse=1 / np.sqrt(2),
        one=1,
        half=half,
    )


def normalization(
    square: str = "p = Mul(d, d)", tail: str = "k = Mul(n, scale)\ny = Add(k, shift)", opset: int = 17
) -> Graph:
    body = NORMALIZATION.format(square=square) + tail
    if opset >= 18:
        body = body.replace("<axes=[-1]>(c)", "(c, axes)").replace("<axes=[-1]>(p)", "(p, axes)")
    return model(
        f"c = Relu(x)\n{body}",
        "(float[2,3,8] x) => (float[2,3,8] y)",
        "float[8] scale, float[8] shift, float eps, float two, int64[1] axes",
        opset=opset,
        eps=1e-3,
        two=2,
        axes=[2],
    )


@pytest.mark.parametrize("case", list(GELUS))
def test_gelu(case: str) -> None:
    graph = gelu(GELUS[case])
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == ["MatMul", "Gelu", "MatMul"]
    assert "the end of a Gelu that was spelled out: became one" in [what for _, what in did(ctx)]
    assert_same(before, graph)


@pytest.mark.parametrize(
    ("body", "opset", "half"),
    [
        (GELUS["torch"], 17, 0.5),
        (GELUS["torch"], 20, 0.25),
        (f"d = Div(c, half)\n{GELU}m = Mul(c, a)\ng = Mul(m, half)", 20, 0.5),
        (f"d = Div(c, root)\n{GELU}m = Mul(d, a)\ng = Mul(m, half)", 20, 0.5),
        (f"d = Div(c, root)\n{GELU}m = Mul(c, a)\nq = Mul(m, half)\ng = Add(q, a)", 20, 0.5),
    ],
    ids=["opset 17", "not a half", "not the root", "not by x", "read by others"],
)
def test_what_is_no_gelu(body: str, opset: int, half: float) -> None:
    graph = gelu(body, opset, half)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert "Erf" in operators(graph) and "Gelu" not in operators(graph)
    assert_same(before, graph)


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("square", ["p = Mul(d, d)", "p = Pow(d, two)"])
def test_layer_normalization(square: str, opset: int) -> None:
    graph = normalization(square, opset=opset)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["Relu", "LayerNormalization"]
    node = graph.nodes[1]
    assert (node.attrs["axis"], len(node.inputs)) == (2, 3)
    assert node.attrs["epsilon"] == pytest.approx(1e-3)
    assert_same(before, graph)


@pytest.mark.parametrize("tail", ["y = Neg(n)", "k = Add(n, shift)\ny = Neg(k)", "k = Mul(n, scale)\ny = Neg(k)"])
def test_layer_normalization_without_scale_or_shift(tail: str) -> None:
    graph = normalization(tail=tail)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["Relu", "LayerNormalization", "Neg"]
    assert_same(before, graph)


@pytest.mark.parametrize(
    ("square", "tail"),
    [
        ("p = Mul(d, c)", "y = Neg(n)"),
        ("p = Pow(d, scale)", "y = Neg(n)"),
        ("p = Mul(d, d)", "k = Neg(n)\ny = Add(k, s)"),
    ],
    ids=["no square", "no power of two", "its deviation is read"],
)
def test_what_is_no_layer_normalization(square: str, tail: str) -> None:
    graph = normalization(square, tail)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert "LayerNormalization" not in operators(graph)
    assert_same(before, graph)
