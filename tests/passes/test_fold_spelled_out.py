"""fold: activations and normalizations that exporters spell out, and what only looks like one."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, model, operators, run_pass

ENDS = ("f = MatMul(x, w)\nc = Sin(f)\n", "\ny = MatMul(g, v)")
WEIGHTS = "float[8,8] w, float[8,4] v, float one, float half, float three, float six, float zero, float sixth, float k"
WEIGHTS += ", float root, float fifth"
VALUES = {
    "one": 1, "half": 0.5, "three": 3, "six": 6, "zero": 0, "sixth": 1 / 6, "k": 0.044715, "root": np.sqrt(2 / np.pi),
    "fifth": 0.2,
}  # fmt: skip
TANH = "t = Tanh(a)\nb = Add(t, one)\n"
CUBES = {
    "cube by Pow": "p = Pow(c, three)\nq = Mul(p, k)\nr = Add(c, q)\na = Mul(r, root)\n",
    "cube by products": "s = Mul(c, c)\np = Mul(c, s)\nq = Mul(p, k)\nr = Add(q, c)\na = Mul(r, root)\n",
    "x before the bracket": "s = Mul(c, c)\nq = Mul(s, k)\nr = Add(q, one)\np = Mul(c, root)\na = Mul(p, r)\n",
}
ONES = {
    **{f"Gelu, {name}": (f"{cube}{TANH}m = Mul(c, b)\ng = Mul(m, half)", "Gelu") for name, cube in CUBES.items()},
    "Gelu, half of x first": (f"h = Mul(c, half)\n{CUBES['cube by Pow']}{TANH}g = Mul(h, b)", "Gelu"),
    "HardSigmoid": ("a = Add(c, three)\nb = Clip(a, zero, six)\ng = Div(b, six)", "HardSigmoid"),
    "HardSigmoid of Keras": ("d = Mul(c, fifth)\na = Add(d, half)\ng = Clip(a, zero, one)", "HardSigmoid"),
    "HardSwish": ("a = Add(c, three)\nb = Clip(a, zero, six)\nm = Mul(c, b)\ng = Div(m, six)", "HardSwish"),
    "HardSwish, scaled first": (
        "a = Add(c, three)\nb = Clip(a, zero, six)\nm = Mul(b, sixth)\ng = Mul(m, c)",
        "HardSwish",
    ),
    "HardSwish of a HardSigmoid": ("s = HardSigmoid<alpha=0.16666667>(c)\ng = Mul(c, s)", "HardSwish"),
    "Softplus": ("e = Exp(c)\na = Add(e, one)\ng = Log(a)", "Softplus"),
    "Mish": ("e = Exp(c)\na = Add(e, one)\nl = Log(a)\nt = Tanh(l)\ng = Mul(c, t)", "Mish"),
    "Softmax": ("e = Exp(c)\ns = ReduceSum(e, axes)\ng = Div(e, s)", "Softmax"),
    "Softmax without its largest": (
        "m = ReduceMax(c, axes)\nd = Sub(c, m)\ne = Exp(d)\ns = ReduceSum(e, axes)\ng = Div(e, s)",
        "Softmax",
    ),
}
NONES = {
    "another cube": (f"{CUBES['cube by Pow']}{TANH}m = Mul(c, b)\ng = Mul(m, half)", {"k": 0.05}),
    "another root": (f"{CUBES['cube by Pow']}{TANH}m = Mul(c, b)\ng = Mul(m, half)", {"root": 0.7}),
    "times another tensor": (f"{CUBES['cube by Pow']}{TANH}n = Cos(c)\nm = Mul(n, b)\ng = Mul(m, half)", {}),
    "another bound": ("a = Add(c, three)\nb = Clip(a, zero, six)\ng = Div(b, six)", {"six": 5}),
    "another shift": ("a = Add(c, three)\nb = Clip(a, zero, six)\ng = Div(b, six)", {"three": 2}),
    "a slope of five digits": ("s = HardSigmoid<alpha=0.16667>(c)\ng = Mul(c, s)", {}),
    "a line of five digits": (
        "d = Mul(c, sixth)\na = Add(d, half)\nb = Clip(a, zero, one)\ng = Mul(c, b)",
        {"sixth": 0.16667},
    ),
    "a root of five digits": (f"{CUBES['cube by Pow']}{TANH}m = Mul(c, b)\ng = Mul(m, half)", {"root": 0.79788}),
    "another gate": ("s = HardSigmoid<alpha=0.2>(c)\ng = Mul(c, s)", {}),
    "another logarithm": ("e = Exp(c)\na = Add(e, one)\ng = Log(a)", {"one": 2}),
    "the sum of another axis": ("e = Exp(c)\ns = ReduceSum<keepdims=1>(e, first)\ng = Div(e, s)", {}),
}


def network(body: str, opset: int = 20, **changed: float):
    return model(
        ENDS[0] + body + ENDS[1],
        "(float[3,8] x) => (float[3,4] y)",
        f"{WEIGHTS}, int64[1] axes, int64[2] first",
        opset=opset,
        **{**VALUES, "axes": [-1], "first": [0, 1], **changed},
    )


@pytest.mark.parametrize("case", list(ONES))
def test_becomes_one_operator(case: str) -> None:
    body, op = ONES[case]
    graph = network(body)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["MatMul", "Sin", op, "MatMul"]
    assert_same(before, graph)


@pytest.mark.parametrize("case", list(NONES))
def test_what_differs_stays(case: str) -> None:
    body, changed = NONES[case]
    graph = network(body, **changed)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert not {"Gelu", "HardSwish", "Softplus", "Softmax"} & set(operators(graph))
    assert_same(before, graph)


@pytest.mark.parametrize(("case", "opset"), [("Gelu, cube by Pow", 19), ("Mish", 17)])
def test_an_opset_that_lacks_the_operator(case: str, opset: int) -> None:
    graph = network(ONES[case][0].replace("ReduceMax(c, axes)", "ReduceMax<axes=[-1]>(c)"), opset)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert ONES[case][1] not in operators(graph)
    assert_same(before, graph)


def normalized(axes: list[int], scale: str, shape: str = "2,6,4,4", divide: str = "n = Div(d, s)", opset: int = 18):
    body = f"""c = Relu(x)
    m = ReduceMean(c, axes)
    d = Sub(c, m)
    p = Mul(d, d)
    v = ReduceMean(p, axes)
    e = Add(v, eps)
    s = Sqrt(e)
    {divide}
    k = Mul(n, scale)
    y = Add(k, shift)"""
    return model(
        body,
        f"(float[{shape}] x) => (float[{shape}] y)",
        f"float[{scale}] scale, float[{scale}] shift, float eps, float one, int64[{len(axes)}] axes",
        opset=opset,
        eps=1e-3,
        one=1,
        axes=axes,
    )


@pytest.mark.parametrize(
    ("axes", "scale", "shape", "kinds"),
    [
        ([1], "6,1,1", "2,6,4,4", ["Relu", "Transpose", "LayerNormalization", "Transpose"]),
        ([3], "4", "2,6,4,4", ["Relu", "LayerNormalization"]),
        ([-2, -1], "4,4", "2,6,4,4", ["Relu", "LayerNormalization"]),
        ([3], "4", "n,6,4,4", ["Relu", "LayerNormalization"]),
    ],
)
def test_layer_normalization(axes: list[int], scale: str, shape: str, kinds: list[str]) -> None:
    graph = normalized(axes, scale, shape)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == kinds
    if "n" not in shape:
        assert_same(before, graph)


@pytest.mark.parametrize("divide", ["r = Reciprocal(s)\nn = Mul(d, r)", "r = Div(one, s)\nn = Mul(r, d)"])
def test_layer_normalization_by_a_reciprocal(divide: str) -> None:
    graph = normalized([3], "4", divide=divide)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["Relu", "LayerNormalization"]
    assert_same(before, graph)


@pytest.mark.parametrize(
    ("opset", "kinds"),
    [(23, ["Relu", "RMSNormalization"]), (22, ["Relu", "Mul", "ReduceMean", "Add", "Sqrt", "Div", "Mul"])],
)
def test_rms_normalization(opset: int, kinds: list[str]) -> None:
    graph = model(
        "c = Relu(x)\np = Mul(c, c)\nv = ReduceMean(p, axes)\ne = Add(v, eps)\ns = Sqrt(e)\nn = Div(c, s)\n"
        "y = Mul(n, scale)",
        "(float[2,3,8] x) => (float[2,3,8] y)",
        "float[8] scale, float eps, int64[1] axes",
        opset=opset,
        eps=1e-5,
        axes=[-1],
    )
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == kinds
    assert_same(before, graph)
