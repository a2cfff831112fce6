"""quantize where the scheme rounds the inputs of layers only, as TensorRT wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, did, missed, model, outputs, run_pass

Check = Callable[[Graph, str], None]
ORIN = target("jetson-orin-nano")
RESIDUAL = """
[a] a = Conv <pads = [1, 1, 1, 1]> (x, wa, ba)
[r] r = Relu (a)
[b] b = Conv <pads = [1, 1, 1, 1]> (r, wb, bb)
[add] s = Add (b, r)
[last] t = Relu (s)
[pool] p = GlobalAveragePool (t)
[flat] f = Flatten (p)
[fc] y = Gemm <transB = 1> (f, wg, bg)
"""
SIGNATURE = "(float[1,16,8,8] x) => (float[1,20] y)"
WEIGHTS = "float[16,16,3,3] wa, float[16] ba, float[16,16,3,3] wb, float[16] bb, float[20,16] wg, float[20] bg"


def samples(count: int = 12) -> Samples:
    random = np.random.default_rng(0)
    return Samples([{"x": random.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(count)])


def quantized(graph: Graph, step: Quantize | None = None, board: Any = ORIN) -> Context:
    """With ``only``, the last layer is quantized whatever that costs; test_quantize_ends.py has the choice."""
    return run_pass(step or Quantize(only=["*"]), graph, data={"calibration": samples()}, target=board, threads=1)


def test_layers_are_rounded_in_front_and_sums_on_the_shortcut(filecheck: Check) -> None:
    graph = model(RESIDUAL, SIGNATURE, WEIGHTS)
    before = graph.copy()
    ctx = quantized(graph)
    filecheck(
        graph,
        """
        CHECK: int8[16,16,3,3] wa.int8
        CHECK: [a] a = Conv {{.*}}(x.dequantized, wa.dequantized, ba)
        CHECK-NEXT: [r] r = Relu (a)
        CHECK: [r.quantize] int8[1,16,8,8] r.quantized = QuantizeLinear (r, r.scale, r.zero_point)
        CHECK-NEXT: [r.dequantize] float[1,16,8,8] r.dequantized = DequantizeLinear (r.quantized, r.scale, r.zero_point)
        CHECK: [b] b = Conv {{.*}}(r.dequantized, wb.dequantized, bb)
        CHECK-NEXT: [add] s = Add (b, r.dequantized)
        CHECK-NEXT: [last] t = Relu (s)
        CHECK-NEXT: [pool] p = GlobalAveragePool (t)
        CHECK-NEXT: [flat] f = Flatten (p)
        CHECK: [f.quantize] {{.*}}
        CHECK: [fc] {{.*}}y = Gemm {{.*}}(f.dequantized, wg.dequantized, bg)
        """,
    )
    assert [node for node, _ in did(ctx)] == ["the network", "a", "b", "add", "fc", "the layers"]
    assert missed(ctx) == []
    assert all({"alone_db", "accumulated_db"} <= set(remark.figures) for remark in ctx.done[1:-1])
    feeds = samples(1).feeds[0]
    assert sqnr_db(outputs(before, feeds), outputs(graph, feeds)) > 30


def test_of_two_convolutions_the_later_one_takes_the_sum(filecheck: Check) -> None:
    body = RESIDUAL.replace("Add (b, r)", "Add (d, b)").replace("[add]", "[down] d = Conv (r, wd)\n[add]")
    graph = model(body, SIGNATURE, WEIGHTS + ", float[16,16,1,1] wd")
    quantized(graph)
    filecheck(graph, "CHECK: [add] s = Add (d, b.dequantized)")


@pytest.mark.parametrize("sum", ["Add (r, r)", "Add (r, k)"])
def test_a_sum_that_no_layer_takes_stays_float(sum: str, filecheck: Check) -> None:
    graph = model(RESIDUAL.replace("Add (b, r)", sum), SIGNATURE, WEIGHTS + ", float[16,1,1] k")
    quantized(graph)
    filecheck(graph, f"CHECK: s = {sum}")


def test_narrow_layers_stay_float() -> None:
    graph = model("[c] y = Conv (x, w)", "(float[1,16,8,8] x) => (float[1,15,8,8] y)", "float[15,16,1,1] w")
    ctx = quantized(graph)
    assert missed(ctx) == [
        ("c", "has 15 channels; with fewer than 16 it is faster in float"),
        ("the network", "has no operator that Jetson Orin Nano runs on 8-bit integers"),
    ]


def test_computed_weights_and_a_transposed_convolution_stay_float() -> None:
    body = "[t] t = ConvTranspose (x, w)\n[m] y = MatMul (t, t)"
    ctx = quantized(model(body, "(float[1,16,8,8] x) => (float[1,16,8,8] y)", "float[16,16,1,1] w"))
    assert missed(ctx)[:2] == [
        ("t", "Jetson Orin Nano has no 8-bit kernel for ConvTranspose"),
        ("m", "its weights are computed by the network"),
    ]


def test_what_a_layer_reads_is_named_as_the_reason() -> None:
    graph = model(RESIDUAL, SIGNATURE, WEIGHTS)
    scales = np.ones((1, 16, 1, 1), np.float32)
    scales[:, 1:] = 1e-3
    data = Samples([{"x": feeds["x"] * scales} for feeds in samples().feeds])
    ctx = run_pass(Quantize(), graph, data={"calibration": data}, target=ORIN, threads=1)
    assert "'a' " in did(ctx)[-1][1]
    assert "(channels share one scale, and half of them reach 0." in did(ctx)[-1][1]


def test_mixed_precision_and_shares() -> None:
    graph = model(RESIDUAL, SIGNATURE, WEIGHTS)
    ctx = quantized(graph, Quantize(effort="fast", sensitivity=True, only=["*"]))
    shares = [remark.figures["noise_share"] for remark in ctx.done if "noise_share" in remark.figures]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    graph = model(RESIDUAL, SIGNATURE, WEIGHTS)
    before = graph.copy()
    ctx = quantized(graph, Quantize(effort="fast", precision="auto", budget=60))
    assert 0 < ctx.done[0].figures["float_share"] < 1
    feeds = samples(1).feeds[0]
    assert sqnr_db(outputs(before, feeds), outputs(graph, feeds)) > 55


def test_a_profile_says_how_few_channels_are_too_few() -> None:
    assert ORIN.scheme is not None
    board = replace(ORIN, scheme=replace(ORIN.scheme, fewest_channels=17))
    assert missed(quantized(model(RESIDUAL, SIGNATURE, WEIGHTS), board=board))[0][0] == "a"
