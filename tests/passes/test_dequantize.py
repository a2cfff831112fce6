"""dequantize: what quantize and other quantizers made becomes a float network that computes nearly the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from static_quantizer import quantized_by_onnxruntime

from edgec.backends.registry import target
from edgec.frontends.model import open_model
from edgec.ir.errors import UsageErrors
from edgec.ir.execution import sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.dequantize import Dequantize
from edgec.passes.framework.planner import facts_of, plan
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, did, missed, model, outputs, run_pass

BODY = """
[a] a = Conv <pads = [1, 1, 1, 1]> (x, wa, ba)
[r] r = Relu (a)
[b] b = Conv <pads = [1, 1, 1, 1]> (r, wb)
[s] s = Add (b, r)
[t] t = Relu (s)
[p] p = GlobalAveragePool (t)
[f] f = Flatten (p)
[g] y = Gemm <transB = 1> (f, wg, bg)
"""
SIGNATURE = "(float[1,3,8,8] x) => (float[1,5] y)"
WEIGHTS = "float[16,3,3,3] wa, float[16] ba, float[16,16,3,3] wb, float[5,16] wg, float[5] bg"


def network() -> Graph:
    return model(BODY, SIGNATURE, WEIGHTS)


def samples(count: int = 12) -> Samples:
    random = np.random.default_rng(0)
    return Samples([{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)])


def apart(one: Graph, other: Graph) -> float:
    return min(sqnr_db(outputs(one, feeds), outputs(other, feeds)) for feeds in samples(4).feeds)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board", "jetson-orin-nano"])
def test_what_quantize_made(board: str) -> None:
    graph = network()
    before = graph.copy()
    run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": samples()})
    ctx = run_pass(Dequantize(), graph)
    assert not {node.op for node in graph.nodes} & {"QuantizeLinear", "DequantizeLinear"}
    assert {constant.dtype for constant in graph.constants()} == {np.dtype(np.float32)}
    assert apart(before, graph) > 35
    assert facts_of(graph) == {"float", "trainable"}
    assert missed(ctx) == []
    # It can be quantized again, for another board.
    run_pass(Quantize(effort="fast"), graph, target=target("cpu"), data={"calibration": samples()})
    assert apart(before, graph) > 25


def test_what_onnxruntime_made(tmp_path: Path) -> None:
    """It drops each Relu in front of a Q: what saturated there is clipped again."""
    before = network()
    path = quantized_by_onnxruntime(before, iter(samples().feeds), tmp_path)
    graph = open_model(path, {})
    assert "Relu" not in {node.op for node in graph.nodes}
    ctx = run_pass(Dequantize(), graph)
    assert sum(node.op == "Clip" for node in graph.nodes) >= 2
    assert apart(before, graph) > 30
    assert "of them are clipped" in did(ctx)[0][1]


def test_a_float_network_stays() -> None:
    graph = network()
    before = graph.copy()
    ctx = run_pass(Dequantize(), graph)
    assert missed(ctx) == [("the network", "is not quantized")]
    assert apart(before, graph) == np.inf


def test_integer_operators_are_named() -> None:
    graph = model(
        "[q] y = QLinearMatMul (x, xs, xz, w, ws, wz, ys, yz)", "(uint8[2,4] x) => (uint8[2,3] y)",
        "float xs, uint8 xz, int8[4,3] w, float ws, int8 wz, float ys, uint8 yz",
        xs=0.1, xz=0, ws=0.1, wz=0, ys=0.1, yz=0,
    )  # fmt: skip
    assert missed(run_pass(Dequantize(), graph))[0] == (
        "q", "QLinearMatMul computes on integers itself: export the network with Q and DQ",
    )  # fmt: skip


def test_a_plan_for_a_quantized_model() -> None:
    steps = [("quantize", {"random": True})]
    with pytest.raises(UsageErrors, match="put 'dequantize' before it"):
        plan(steps, facts=frozenset({"quantized"}))
    assert len(plan([("dequantize", {}), *steps], facts=frozenset({"quantized"})).per_target) == 1
