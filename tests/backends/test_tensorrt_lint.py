"""The lint: for every rule the smallest model that breaks it, and one that keeps all of them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.backends.tensorrt.lint import lint
from edgec.backends.tensorrt.versions import Rules, rules
from edgec.ir.graph import Graph
from edgec.testing import model

NANO, XAVIER, ORIN = (target(f"jetson-{name}") for name in ("nano", "xavier-nx", "orin-nano"))
TRT8, TRT85, TRT10 = rules((8, 2), XAVIER), rules((8, 5), ORIN), rules((10, 3), ORIN)
ON_NANO = rules((8, 2), NANO)
SIGNATURE = "(float[1,16,8,8] x) => (float[1,16,8,8] y)"
SCALES = {"s": 0.1, "z": 0, "w": np.ones((16, 16, 1, 1)), "ws": np.full(16, 0.1), "wz": np.zeros(16)}
DECLARED = "float s, int8 z, float[16,16,1,1] w, float[16] ws, int8[16] wz"
INPUT = "[q] q = QuantizeLinear (x, s, z)\n[d] d = DequantizeLinear (q, s, z)\n"
WEIGHT = "[wq] wq = QuantizeLinear <axis = 0> (w, ws, wz)\n[wd] wd = DequantizeLinear <axis = 0> (wq, ws, wz)\n"


def read(body: str, more: str = "", signature: str = SIGNATURE, **values: object) -> Graph:
    used = set(re.findall(r"\w+", body)) - set(re.findall(r"\w+", more))
    declared = [entry for entry in DECLARED.split(", ") if entry.split()[-1] in used]
    graph = model(body, signature, ", ".join([*declared, *([more] if more else [])]), opset=13, **{**SCALES, **values})
    graph.ir_version = 7
    return graph


def found(graph: Graph, by: Rules = TRT8) -> list[tuple[str, bool]]:
    return [(finding.rule, finding.fatal) for finding in lint(graph, by)]


@pytest.mark.parametrize("by", [TRT8, TRT85, TRT10])
def test_a_model_that_keeps_all_rules(by: Rules) -> None:
    assert found(read(INPUT + WEIGHT + "[c] y = Conv (d, wd)"), by) == []
    assert found(read("[c] y = Conv (x, w)"), ON_NANO) == []


def test_opset_and_format() -> None:
    graph = read("y = Relu (x)")
    graph.opset, graph.ir_version = 17, 8
    assert found(graph) == [("opset", True), ("ir_version", True)]
    assert found(graph, TRT85) == []
    graph.opset, graph.ir_version = 21, 10
    assert found(graph, TRT10) == [("opset", True)]
    assert lint(graph, TRT10)[0].what == "is of opset 21, and TensorRT 10.3 reads 20 and earlier"


def test_operators() -> None:
    graph = model("[h] y = HardSwish (x)", SIGNATURE, opset=14)
    graph.opset, graph.ir_version = 13, 7
    assert [(f.rule, f.where, f.what) for f in lint(graph, TRT8)] == [
        ("operators", "node 'h'", "TensorRT 8.2 has no HardSwish")
    ]
    assert found(graph, TRT85) == []


def test_dynamic_shapes() -> None:
    graph = read("y = Relu (x)", signature="(float[n,16] x) => (float[n,16] y)")
    assert found(graph) == [("static_shapes", True)]
    assert found(graph, replace(TRT8, profiled=frozenset({"x"}))) == []
    both = read("y = Relu (x)", signature="(float[n,m] x) => (float[n,m] y)")
    assert found(both, replace(TRT8, profiled=frozenset({"x"}))) == [("static_shapes", True)]


def test_integers_where_there_are_none() -> None:
    assert found(read(INPUT + "y = Relu (d)"), ON_NANO) == [("no_int8", True)]


INPUTS: list[tuple[str, str, str, dict[str, object], Rules, list[tuple[str, bool]]]] = [
    ("zero-point", INPUT + "y = Relu (d)", "", {"z": 1}, TRT8, [("zero_points", True), ("zero_points", True)]),
    ("scale 0", INPUT + "y = Relu (d)", "", {"s": 0.0}, TRT8, [("scales", True), ("scales", True)]),
    (
        "no zero-point", "[q] q = QuantizeLinear (x, s)\n[d] d = DequantizeLinear (q, s)\ny = Relu (d)", "",
        {}, TRT8, [("zero_point_missing", True)] * 2,
    ),
    ("int16", INPUT + "y = Relu (d)", "int16 z", {}, TRT10, [("sixteen_bits", True)] * 2),
    ("uint8", INPUT + "y = Relu (d)", "uint8 z", {}, TRT10, [("uint8", False)] * 2),
    (
        "activation per channel", INPUT.replace("(x, s, z)", "(x, ws, wz)").replace("(q, s, z)", "(q, ws, wz)")
        + WEIGHT + "[c] y = Conv (d, wd)", "", {}, TRT8, [("per_channel_activation", False)],
    ),
    ("floats read", WEIGHT + "[c] y = Conv (x, wd)", "", {}, TRT8, [("inputs_in_float", False)]),
    (
        "axis 1", INPUT + WEIGHT.replace("axis = 0", "axis = 1") + "[c] y = Conv (d, wd)", "",
        {}, TRT8, [("weight_axis", False)],
    ),
    (
        "transposed", INPUT + WEIGHT + "[c] y = ConvTranspose (d, wd)", "", {}, TRT8, [("transposed", False)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "more", "values", "by", "wanted"), [case[1:] for case in INPUTS], ids=[case[0] for case in INPUTS]
)
def test_q_and_dq(body: str, more: str, values: dict[str, object], by: Rules, wanted: list[tuple[str, bool]]) -> None:
    assert found(read(body, more, **values), by) == wanted


def test_the_bias() -> None:
    body = INPUT + WEIGHT + "[bd] bd = DequantizeLinear <axis = 0> (bi, ws, bz)\n[c] y = Conv (d, wd, bd)"
    graph = read(body, "int32[16] bi, int32[16] bz", bi=np.ones(16), bz=np.zeros(16))
    assert ("bias", True) in found(graph, TRT10)
    graph = read(INPUT + WEIGHT + "[b] b = Relu (ws)\n[c] y = Conv (d, wd, b)")
    assert found(graph) == [("bias_computed", True)]
    assert found(graph, TRT85) == []


def test_the_form_of_weights() -> None:
    body = INPUT + "[wd] wd = DequantizeLinear <axis = 0> (wi, ws, wz)\n[c] y = Conv (d, wd)"
    graph = read(body, "int8[16,16,1,1] wi", wi=np.ones((16, 16, 1, 1)))
    assert found(graph) == [("weight_form", True)]
    assert found(graph, TRT10) == []


def test_sums() -> None:
    rounded = "[e] e = QuantizeLinear (c, s, z)\n[f] f = DequantizeLinear (e, s, z)\n"
    body = INPUT + WEIGHT + "[c] c = Conv (d, wd)\n" + rounded + "[a] y = Add (f, d)"
    assert found(read(body)) == [("sums", False)]
    assert found(read(body.replace(rounded, "").replace("Add (f, d)", "Add (c, d)"))) == []


def test_narrow_layers() -> None:
    graph = read(
        INPUT + WEIGHT + "[c] y = Conv (d, wd)", "float[8,16,1,1] w, float[8] ws, int8[8] wz",
        "(float[1,16,8,8] x) => (float[1,8,8,8] y)", w=np.ones((8, 16, 1, 1)), ws=np.ones(8), wz=np.zeros(8),
    )  # fmt: skip
    assert found(graph) == [("narrow", False)]


def test_casts_of_typed_models_are_overlooked() -> None:
    body = (
        "[xh] xh = Cast <to = 10> (x)\n[xf] xf = Cast <to = 1> (xh)\n" + INPUT.replace("(x, s, z)", "(xf, s, z)")
        + "[dh] dh = Cast <to = 10> (d)\n" + WEIGHT + "[wh] wh = Cast <to = 10> (wd)\n[c] c = Conv (dh, wh)\n"
        + "[o] y = Cast <to = 1> (c)"
    )  # fmt: skip
    assert found(read(body), TRT10) == []


def test_versions() -> None:
    assert (TRT8.tensorrt, TRT8.opset, TRT8.typed) == ("TensorRT 8.2", 13, False)
    assert (TRT10.tensorrt, TRT10.opset, TRT10.typed) == ("TensorRT 10.3", 20, True)
    assert "LayerNormalization" not in TRT85.operators
    assert "LayerNormalization" in rules((8, 6), ORIN).operators
