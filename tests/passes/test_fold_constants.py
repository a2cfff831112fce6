"""fold: subgraphs of constants and known shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, missed, model, operators, run_pass

Check = Callable[[Graph, str], None]


def test_the_shape_arithmetic_of_exporters_becomes_one_constant(filecheck: Check) -> None:
    graph = model(
        """
        [relu] a = Relu(x)
        [shape] s = Shape(a)
        [zero] i = Constant<value_ints=[0]>()
        [take] n = Gather(s, i)
        [rest] m = Constant<value_ints=[-1]>()
        [join] t = Concat<axis=0>(n, m)
        [flat] y = Reshape(a, t)
        """,
        "(float[2,3,4,5] x) => (float[2,60] y)",
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert_same(before, graph)
    assert did(ctx) == [
        ("shape", "the shape is known: became a constant"),
        ("the graph", "2 Constant nodes became constants"),
        ("join", "depends on constants alone: evaluated"),
    ]
    filecheck(
        graph, "CHECK: [relu]\nCHECK-NEXT: int64[2] [[T:.+]] = {2, -1}\nCHECK-NEXT: [flat] {{.*}}Reshape (a, [[T]])"
    )


def test_a_shape_that_depends_on_a_computed_shape_takes_a_second_round() -> None:
    graph = model(
        """
        [scale] s = Mul(half, two)
        [size] r = Resize<mode="nearest">(x, "", s)
        [shape] t = Shape(r)
        [fill] f = ConstantOfShape(t)
        [add] y = Add(r, f)
        """,
        "(float[1,1,2,2] x) => (float[1,1,4,4] y)",
        "float[4] half = {0.5, 0.5, 1.0, 1.0}, float[4] two = {2.0, 2.0, 2.0, 2.0}",
    )
    before = graph.copy()
    run_pass(Fold(), graph)
    assert_same(before, graph)
    assert operators(graph) == ["Resize"]


def test_an_output_that_is_constant_keeps_its_name(filecheck: Check) -> None:
    graph = model(
        "[split] y, rest = Split<axis=0>(c, parts)\n[use] z = Add(x, rest)",
        "(float[2] x) => (float[2] y, float[2] z)",
        "float[4] c, int64[2] parts = {2, 2}",
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert_same(before, graph)
    assert operators(graph) == ["Identity", "Add"]
    filecheck(graph, "CHECK: [split.constant] float[2] y = Identity (y.constant)")
    assert len(did(ctx)) == 2
    assert did(run_pass(Fold(), graph)) == []


@pytest.mark.parametrize(
    ("body", "weights", "remark"),
    [
        (
            "[big] b = Expand(c, shape)\n[sum] s = ReduceSum<keepdims=0>(b)\n[add] y = Add(x, s)",
            "float[1] c = {1.0}, int64[1] shape = {5000000}",
            ("big", "its result is 19.1 MiB larger than what it is computed from"),
        ),
        ("[noise] n = RandomNormal<shape=[2]>()\n[add] y = Add(x, n)", "", ("noise", "it is random")),
        (
            "[loop] b = Loop(most, cond, c) <body = t (int64 i, bool k, float[2] o) => (bool m, float[2] p)"
            " { m = Identity(k) p = Add(o, o) }>\n[add] y = Add(x, b)",
            "int64 most = {3}, bool cond = {1}, float[2] c = {1.0, 2.0}",
            ("loop", "it has subgraphs"),
        ),
    ],
)
def test_what_is_not_evaluated_is_reported_with_its_reason(body: str, weights: str, remark: tuple[str, str]) -> None:
    graph = model(body, "(float[2] x) => (float[2] y)", weights)
    before = operators(graph)
    ctx = run_pass(Fold(), graph)
    assert missed(ctx) == [remark]
    assert operators(graph) == before


def test_quantized_weights_stay_quantized() -> None:
    graph = model(
        "[weight] w = DequantizeLinear(q, s)\n[fc] y = MatMul(x, w)",
        "(float[2,2] x) => (float[2,2] y)",
        "int8[2,2] q = {1, 2, 3, 4}, float s = {0.5}",
    )
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == ["DequantizeLinear", "MatMul"]
    assert (did(ctx), missed(ctx)) == ([], [])


def test_one_node_that_onnxruntime_does_not_take_does_not_spoil_the_rest() -> None:
    graph = model(
        "[wrong] a = Asin(c)\n[after] b = Add(a, c)\n[right] d = Mul(c, c)\n[one] e = Add(x, b)\n[two] y = Add(e, d)",
        "(double[2] x) => (double[2] y)",
        "double[2] c = {0.25, 0.5}",
    )
    ctx = run_pass(Fold(), graph)
    assert operators(graph) == ["Asin", "Add", "Add", "Add"]
    assert did(ctx) == [("right", "depends on constants alone: evaluated")]
    [(node, reason)] = missed(ctx)
    assert node == "wrong"
    assert reason.startswith("onnxruntime does not take the model (Could not find an implementation for Asin")


def test_values_read_inside_a_subgraph_are_evaluated_too() -> None:
    graph = model(
        "[sum] s = Add(c, c)\n[if] b = If(flag) <then_branch = t () => (float[2] o) { o = Add(s, s) }, "
        "else_branch = e () => (float[2] p) { p = Mul(s, s) }>\n[add] y = Add(x, b)",
        "(float[2] x, bool flag) => (float[2] y)",
        "float[2] c = {1.0, 2.0}",
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert did(ctx) == [("sum", "depends on constants alone: evaluated")]
    assert operators(graph) == ["If", "Add"]
    assert_same(before, graph)


def test_the_branch_of_a_condition_that_is_computed_from_weights_stands_in_its_place() -> None:
    graph = model(
        """
        [sum] total = ReduceSum<keepdims=0>(w)
        [more] k = Greater(total, least)
        [choose] y = If (k) <
            then_branch = yes () => (float[2,3] a) { [one] t = Relu(x)  [two] a = Add(t, w) },
            else_branch = no () => (float[2,3] b) { [three] t = Neg(x)  [four] b = Mul(t, w) }
        >
        """,
        "(float[2,3] x) => (float[2,3] y)",
        "float[2,3] w, float least = {-100.0}",
    )
    before = graph.copy()
    ctx = run_pass(Fold(), graph)
    assert_same(before, graph)
    assert operators(graph) == ["Relu", "Add"]
    assert ("choose", "its condition is a constant: became its then_branch") in did(ctx)
    assert did(run_pass(Fold(), graph)) == []
