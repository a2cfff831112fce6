"""fold: operators in a row that are one, and what broadcasts by itself."""

from __future__ import annotations

import pytest

from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, model, operators, run_pass

CASES = {
    "Slices of other axes": ("a = Slice(x, s0, e3, ax2)\ny = Slice(a, s1, e4, ax3)", ["Slice"]),
    "Slices of one axis": ("a = Slice(x, s1, e4, ax3)\ny = Slice(a, s1, e3, ax3)", ["Slice"]),
    "a Slice to the end": ("a = Slice(x, s1, all, ax3)\ny = Slice(a, s1, all, ax3)", ["Slice"]),
    "Slices of one Slice": (
        "a = Slice(x, s0, e3, ax2)\nb = Slice(a, s0, e3, ax3)\nc = Slice(a, s1, e4, ax3)\ny = Max(b, c)",
        ["Slice", "Slice", "Max"],
    ),
    "Pads": ("a = Pad(x, p)\ny = Pad(a, p)", ["Pad"]),
    "Concats": ("r = Relu(x)\na = Concat<axis=1>(x, r)\ny = Concat<axis=1>(a, x)", ["Relu", "Concat"]),
    "a Split and a Concat": ("a, b = Split<axis=1>(x, parts)\nc = Concat<axis=1>(a, b)\ny = Relu(c)", ["Relu"]),
    "Casts": ("i = Cast<to=6>(x)\na = Cast<to=7>(i)\nb = Cast<to=1>(a)\ny = Neg(b)", ["Cast", "Cast", "Neg"]),
    "factors": ("a = Mul(x, two)\nb = Div(a, three)\nc = Mul(b, two)\ny = Relu(c)", ["Mul", "Relu"]),
    "terms": ("a = Add(x, two)\nb = Sub(a, three)\ny = Relu(b)", ["Add", "Relu"]),
    "bounds": ("a = Max(x, zero)\ny = Min(a, one)", ["Clip"]),
    "bounds from above": ("a = Min(one, x)\ny = Max(zero, a)", ["Clip"]),
    "means": ("a = ReduceMean<axes=[3]>(x)\ny = ReduceMean<axes=[2]>(a)", ["ReduceMean"]),
    "means without their axes": (
        "a = ReduceMean<axes=[1],keepdims=0>(x)\ny = ReduceMean<axes=[1],keepdims=0>(a)",
        ["ReduceMean"],
    ),
    "a mean of means": (
        "a = AveragePool<kernel_shape=[2,2],strides=[2,2]>(x)\ny = GlobalAveragePool(a)",
        ["GlobalAveragePool"],
    ),
    "an Expand that a reader does": (
        "n = ReduceL2<axes=[1]>(x)\ne = Expand(n, whole)\ny = Div(x, e)",
        ["ReduceL2", "Div"],
    ),
    "factors of both operands": (
        "r = Relu(x)\na = Mul(x, half)\nb = Mul(r, half)\nt = Transpose<perm=[0,1,3,2]>(b)\ny = MatMul(a, t)",
        ["Relu", "Mul", "Transpose", "MatMul"],
    ),
}  # fmt: skip
STAYS = {
    "a Slice that others read": (
        "a = Slice(x, s0, e3, ax2)\nb = Slice(a, s1, e4, ax3)\nc = Relu(a)\ny = Concat<axis=3>(b, c)"
    ),
    "Slices from the end": "a = Slice(x, s1, last, ax3)\ny = Slice(a, s0, e3, ax3)",
    "other padding": "a = Pad(x, p, one)\ny = Pad(a, p)",
    "Concats of other axes": "a = Concat<axis=1>(x, x)\ny = Concat<axis=2>(a, a)",
    "a Split in another order": "a, b = Split<axis=1>(x, parts)\nc = Concat<axis=1>(b, a)\ny = Relu(c)",
    "a Cast that loses": "a = Cast<to=6>(x)\nb = Cast<to=1>(a)\ny = Neg(b)",
    "a number that rounds": "a = Add(x, large)\nb = Sub(a, large)\ny = Relu(b)",
    "crossed bounds": "a = Max(x, one)\ny = Min(a, zero)",
    "sums of squares": "a = ReduceSumSquare<axes=[3]>(x)\ny = ReduceSumSquare<axes=[2]>(a)",
    "a pool that overlaps": "a = AveragePool<kernel_shape=[3,3],strides=[1,1]>(x)\ny = GlobalAveragePool(a)",
    "an Expand that gives the shape": "n = ReduceL2<axes=[1]>(x)\ne = Expand(n, whole)\ny = Mul(e, two)",
}  # fmt: skip
WEIGHTS = "int64[1] s0, int64[1] s1, int64[1] e3, int64[1] e4, int64[1] all, int64[1] last, int64[1] ax2, int64[1] ax3"
WEIGHTS += ", int64[8] p, int64[2] parts, int64[4] whole, float zero, float one, float two, float three, float half"
WEIGHTS += ", float large"
VALUES = {
    "s0": [0], "s1": [1], "e3": [3], "e4": [4], "all": [2**63 - 1], "last": [-1], "ax2": [2], "ax3": [3],
    "p": [0, 0, 1, 2, 0, 0, 1, 0], "parts": [2, 1], "whole": [1, 3, 6, 6], "zero": 0, "one": 1, "two": 2, "three": 3,
    "half": 0.5, "large": 2.0**23,
}  # fmt: skip


def network(body: str):
    return model(body, "(float[1,3,6,6] x) => (y)", WEIGHTS, opset=17, **VALUES)


@pytest.mark.parametrize("case", list(CASES))
def test_two_become_one(case: str) -> None:
    body, expected = CASES[case]
    graph = network(body)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == expected
    assert_same(before, graph)
    assert did(run_pass(Fold(), graph)) == []


@pytest.mark.parametrize("case", list(STAYS))
def test_two_stay_two(case: str) -> None:
    graph = network(STAYS[case])
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == operators(before)
    assert_same(before, graph)
