"""fold: shape arithmetic where the batch is open."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.testing import did, model, operators, run_pass

COUNT = "s = Shape(x)\nn = Gather<axis=0>(s, i0)\nu = Unsqueeze(n, z)\n"
CASES = {
    "the batch copied": (f"{COUNT}t = Concat<axis=0>(u, rest)\ny = Reshape(x, t)", ["Reshape"], [0, 8, 3]),
    "the batch computed": (
        f"{COUNT}k = Gather<axis=0>(s, i1)\nm = Mul(n, k)\nv = Unsqueeze(m, z)\nt = Concat<axis=0>(v, last)\n"
        "y = Reshape(x, t)",
        ["Reshape"],
        [-1, 4],
    ),
    "known dimensions": (
        "s = Shape(x)\nk = Gather<axis=0>(s, i1)\nl = Gather<axis=0>(s, i2)\nm = Mul(k, l)\nv = Unsqueeze(m, z)\n"
        "t = Concat<axis=0>(minus, v)\ny = Reshape(x, t)",
        ["Reshape"],
        [-1, 24],
    ),
    "by a Slice": (
        "s = Shape(x)\na = Slice(s, zero, one)\nt = Concat<axis=0>(a, minus)\ny = Reshape(x, t)",
        ["Reshape"],
        [0, -1],
    ),
    "torch's Where": (
        f"{COUNT}t = Concat<axis=0>(u, rest)\ne = Equal(t, negative)\nf = ConstantOfShape<value=int64[1]{{1}}>(three)\n"
        "w = Where(e, f, t)\ny = Reshape(x, w)",
        ["Reshape"],
        [0, 8, 3],
    ),
}
WEIGHTS = "int64 i0, int64 i1, int64 i2, int64[1] z, int64[2] rest, int64[1] last, int64[1] minus, int64[1] zero"
WEIGHTS += ", int64[1] one, int64[1] three, int64[3] negative"
VALUES = {
    "i0": 0, "i1": 1, "i2": 2, "z": [0], "rest": [8, 3], "last": [4], "minus": [-1], "zero": [0], "one": [1],
    "three": [3], "negative": [-1, -1, -1],
}  # fmt: skip


def same_at_every_batch(before: Graph, graph: Graph) -> None:
    for batch in (1, 2, 5):
        x = np.random.default_rng(batch).random((batch, 6, 4), np.float32)
        expected, results = Session(before).run({"x": x}), Session(graph).run({"x": x})
        for name, values in expected.items():
            np.testing.assert_array_equal(values, results[name])


@pytest.mark.parametrize("case", list(CASES))
def test_a_target_becomes_a_constant(case: str) -> None:
    body, expected, target = CASES[case]
    graph = model(body, "(float[n,6,4] x) => (y)", WEIGHTS, **VALUES)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph) == expected
    assert graph.nodes[0].inputs[1].values.tolist() == target
    same_at_every_batch(before, graph)
    assert did(run_pass(Fold(), graph)) == []


def test_what_always_is_the_same_is_computed_once() -> None:
    body = f"{COUNT}t = Concat<axis=0>(u, last, minus)\ny = Expand(x, p)\n"
    body = "r = Relu(x)\ns = Shape(x)\nq = Shape(r)\na = Gather<axis=0>(s, i0)\nb = Gather<axis=0>(q, i0)\n"
    body += "u = Unsqueeze(a, z)\nv = Unsqueeze(b, z)\nc = ConstantOfShape<value=float[1]{1}>(u)\n"
    body += "d = ConstantOfShape<value=float[1]{2}>(v)\ny = Add(c, d)"
    graph = model(body, "(float[n,6,4] x) => (y)", WEIGHTS, **VALUES)
    before = graph.copy()
    run_pass(Fold(), graph)
    assert operators(graph).count("Shape") == 1
    same_at_every_batch(before, graph)


def test_two_open_dimensions_stay() -> None:
    body = f"{COUNT}k = Gather<axis=0>(s, i1)\nm = Mul(n, k)\nv = Unsqueeze(m, z)\nt = Concat<axis=0>(v, minus)\n"
    graph = model(f"{body}y = Reshape(x, t)", "(float[n,h,4] x) => (y)", WEIGHTS, **VALUES)
    before = graph.copy()
    run_pass(Fold(), graph)
    x = np.random.default_rng(0).random((2, 3, 4), np.float32)
    np.testing.assert_array_equal(Session(before).run({"x": x})["y"], Session(graph).run({"x": x})["y"])


def test_very_long_arithmetic() -> None:
    """Expressions of expressions do not nest as deep as Python's stack."""
    lines = [f"m{n} = Add(m{n - 1}, {'i1' if n % 2 else 'n'})" for n in range(1, 1500)]
    body = f"{COUNT}m0 = Mul(n, n)\n" + "\n".join(lines) + "\nv = Unsqueeze(m1499, z)\ny = Expand(x, v)"
    graph = model(body, "(float[n,1] x) => (y)", WEIGHTS, **VALUES)
    run_pass(Fold(), graph)
    assert operators(graph).count("Add") > 1000
