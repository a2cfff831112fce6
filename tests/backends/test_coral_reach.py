"""Operators that are spelled out for TFLite: onnx's own node tests in float, and networks around them in int8."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.execution import seeded_feeds
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, model, run_pass

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

BOARD = target("coral-dev-board")
IMAGE = "(float[1,4,8,8] x) => (float[1,4,8,8] y)"
NETWORKS = {
    "LRN": ("a = Conv <pads = [1,1,1,1]> (x, w)\ny = LRN <size = 3> (a)", IMAGE),
    "MaxPool, dilated": (
        "a = Conv <pads = [1,1,1,1]> (x, w)\n"
        "y = MaxPool <kernel_shape = [3,3], dilations = [2,2], pads = [2,2,2,2]> (a)",
        IMAGE,
    ),
    "MaxPool, 3-d": (
        "a = Relu (x)\ny = MaxPool <kernel_shape = [2,2,2], strides = [2,2,2]> (a)",
        "(float[1,4,8,8,8] x) => (float[1,4,4,4,4] y)",
    ),
    "GELU by Erf": (
        "a = Conv <pads = [1,1,1,1]> (x, w)\nb = Mul (a, root)\nc = Erf (b)\nd = Add (c, one)\n"
        "e = Mul (a, d)\ny = Mul (e, half)",
        IMAGE,
    ),
    "Einsum": (
        'f = Reshape (x, rows)\na = Einsum <equation = "bij,bkj->bik"> (f, f)\ny = Softmax (a)',
        "(float[1,4,8,8] x) => (float[1,4,4] y)",
    ),
    "GridSample": (
        'a = Conv <pads = [1,1,1,1]> (x, w)\ny = GridSample <padding_mode = "border"> (a, grid)',
        "(float[1,4,8,8] x) => (float[1,4,5,6] y)",
    ),
    "ScatterND": (
        "a = Conv <pads = [1,1,1,1]> (x, w)\ny = ScatterND (a, at, rows2)",
        IMAGE,
    ),
    "Attention": (
        "f = Reshape (x, rows)\ny = Attention <q_num_heads = 2, kv_num_heads = 2> (f, f, f)",
        "(float[1,4,8,8] x) => (float[1,4,64] y)",
    ),
}
WEIGHTS = (
    "float[4,4,3,3] w, int64[3] rows = {1, 4, 64}, float root = {0.70710678}, float one = {1}, float half = {0.5},"
    " float[1,5,6,2] grid, int64[1,2] at = {0, 1}, float[1,8,8] rows2"
)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_float_and_in_int8(name: str, tmp_path: Path) -> None:
    body, signature = NETWORKS[name]
    graph = model(body, signature, WEIGHTS, opset=23)
    feeds = [{"x": feed["x"] - 0.5} for feed in seeded_feeds(graph, samples=24)]
    legalize(graph, CoralBackend(), BOARD)
    floats = CoralBackend().emit(graph.copy(), BOARD, tmp_path / "float", feeds[:4])
    assert floats.sqnr_db > 90
    run_pass(Quantize(effort="fast"), graph, target=BOARD, data={"calibration": Samples(feeds)})
    integers = CoralBackend().emit(graph, BOARD, tmp_path / "int8", feeds[:4])
    assert integers.sqnr_db > 25  # of LiteRT against Q and DQ in onnxruntime


@pytest.mark.slow
def test_node_tests_of_onnx() -> None:
    """None computes something else, none ends in a fault, and no fewer match than did."""
    from bench_node_tests import cases, tried

    with np.errstate(all="ignore"):
        tally = tried(cases([]))
    assert dict(tally.wrong) == {} and dict(tally.crashed) == {}
    assert sum(map(len, tally.disputed.values())) <= 2
    assert sum(map(len, tally.matched.values())) >= 800
