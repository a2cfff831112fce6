"""quantize, weights alone: smaller files, float arithmetic, no calibration data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.cpu.backend import CpuBackend
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.cost import Cost
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.framework.planner import plan
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import did, missed, model, operators, outputs, run_pass

CPU = target("cpu")
BODY = """
[first] a = Conv <pads = [1,1,1,1]> (x, small)
[second] b = Conv (a, w)
[third] c = Conv (b, w)
p = GlobalAveragePool (c)
f = Flatten (p)
[fc] y = Gemm <alpha = 0.5, transB = 1> (f, v, bias)
"""


def network() -> Graph:
    weights = "float[16,1,3,3] small, float[16,16,3,3] w, float[40,16] v, float[40] bias"
    return model(BODY, "(float[1,1,12,12] x) => (float[1,40] y)", weights)


@pytest.mark.parametrize(("kind", "bytes_left", "db"), [("int8", 0.33, 35), ("float16", 0.54, 60)])
def test_the_file_is_smaller_and_computes_the_same(kind: str, bytes_left: float, db: float, tmp_path: Path) -> None:
    before, graph = network(), network()
    ctx = run_pass(Quantize(weights_only=kind), graph, target=CPU)
    assert [node for node, _ in did(ctx)] == ["second", "third", "fc"]
    assert missed(ctx) == [("first", "has fewer than 256 weights")]
    assert Cost(graph).weight_bytes < bytes_left * Cost(before).weight_bytes
    assert operators(graph).count("DequantizeLinear" if kind == "int8" else "Cast") == (3 if kind == "int8" else 2)
    feeds = seeded_feeds(before, seed=1, samples=1)[0]
    assert sqnr_db(outputs(before, feeds), outputs(graph, feeds)) > db
    emitted = CpuBackend().emit(graph, CPU, tmp_path, [feeds])
    assert emitted.sqnr_db > 90
    assert (tmp_path / "model.onnx").stat().st_size < bytes_left * Cost(before).weight_bytes + 4000


@pytest.mark.parametrize(("kind", "ratio"), [("int8", 0.3), ("float16", 0.53)])
def test_a_tflite_file_is_as_much_smaller(kind: str, ratio: float, tmp_path: Path) -> None:
    backend, board = CoralBackend(), target("coral-dev-board")
    sizes = {}
    for stored in (None, kind):
        graph = model(
            "[wide] a = Conv <group = 64> (x, d)\n[deep] b = Conv (a, w)\nf = Flatten (b)\n"
            "[fc] y = Gemm <alpha = 0.3, transB = 1> (f, v)",
            "(float[1,64,4,4] x) => (float[1,40] y)",
            "float[64,1,3,3] d, float[256,64,2,2] w, float[40,256] v",
        )
        if stored is not None:
            run_pass(Quantize(weights_only=stored), graph, target=board)
        legalize(graph, backend, board)
        emitted = backend.emit(graph, board, tmp_path, seeded_feeds(graph, seed=1, samples=2))
        assert emitted.sqnr_db > 110
        sizes[stored] = (tmp_path / "model.tflite").stat().st_size
    assert sizes[kind] / sizes[None] < ratio


def test_layers_that_share_weights_with_other_factors() -> None:
    body = "[first] a = Gemm <alpha = 0.3> (x, w)\n[second] b = Gemm <alpha = 3.0> (a, w)\n[third] y = Gemm (b, w)"
    before, graph = (model(body, "(float[1,32] x) => (float[1,32] y)", "float[32,32] w") for _ in range(2))
    run_pass(Quantize(weights_only="float16"), graph, target=CPU)
    assert operators(graph).count("Cast") == 3
    assert not any("alpha" in node.attrs for node in graph.nodes)
    feeds = seeded_feeds(before, seed=1, samples=1)[0]
    assert sqnr_db(outputs(before, feeds), outputs(graph, feeds)) > 60


def test_what_float16_does_not_hold_stays() -> None:
    graph = model(
        "[fc] y = Gemm (x, w)", "(float[1,32] x) => (float[1,32] y)", "float[32,32] w", w=np.full((32, 32), 1e5)
    )
    ctx = run_pass(Quantize(weights_only="float16"), graph, target=CPU)
    assert missed(ctx) == [("fc", "has weights beyond 65504, which float16 does not hold")]
    assert operators(graph) == ["Gemm"]


def test_skip_holds_and_no_data_are_needed() -> None:
    graph = network()
    ctx = run_pass(Quantize(weights_only="int8", skip=["third"]), graph, target=CPU)
    assert ("third", "is kept in float by 'skip'") in missed(ctx)
    assert plan([("quantize", {"weights_only": "int8"})], roles=[])
