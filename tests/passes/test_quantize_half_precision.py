"""Networks of half floats are quantized as float32 ones are."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.report.remarks import nothing_quantized
from edgec.testing import Samples, did, missed, model, operators, run_pass

INSIDE = """
h = Cast <to = {type}> (x)
c = Conv <pads = [1, 1, 1, 1]> (h, w)
r = Relu (c)
a = Add (r, one)
y = Cast <to = 1> (a)
"""
OUTSIDE = "c = Conv <pads = [1, 1, 1, 1]> (x, w)\nr = Relu (c)\ny = Add (r, one)"
BOARDS = ["cpu", "coral-dev-board", "jetson-orin-nano"]


def samples(seed: int, dtype: type = np.float32) -> Samples:
    random = np.random.default_rng(seed)
    return Samples([{"x": random.normal(size=(1, 16, 8, 8)).astype(dtype)} for _ in range(8)])


def half(body: str, signature: str, kind: str = "float16") -> Graph:
    return model(body, signature, f"{kind}[16,16,3,3] w, {kind} one", opset=22, one=1)


@pytest.mark.parametrize("board", BOARDS)
def test_half_floats_inside(board: str) -> None:
    graph = half(INSIDE.format(type=10), "(float[1,16,8,8] x) => (float[1,16,8,8] y)")
    before = graph.copy()
    ctx = run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": samples(1)})
    assert ("the network", "computes in float32 instead of float16, to be quantized") in did(ctx)
    assert "QuantizeLinear" in operators(graph) and "Cast" not in operators(graph)
    assert not {c.dtype for c in graph.constants()} & {np.dtype(np.float16)}
    feeds = samples(2).feeds
    exact, rounded = (stacked(list(map(Session(one).run, feeds))) for one in (before, graph))
    assert sqnr_db(exact, rounded) > 30


@pytest.mark.parametrize("board", BOARDS)
def test_half_floats_in_the_signature_stay_there(board: str) -> None:
    graph = half(OUTSIDE, "(float16[1,16,8,8] x) => (float16[1,16,8,8] y)")
    before = graph.copy()
    data = samples(1, np.float16)
    run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": data})
    assert [(t.name, t.dtype) for t in (*graph.inputs, *graph.outputs)] == [
        ("x", np.dtype(np.float16)),
        ("y", np.dtype(np.float16)),
    ]
    exact, rounded = (stacked(list(map(Session(one).run, samples(2, np.float16).feeds))) for one in (before, graph))
    assert sqnr_db(exact, rounded) > 30


@pytest.mark.parametrize("board", BOARDS)
def test_bfloat16(board: str) -> None:
    """onnxruntime has no kernels for it on a CPU, so the float network is what edgec makes of it."""
    graph = half(INSIDE.format(type=16), "(float[1,16,8,8] x) => (float[1,16,8,8] y)", "bfloat16")
    weights = next(c for c in graph.constants() if c.name == "w").values
    assert weights.dtype == ml_dtypes.bfloat16
    exact = model(
        INSIDE.replace("h = Cast <to = {type}> (x)", "h = Identity (x)").replace("Cast <to = 1>", "Identity"),
        "(float[1,16,8,8] x) => (float[1,16,8,8] y)",
        "float[16,16,3,3] w, float one = {1}",
        w=weights.astype(np.float32),
    )
    ctx = run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": samples(1)})
    assert ("the network", "computes in float32 instead of bfloat16, to be quantized") in did(ctx)
    feeds = samples(2).feeds
    wanted, rounded = (stacked(list(map(Session(one).run, feeds))) for one in (exact, graph))
    assert sqnr_db(wanted, rounded) > 30


def test_weights_alone() -> None:
    graph = half(INSIDE.format(type=10), "(float[1,16,8,8] x) => (float[1,16,8,8] y)")
    run_pass(Quantize(weights_only="int8"), graph, target=target("cpu"))
    assert np.dtype(np.int8) in {c.dtype for c in graph.constants()}


def test_a_board_without_integers_keeps_half_floats() -> None:
    graph = half(INSIDE.format(type=10), "(float[1,16,8,8] x) => (float[1,16,8,8] y)")
    ctx = run_pass(Quantize(), graph, target=target("jetson-nano"), data={"calibration": samples(1)})
    assert operators(graph) == ["Cast", "Conv", "Relu", "Add", "Cast"]
    note = "nothing was quantized: Jetson Nano has no 8-bit arithmetic: it stays in float"
    assert nothing_quantized(graph, ctx.left) == note


def test_nothing_that_could_be_quantized_is_said() -> None:
    graph = model("[e] e = Erf (x)\n[s] y = Sin (e)", "(float[1,4] x) => (float[1,4] y)")
    data = Samples([{"x": np.ones((1, 4), np.float32)}])
    ctx = run_pass(Quantize(), graph, target=target("cpu"), data={"calibration": data})
    assert nothing_quantized(graph, ctx.left) == (
        "nothing was quantized: has no operator that CPU (onnxruntime) runs on 8-bit integers; "
        "1 of its operators: CPU (onnxruntime) has no 8-bit kernel for Erf"
    )


def test_other_floats_are_named() -> None:
    graph = model("[a] y = Add (x, x)", "(double[1,4] x) => (double[1,4] y)")
    data = Samples([{"x": np.ones((1, 4), np.float64)}])
    ctx = run_pass(Quantize(), graph, target=target("cpu"), data={"calibration": data})
    assert missed(ctx)[0] == ("a", "computes in float64; only float32 is quantized")
    assert nothing_quantized(graph, ctx.left) is not None
