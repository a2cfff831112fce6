"""What stood behind a cut, in numpy: every operator against onnxruntime, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.backends.on_board.tail import RULES, Tail
from edgec.backends.tail_program import TailProgram, tail_of
from edgec.ir.execution import Session
from edgec.ir.shapes import Shapes
from edgec.testing import model

WEIGHTS = "float two, float half, float[3] f3, int64[4] shape, int64[1] a1, int64[1] a2, int64[1] a0, int64[2] a23"
WEIGHTS += ", int64[2] parts, int64[2] starts, int64[2] ends, int64[2] steps, int64[2] along, int64[2] picks"
WEIGHTS += ", int64[4] wide, int64[4] reps, int64[1] k, float[5,3,1,1] w, float[5] b, int64[2] flat, float[60,4] m"
WEIGHTS += ", float[4] c, int64[1,3,2,1] els, int64[2,3] nd, int64 s0, int64 s9, int64 s2, int64[1] most, float[1] iou"
WEIGHTS += ", float[1] least, int64[1] back, int64[1] front, float[2] f2"
VALUES: dict[str, Any] = {
    "two": 2,
    "half": 0.5,
    "f3": [0.1, 0.2, 0.3],
    "shape": [0, 5, -1, 3],
    "a1": [1],
    "a2": [2],
    "a0": [0],
    "a23": [2, 3],
    "parts": [1, 2],
    "starts": [-1, 0],
    "ends": [-9, 4],
    "steps": [-1, 2],
    "along": [2, 3],
    "picks": [2, 0],
    "wide": [2, 3, 4, 5],
    "reps": [1, 2, 1, 1],
    "k": [2],
    "flat": [1, 60],
    "els": [[[[1], [0]], [[2], [3]], [[0], [1]]]],
    "nd": [[0, 1, 2], [0, 2, 3]],
    "s0": 0,
    "s9": 9,
    "s2": 2,
    "most": [3],
    "iou": [0.5],
    "least": [0.2],
    "back": [-1],
    "front": [-100],
    "f2": [1, 2],
}
UNARY = "Abs Ceil Cos Exp Floor Neg Reciprocal Relu Round Sigmoid Sign Sin Tanh Softplus Identity HardSigmoid LeakyRelu"
COMPARISONS, LOGIC = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), ("And", "Or", "Xor")
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2")
BODIES = {
    **{op: f"y = {op}(x)" for op in UNARY.split()},
    "Log": "a = Abs(x)\ny = Log(a)",
    "Sqrt": "a = Abs(x)\ny = Sqrt(a)",
    "Add": "y = Add(x, half)",
    "Sub": "y = Sub(half, x)",
    "Mul": "y = Mul(x, x)",
    "Div": "y = Div(x, two)",
    "Pow": "y = Pow(x, two)",
    "Max": "y = Max(x, half)",
    "Min": "y = Min(x, half, two)",
    "Sum": "y = Sum(x, x, half)",
    "Clip": "y = Clip(x, , half)",
    **{op: f"a = {op}(x, half)\ny = Cast<to=1>(a)" for op in COMPARISONS},
    **{op: f"a = Greater(x, half)\ne = Less(x, two)\nd = {op}(a, e)\ng = Not(d)\ny = Cast<to=7>(g)" for op in LOGIC},
    "Where": "a = Greater(x, half)\ny = Where(a, x, two)",
    "Reshape": "y = Reshape(x, shape)",
    "Flatten": "y = Flatten<axis=2>(x)",
    "Transpose": "y = Transpose<perm=[0,2,3,1]>(x)",
    "Unsqueeze": "a = Unsqueeze(x, a1)\ny = Neg(a)",
    "Squeeze": "y = Squeeze(x, a0)",
    "Concat": "y = Concat<axis=2>(x, x)",
    "Split": "a, bb = Split<axis=1>(x, parts)\ny = Mul(a, bb)",
    "Slice": "y = Slice(x, starts, ends, along, steps)",
    "Slice backwards": "y = Slice(x, back, front, a2, back)",
    "Gather": "y = Gather<axis=3>(x, picks)",
    "GatherElements": "y = GatherElements<axis=2>(x, els)",
    "GatherND": "y = GatherND(x, nd)",
    "Expand": "y = Expand(x, wide)",
    "Tile": "y = Tile(x, reps)",
    "Softmax": "y = Softmax<axis=1>(x)",
    "LogSoftmax": "y = LogSoftmax(x)",
    **{op: f"y = {op}<axes=[2,3],keepdims=0>(x)" for op in REDUCTIONS},
    "ReduceSum": "y = ReduceSum(x, a23)",
    "ReduceSum of all": "y = ReduceSum<keepdims=0>(x)",
    "ArgMax": "y = ArgMax<axis=1>(x)",
    "ArgMin": "y = ArgMin<axis=3,keepdims=0,select_last_index=1>(x)",
    "TopK": "a, i = TopK<axis=3>(x, k)\nj = Cast<to=1>(i)\ny = Concat<axis=3>(a, j)",
    "TopK of the least": "y, i = TopK<axis=1,largest=0>(x, k)",
    "MatMul": "a = Transpose<perm=[0,1,3,2]>(x)\ny = MatMul(x, a)",
    "Gemm": "a = Reshape(x, flat)\ny = Gemm<alpha=0.5,beta=2.0>(a, m, c)",
    "Conv": "y = Conv(x, w, b)",
    "Shape": "a = Shape<start=1>(x)\nf = Cast<to=1>(a)\ny = Mul(f, half)",
    "Range": "y = Range(s0, s9, s2)\nz = Relu(x)",
    "NonZero": "a = Greater(x, half)\ny = NonZero(a)",
}


def check(body: str, *, opset: int = 17) -> None:
    """The whole network against the part up to the cut and what numpy makes of it."""
    graph = model(f"x = Identity(given)\n{body}", "(float[1,3,4,5] given) => (y)", WEIGHTS, opset=opset, **VALUES)
    Shapes(graph).annotate(graph)
    program = tail_of(graph, {"x"})
    assert isinstance(program, TailProgram), program
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal((1, 3, 4, 5)).astype(np.float32)
        expected, results = Session(graph).run({"given": x}), program.tail()({"x": x})
        for name, values in expected.items():
            assert results[name].shape == values.shape
            np.testing.assert_allclose(results[name], values, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", list(BODIES))
def test_operator(case: str) -> None:
    check(BODIES[case])


def test_every_operator_is_tried() -> None:
    tried = {word.split("<")[0] for body in BODIES.values() for word in body.replace("(", " ( ").split()}
    assert set(RULES) - tried == {"NonMaxSuppression"}


@pytest.mark.parametrize("center", [0, 1])
def test_suppression(center: int) -> None:
    graph = model(
        f"boxes = Identity(b0)\nscores = Identity(s0)\n"
        f"y = NonMaxSuppression<center_point_box={center}>(boxes, scores, most, iou, least)",
        "(float[2,20,4] b0, float[2,3,20] s0) => (int64[n,3] y)",
        "int64[1] most, float[1] iou, float[1] least",
        most=[4],
        iou=[0.3],
        least=[0.3],
    )
    program = tail_of(graph, {"boxes", "scores"})
    assert isinstance(program, TailProgram)
    random = np.random.default_rng(1)
    boxes = random.uniform(0, 1, (2, 20, 4)).astype(np.float32)
    scores = random.uniform(0, 1, (2, 3, 20)).astype(np.float32)
    expected = Session(graph).run({"b0": boxes, "s0": scores})["y"]
    assert len(expected) > 8
    np.testing.assert_array_equal(program.tail()({"boxes": boxes, "scores": scores})["y"], expected)


def test_it_is_written_and_read(tmp_path: Path) -> None:
    graph = model("x = Relu(given)\na, b = Split<axis=1>(x, parts)\ny = Mul(b, two)", "(float[1,3] given) => (y)",
                  "int64[2] parts, float two", parts=[1, 2], two=2)  # fmt: skip
    program = tail_of(graph, {"x"})
    assert isinstance(program, TailProgram)
    assert program.write(tmp_path) == ["tail.json", "tail.npz"]
    x = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_array_equal(Tail.load(tmp_path)({"x": x})["y"], [[4, 6]])


REFUSED = {
    "y = Conv<pads=[1,1,1,1]>(x, w3)": "behind it is a whole layer: cut the network behind it",
    "y = Conv<strides=[2,2]>(x, w)": "behind it is a whole layer: cut the network behind it",
    "y = Add(x, given)": "it needs the input 'given', too",
    "y = Elu(x)": "behind it is of an operator that numpy has no counterpart for",
    "y = GatherND<batch_dims=1>(x, nd)": "behind it has batch dimensions",
}


@pytest.mark.parametrize("body", list(REFUSED))
def test_refused(body: str) -> None:
    weights = f"{WEIGHTS}, float[5,3,3,3] w3"
    values = {**VALUES, "nd": [[0, 1, 2]]} if "batch_dims" in body else VALUES
    weights = weights.replace("int64[2,3] nd", "int64[1,3] nd") if "batch_dims" in body else weights
    graph = model(f"x = Identity(given)\n{body}", "(float[1,3,4,5] given) => (y)", weights, **values)
    reason = tail_of(graph, {"x"})
    assert isinstance(reason, str) and REFUSED[body] in reason
