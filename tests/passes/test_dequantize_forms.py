"""dequantize: every form that QuantizeLinear and DequantizeLinear have had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Graph
from edgec.passes.dequantize import Dequantize
from edgec.testing import missed, model, operators, outputs, run_pass

PAIR = "[q] q = QuantizeLinear {options} (x, s, z)\n[d] d = DequantizeLinear {options} (q, s, z)\ny = Neg (d)"
X = "(float[1,4,6,5] x) => (float[1,4,6,5] y)"
STORED = "[d] d = DequantizeLinear {options} (w, s, z)\ny = Add (x, d)"


def dequantized(body: str, signature: str, weights: str, opset: int, **values: Any) -> tuple[Graph, Graph, Any]:
    graph = model(body, signature, weights, opset=opset, **values)
    before = graph.copy()
    ctx = run_pass(Dequantize(), graph)
    return before, graph, ctx


def largest_difference(before: Graph, graph: Graph) -> float:
    feeds = {k: (6 * v - 3).astype(v.dtype) for k, v in seeded_feeds(before, samples=1)[0].items()}
    return float(np.abs(outputs(before, feeds)["y"] - outputs(graph, feeds)["y"]).max())


@pytest.mark.parametrize("opset", [13, 19, 21, 23])
@pytest.mark.parametrize("shape", ["float s", "float[1] s"])
def test_one_scale_may_be_a_vector(opset: int, shape: str) -> None:
    vector = "[1]" if "[" in shape else ""
    before, graph, ctx = dequantized(
        PAIR.format(options=""), X, f"{shape}, uint8{vector} z", opset, s=np.full((1,) * bool(vector), 0.02), z=0
    )
    assert operators(graph) == ["Clip", "Neg"]
    assert largest_difference(before, graph) <= 0.02 / 2 + 1e-6
    assert missed(ctx) == []


@pytest.mark.parametrize("axis", [1, -3, 2])
def test_activations_with_a_scale_for_each_position(axis: int) -> None:
    scales = np.linspace(0.004, 0.02, (1, 4, 6, 5)[axis]).astype(np.float32)
    size = len(scales)
    before, graph, _ = dequantized(
        PAIR.format(options=f"<axis = {axis}>"), X, f"float[{size}] s, uint8[{size}] z", 13, s=scales, z=np.zeros(size)
    )
    assert operators(graph) == ["Clip", "Min", "Neg"]
    assert largest_difference(before, graph) <= 0.02 / 2 + 1e-6


@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize(("axis", "size"), [(0, 4), (1, 6), (-1, 6)])
def test_weights_with_a_scale_for_each_position(opset: int, axis: int, size: int) -> None:
    scales, zeros = np.linspace(0.1, 0.2, size), np.arange(size) - 2
    before, graph, _ = dequantized(
        STORED.format(options=f"<axis = {axis}>"),
        "(float[4,6] x) => (float[4,6] y)",
        f"int8[4,6] w, float[{size}] s, int8[{size}] z",
        opset,
        w=np.arange(24).reshape(4, 6) * 5 - 60,
        s=scales,
        z=zeros,
    )
    assert operators(graph) == ["Add"]
    assert largest_difference(before, graph) < 1e-6


@pytest.mark.parametrize(("axis", "blocks"), [(1, "4,3"), (0, "2,6")])
@pytest.mark.parametrize("integers", ["int8", "uint8", "int4", "uint4"])
def test_a_scale_for_each_block(axis: int, blocks: str, integers: str) -> None:
    shape = tuple(int(number) for number in blocks.split(","))
    low = 0 if integers[0] == "u" else -8
    before, graph, _ = dequantized(
        STORED.format(options=f"<axis = {axis}, block_size = 2>"),
        "(float[4,6] x) => (float[4,6] y)",
        f"{integers}[4,6] w, float[{blocks}] s, {integers}[{blocks}] z",
        21,
        w=(np.arange(24).reshape(4, 6) % 16 + low),
        s=np.arange(1, 1 + np.prod(shape)).reshape(shape) / 10,
        z=np.full(shape, low + 3),
    )
    assert operators(graph) == ["Add"]
    assert largest_difference(before, graph) < 1e-5


def test_half_floats_on_the_other_side() -> None:
    before, graph, _ = dequantized(
        "[d] d = DequantizeLinear (w, s)\ny = Add (x, d)",
        "(float16[4] x) => (float16[4] y)",
        "int8[4] w, float16 s",
        19,
        w=[-3, 0, 5, 100],
        s=0.125,
    )
    assert operators(graph) == ["Add"]
    assert largest_difference(before, graph) == 0


def test_a_scale_without_a_zero_point() -> None:
    before, graph, _ = dequantized(
        "q = QuantizeLinear (x, s)\nd = DequantizeLinear (q, s)\ny = Neg (d)", X, "float s", 13, s=0.02
    )
    assert operators(graph) == ["Clip", "Neg"]  # uint8 without a zero-point begins at 0
    assert largest_difference(before, graph) <= 0.02 / 2 + 1e-6


def test_the_type_may_be_an_attribute() -> None:
    before, graph, _ = dequantized(
        "q = QuantizeLinear <output_dtype = 5> (x, s)\nd = DequantizeLinear (q, s)\ny = Neg (d)",
        X,
        "float s",
        21,
        s=2e-4,
    )
    assert operators(graph) == ["Neg"]  # int16 does not begin at 0
    assert largest_difference(before, graph) <= 1e-4 + 1e-6


@pytest.mark.parametrize(
    ("body", "weights", "values", "where", "reason"),
    [
        (
            "[q] q = QuantizeLinear (x, s, z)\n[d] d = DequantizeLinear (q, t, z)\ny = Neg (d)",
            "float s, float t, uint8 z",
            {"s": 0.02, "t": 0.03, "z": 0},
            "d",
            "has another scale or zero-point than 'q' in front of it, so the two change the numbers",
        ),
        (
            "[q] q = QuantizeLinear (x, s, z)\n[t] t = Transpose (q)\n[d] d = DequantizeLinear (t, s, z)\ny = Neg (d)",
            "float s, uint8 z",
            {"s": 0.02, "z": 0},
            "d",
            "reads integers that 't' (Transpose) computes: export the network with Q and DQ around it",
        ),
        (
            "[a] a = ReduceMax <keepdims = 0> (x)\n[q] q = QuantizeLinear (x, a, z)\n"
            "[d] d = DequantizeLinear (q, a, z)\ny = Neg (d)",
            "uint8 z",
            {"z": 0},
            "d",
            "its scale is computed by the network: export the network with static quantization",
        ),
        (
            "[d] d = DequantizeLinear <axis = 0> (w, s, z)\ny = Add (x, d)",
            "int8[4,6,5] w, float[3] s, int8[3] z",
            {"w": np.zeros((4, 6, 5)), "s": np.ones(3), "z": np.zeros(3)},
            "d",
            "has scales of shape [3] for 4 positions of axis 0",
        ),
    ],
)
def test_what_stays_and_why(body: str, weights: str, values: dict[str, Any], where: str, reason: str) -> None:
    graph = model(body, X.replace("[1,4,6,5] y", "[a,b,c,e] y"), weights, opset=13, **values)
    ctx = run_pass(Dequantize(), graph)
    assert (where, reason) in missed(ctx)
    assert "DequantizeLinear" in operators(graph)


def test_integers_that_leave_the_network() -> None:
    graph = model("[q] y = QuantizeLinear (x, s, z)", "(float[4] x) => (uint8[4] y)", "float s, uint8 z", s=1, z=0)
    assert missed(run_pass(Dequantize(), graph)) == [("q", "its integers leave the network: cut the network before it")]


def test_integers_that_are_fed() -> None:
    graph = model("[d] y = DequantizeLinear (x, s, z)", "(uint8[4] x) => (float[4] y)", "float s, uint8 z", s=1, z=0)
    assert missed(run_pass(Dequantize(), graph)) == [
        ("d", "reads integers that are fed to the network ('x'): cut the network behind it")
    ]
