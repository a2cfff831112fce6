"""What TensorRT-RTX takes and what runs in INT8 there, by its builder: the lint and the scheme stand on that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.backends.tensorrt import rtx
from edgec.backends.tensorrt.half import in_half
from edgec.backends.tensorrt.quantized_weights import weights_as_floats
from edgec.backends.tensorrt.rtx_compile import layer_of
from edgec.ir.files import save
from edgec.ir.graph import Graph
from edgec.passes.framework.settling import settle
from edgec.testing import model

needs_rtx = pytest.mark.skipif(not rtx.installed(), reason="tensorrt_rtx is not installed: pip install 'edgec[trt]'")
SIGNATURE = "(float[1,32,8,8] x) => (float[1,32,8,8] y)"
INPUT = "[q] q = QuantizeLinear (x, s, z)\n[d] d = DequantizeLinear (q, s, z)\n"
WEIGHT = "[wd] wd = DequantizeLinear <axis = 0> (w, ws, wz)\n"
DECLARED = "float s, int8 z, int8[32,32,3,3] w, float[32] ws, int8[32] wz"
CONV = "[c] y = Conv <pads = [1, 1, 1, 1]> (d, wd)"


def network(body: str, declared: str = DECLARED, signature: str = SIGNATURE, opset: int = 17, **values: Any) -> Graph:
    random = np.random.default_rng(0)
    known = {
        "s": 0.1,
        "z": 0,
        "w": random.integers(-127, 127, (32, 32, 3, 3)),
        "ws": np.full(32, 0.01),
        "wz": np.zeros(32),
    }
    names = {entry.split()[-1] for entry in declared.split(", ") if entry}
    return model(body, signature, declared, opset=opset, **{k: v for k, v in {**known, **values}.items() if k in names})


def check(graph: Graph, folder: Path, *promised: str) -> rtx.Checked:
    save(graph, folder / "model.onnx")
    return rtx.rtx_check(folder / "model.onnx", promised or ("c",))


@needs_rtx
@pytest.mark.parametrize("opset", [13, 17, 19, 21])
def test_weights_as_integers_and_as_floats_run_in_int8(opset: int, tmp_path: Path) -> None:
    graph = network(INPUT + WEIGHT + CONV, opset=opset)
    assert check(graph, tmp_path).int8 == ("c",)
    weights_as_floats(graph)
    checked = check(graph, tmp_path)
    assert (checked.int8, checked.floats, checked.error) == (("c",), (), None)
    assert checked.engine_bytes > 0


@needs_rtx
def test_half_with_integers(tmp_path: Path) -> None:
    graph = network(INPUT + WEIGHT + CONV.replace("y =", "t =") + "\n[r] y = Relu (t)")
    in_half(graph)
    settle(graph, "half")
    assert check(graph, tmp_path).int8 == ("c",)


@needs_rtx
def test_depthwise_gemm_and_a_chain_of_factors(tmp_path: Path) -> None:
    body = (
        INPUT
        + "[wd] wd = DequantizeLinear <axis = 0> (w, ws, wz)\n[c] y = Conv <group = 32, pads = [1, 1, 1, 1]> (d, wd)"
    )
    depthwise = network(body, DECLARED.replace("32,32,3,3", "32,1,3,3"), w=np.ones((32, 1, 3, 3)))
    assert check(depthwise, tmp_path).int8 == ("c",)
    gemm = network(
        INPUT + WEIGHT + "[c] y = Gemm <transB = 1> (d, wd)", DECLARED.replace("32,32,3,3", "32,32"),
        "(float[1,32] x) => (float[1,32] y)", w=np.ones((32, 32)),
    )  # fmt: skip
    assert check(gemm, tmp_path).int8 == ("c",)
    stages = [
        ("x", "a", "v", "32,1,1,1", 1),
        ("a", "b", "p", "32,1,3,1", 32),
        ("b", "e", "h", "32,1,1,3", 32),
        ("e", "y", "u", "32,32,1,1", 1),
    ]
    body, declared, values = "", "float s, int8 z, float[32] ws, int8[32] wz", dict[str, Any]()
    for source, to, name, shape, group in stages:
        body += f"{name}q = QuantizeLinear ({source}, s, z)\n{name}d = DequantizeLinear ({name}q, s, z)\n"
        body += f"{name}w = DequantizeLinear <axis = 0> ({name}i, ws, wz)\n"
        body += f"[{name}] {to} = Conv <group = {group}> ({name}d, {name}w)\n"
        declared += f", int8[{shape}] {name}i"
        values[f"{name}i"] = np.ones([int(n) for n in shape.split(",")])
    chain = network(body, declared, "(float[1,32,8,8] x) => (float[1,32,6,6] y)", **values)
    assert check(chain, tmp_path, "v", "p", "h", "u").floats == ()


@needs_rtx
@pytest.mark.parametrize(
    ("body", "declared", "values"),
    [
        (
            INPUT + WEIGHT + "[bd] bd = DequantizeLinear <axis = 0> (b, ws, bz)\n" + CONV.replace("wd)", "wd, bd)"),
            DECLARED + ", int32[32] b, int32[32] bz", {"b": np.ones(32), "bz": np.zeros(32)},
        ),
        (INPUT + WEIGHT + CONV, DECLARED, {"z": 1}),
        (INPUT + WEIGHT + CONV, DECLARED, {"s": 0.0}),
        (INPUT + WEIGHT + CONV, DECLARED.replace("int8 z", "int16 z"), {}),
    ],
    ids=["integer bias", "zero-point", "scale 0", "int16"],
)  # fmt: skip
def test_what_is_refused(body: str, declared: str, values: dict[str, Any], tmp_path: Path) -> None:
    checked = check(network(body, declared, opset=21, **values), tmp_path)
    assert checked.error is not None
    assert checked.int8 == ()


@needs_rtx
def test_a_dynamic_shape_without_a_profile_is_refused(tmp_path: Path) -> None:
    graph = network(INPUT + WEIGHT + CONV, signature="(float[n,32,8,8] x) => (float[n,32,8,8] y)")
    assert check(graph, tmp_path).error is not None


@needs_rtx
@pytest.mark.parametrize(
    ("body", "declared", "values"),
    [
        (INPUT + WEIGHT.replace("axis = 0", "axis = 1") + CONV, DECLARED, {}),
        (WEIGHT + CONV.replace("(d, ", "(x, "), DECLARED, {}),
        (
            "[q] q = QuantizeLinear <axis = 1> (x, ws, wz)\n[d] d = DequantizeLinear <axis = 1> (q, ws, wz)\n" + WEIGHT
            + CONV, DECLARED.replace("float s, int8 z, ", ""), {},
        ),
        (INPUT + WEIGHT + "[c] y = ConvTranspose <pads = [1, 1, 1, 1]> (d, wd)", DECLARED, {}),
        (INPUT + WEIGHT.replace("0", "1") + "[c] y = ConvTranspose <pads = [1, 1, 1, 1]> (d, wd)", DECLARED, {}),
    ],
    ids=["axis 1", "floats read", "activation per channel", "transposed, axis 0", "transposed, axis 1"],
)  # fmt: skip
def test_what_builds_and_is_quietly_float(body: str, declared: str, values: dict[str, Any], tmp_path: Path) -> None:
    checked = check(network(body, declared, **values), tmp_path)
    assert (checked.error, checked.floats) == (None, ("c",))


@needs_rtx
def test_uint8_with_zero_point_0_is_taken_as_int8(tmp_path: Path) -> None:
    checked = check(network(INPUT + WEIGHT + CONV, DECLARED.replace("int8 z", "uint8 z")), tmp_path)
    assert (checked.error, checked.int8) == (None, ("c",))


@needs_rtx
def test_a_sum_is_fused_where_only_the_shortcut_is_rounded(tmp_path: Path) -> None:
    body = INPUT + WEIGHT + CONV.replace("y =", "t =") + "\n[a] y = Add (t, d)"
    assert check(network(body), tmp_path).int8 == ("c",)


# -- without the builder -----------------------------------------------------------------------------------------------

LINE = (
    "Name: c_myl0_1, LayerType: correlation, Inputs: [ {{ Name: a, Dimensions: [1,16], Datatype: {0}, Format: x }}], "
    "Constants: [ {{ Name: w, Datatype: Int8 }}], Outputs: [ {{ Name: y, Datatype: Float }}], TacticName: t, "
    "StreamId: 0, Metadata: [ONNX Layer: c]\x1f[ONNX Layer: d]"
)


def test_lines_of_the_log() -> None:
    layer = layer_of(LINE.format("Int8"))
    assert layer == {"kind": "correlation", "datatypes": ["Int8"], "nodes": ["c", "d"]}
    assert layer_of("Engine generation completed in 0.03 seconds.") is None
    float_layer = layer_of(LINE.format("Half"))
    assert float_layer is not None
    assert rtx.in_int8([layer, {**float_layer, "nodes": ["e"]}, {**layer, "kind": "kgen", "nodes": ["f"]}]) == {
        "c",
        "d",
    }


def test_what_goes_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network("[c] y = Relu (x)", "")
    monkeypatch.setattr(rtx.sys, "executable", "/bin/false")
    assert check(graph, tmp_path).error == "ended with 1 (it said nothing)"
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 5\n")
    slow.chmod(0o755)
    monkeypatch.setattr(rtx.sys, "executable", str(slow))
    monkeypatch.setattr(rtx, "LIMIT_SECONDS", 0.2)
    assert check(graph, tmp_path).error == "did not end within 0.2 s"


def test_shares_of_the_work() -> None:
    checked = rtx.Checked("1", None, 10, ("a",), ("b",))
    assert checked.as_dict({"a": 3, "b": 1})["int8_share_of_promised_macs"] == 0.75
    assert rtx.Checked("1", None).as_dict({})["int8_share_of_promised_macs"] is None
