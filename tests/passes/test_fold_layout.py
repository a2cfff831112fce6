"""fold: Transposes that meet their inverse, chains of views, parts that are viewed alike."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.passes.fold.view_chains import Step, fewest
from edgec.testing import assert_same, did, model, operators, run_pass

LAST, FIRST = "<perm=[0,2,3,1]>", "<perm=[0,3,1,2]>"
ISLANDS = {
    "one operator": (f"a = Transpose{LAST}(x)\nb = Relu(a)\ny = Transpose{FIRST}(b)", ["Relu"]),
    "a constant of the last axis": (
        f"a = Transpose{LAST}(x)\nb = Mul(a, channels)\ny = Transpose{FIRST}(b)",
        ["Mul"],
    ),
    "two ends that join": (
        f"a = Transpose{LAST}(x)\nb = Sigmoid(a)\nc = Mul(a, b)\ny = Transpose{FIRST}(c)",
        ["Sigmoid", "Mul"],
    ),
    "two entries": (
        f"a = Transpose{LAST}(x)\nr = Relu(x)\nb = Transpose{LAST}(r)\nc = Concat<axis=-1>(a, b)\n"
        f"y = Transpose{FIRST}(c)",
        ["Relu", "Concat"],
    ),
    "along axes": (
        f"a = Transpose{LAST}(x)\nb = Softmax<axis=-1>(a)\nc = ReduceMax<axes=[1],keepdims=1>(b)\nd = Sub(b, c)\n"
        f"e = Slice(d, start, end, axis)\nf = Pad(e, pads)\ny = Transpose{FIRST}(f)",
        ["Softmax", "ReduceMax", "Sub", "Slice", "Pad"],
    ),
    "split": (
        f"a = Transpose{LAST}(x)\np, q = Split<axis=3>(a, parts)\nr = Relu(p)\nc = Concat<axis=3>(q, r)\n"
        f"y = Transpose{FIRST}(c)",
        ["Split", "Relu", "Concat"],
    ),
    "a reduction that takes the moved axis": (
        f"a = Transpose{LAST}(x)\nb = Relu(a)\ny = ReduceMean<axes=[1,2],keepdims=0>(b)",
        ["Relu", "ReduceMean"],
    ),
}
STAYS = {
    "nothing to meet": f"a = Transpose{LAST}(x)\ny = Relu(a)",
    "read in its own layout": f"a = Transpose{LAST}(x)\nb = Relu(a)\ny = Reshape(b, flat)",
    "another operand": f"a = Transpose{LAST}(x)\nb = Add(a, u)\ny = Transpose{FIRST}(b)",
}
WEIGHTS = "float[6] channels, int64[1] start, int64[1] end, int64[1] axis, int64[8] pads, int64[2] parts, int64[2] flat"
VALUES = {"start": [1], "end": [3], "axis": [1], "pads": [0, 1, 0, 2, 0, 0, 1, 0], "parts": [2, 4], "flat": [1, -1]}


def network(body: str, outputs: str = "float[a,b,c,d] y") -> Graph:
    return model(body, f"(float[1,6,4,5] x, float[1,4,5,6] u) => ({outputs})", WEIGHTS, **VALUES)


@pytest.mark.parametrize("case", list(ISLANDS))
def test_an_island_moves(case: str) -> None:
    body, expected = ISLANDS[case]
    graph = network(body, "float[a,b] y" if "keepdims=0" in body else "float[a,b,c,d] y")
    before = graph.copy()
    run_pass(Fold(), graph)
    assert sorted(operators(graph)) == sorted(expected)
    assert_same(before, graph)
    assert did(run_pass(Fold(), graph)) == []


@pytest.mark.parametrize("case", list(STAYS))
def test_no_island_moves_for_nothing(case: str) -> None:
    body = STAYS[case]
    graph = network(body, "y")
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == operators(before)
    assert_same(before, graph)


def test_layers_over_the_last_axis_move() -> None:
    graph = model(
        "a = Transpose<perm=[1,0,2]>(x)\nb = MatMul(a, w)\nc = LayerNormalization<axis=-1>(b, s)\n"
        "y = Transpose<perm=[1,0,2]>(c)",
        "(float[3,5,8] x) => (float[a,b,c] y)",
        "float[8,4] w, float[4] s",
    )
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["MatMul", "LayerNormalization"]
    assert_same(before, graph)


CHAINS = {
    "Reshapes around": (
        "a = Reshape(x, s1)\nb = Relu(a)\nc = Mul(b, two)\ny = Reshape(c, s2)",
        ["Relu", "Mul", "Reshape"],
    ),
    "three that are one": ("a = Reshape(x, s3)\nb = Transpose<perm=[0,1,2]>(a)\ny = Reshape(b, s4)", ["Reshape"]),
    "back and forth": (
        "a = Transpose<perm=[1,0,2]>(x)\nb = Relu(a)\nc = Transpose<perm=[1,0,2]>(b)\ny = Neg(c)",
        ["Relu", "Neg"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CHAINS))
def test_chain(case: str) -> None:
    body, expected = CHAINS[case]
    graph = model(
        body,
        "(float[4,6,5] x) => (y)",
        "int64[2] s1, int64[3] s2, int64[3] s3, int64[2] s4, float two",
        s1=[24, 5],
        s2=[4, 6, 5],
        s3=[2, 12, 5],
        s4=[24, 5],
        two=2,
    )
    before = graph.copy()
    run_pass(Fold(), graph)
    assert [op for op in operators(graph) if op != "Reshape" or "Reshape" in expected] == [
        op for op in expected if op in operators(graph)
    ]
    assert len(graph.nodes) <= len(expected)
    assert_same(before, graph)


def views(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Step]]:
    """A shape and a chain of views of it."""
    start = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    shape, steps = start, list[Step]()
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = tuple(draw(st.permutations(range(len(shape)))))
            shape = tuple(shape[axis] for axis in order)
            steps.append(Step(shape, order))
        else:
            left, sizes = prod(shape), list[int]()
            while left > 1 and len(sizes) < 4:
                size = draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
                sizes.append(size)
                left //= size
            shape = (*sizes, left) if left > 1 or not sizes else tuple(sizes)
            steps.append(Step(shape))
    return start, steps


def moved(x: np.ndarray, steps: list[Step]) -> np.ndarray:
    for step in steps:
        x = x.reshape(step.shape) if step.order is None else x.transpose(step.order)
        assert x.shape == step.shape
    return x


@settings(max_examples=300, deadline=None)
@given(st.composite(views)())
def test_the_fewest_views_move_elements_alike(chain: tuple[tuple[int, ...], list[Step]]) -> None:
    start, steps = chain
    shortest = fewest(start, steps)
    if shortest is not None:
        x = np.arange(prod(start)).reshape(start)
        assert len(shortest) <= 3
        np.testing.assert_array_equal(moved(x, shortest), moved(x, steps))


def test_a_batch_axis_is_told_apart_unless_it_need_not() -> None:
    body = "a = Transpose<perm=[1,0,2]>(x)\nb = Reshape(a, s)\ny = Relu(b)"
    graph = model(body, "(float[16,1,24] x) => (y)", "int64[2] s", s=[1, 384])
    kept, fewer = graph.copy(), graph.copy()
    run_pass(Fold(), kept)
    run_pass(Fold(keep_batch=False), fewer)
    assert len(kept.nodes) > len(fewer.nodes)
    assert_same(graph, kept)
    assert_same(graph, fewer)


@pytest.mark.parametrize("form", ["Gather", "Split"])
def test_queries_keys_and_values_are_turned_together(form: str) -> None:
    take = "a = Gather<axis=0>(t, i0)\nb = Gather<axis=0>(t, i1)\nc = Gather<axis=0>(t, i2)\n"
    if form == "Split":
        take = "p, q, r = Split<axis=0>(t, ones)\na = Squeeze(p, z)\nb = Squeeze(q, z)\nc = Squeeze(r, z)\n"
    body = (
        f"m = MatMul(x, w)\nh = Reshape(m, s5)\nt = Transpose<perm=[2,0,1,3]>(h)\n{take}"
        "d = Reshape(a, s4)\ne = Reshape(b, s4)\nf = Reshape(c, s4)\n"
        "g = Transpose<perm=[0,2,1,3]>(d)\nk = Transpose<perm=[0,2,1,3]>(e)\nv = Transpose<perm=[0,2,1,3]>(f)"
    )
    graph = model(
        body,
        "(float[2,5,8] x) => (g, k, v)",
        "float[8,24] w, int64[4] s5, int64[4] s4, int64[3] ones, int64[1] z, int64 i0, int64 i1, int64 i2",
        s5=[2, 5, 3, 8], s4=[2, 5, 2, 4], ones=[1, 1, 1], z=[0], i0=0, i1=1, i2=2,
    )  # fmt: skip
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == ["MatMul", "Reshape", "Transpose", "Gather", "Gather", "Gather"]
    assert_same(before, graph)
