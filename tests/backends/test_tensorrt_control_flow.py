"""Networks with If, Loop and Scan: their typed files, what overflows in their bodies, and bundles of them on boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bundles import bench

from edgec.backends.protocol import Beside
from edgec.backends.registry import target
from edgec.backends.tensorrt.backend import TensorRTBackend
from edgec.backends.tensorrt.body_ranges import BodyRanges
from edgec.backends.tensorrt.bundle import read_manifest
from edgec.backends.tensorrt.half import in_half, overflowing, rounded
from edgec.backends.tensorrt.lint import lint
from edgec.backends.tensorrt.models import models_of
from edgec.backends.tensorrt.rtx import installed
from edgec.backends.tensorrt.versions import profile_of
from edgec.ir.execution import sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.framework.settling import settle
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, corrupt, model, outputs, run_pass

ORIN = target("jetson-orin-nano")
FLOAT16 = onnx.TensorProto.FLOAT16

IF = """
[c] c = Conv (x, w)
[i] b = If (flag) <
  then_branch = t () => (float[1,16,8,8] u) { [in] u = Conv (c, w) },
  else_branch = e () => (float[1,16,8,8] v) { [neg] p = Neg (x)
    [inner] v = If (flag) <
      then_branch = tt () => (float[1,16,8,8] vt) { [abs] vt = Abs (p) },
      else_branch = ee () => (float[1,16,8,8] ve) { [exp] ve = Add (p, c) }> }>
[last] y = Conv (b, w)
"""
IF_SIGNATURE = "(float[1,16,8,8] x, bool flag) => (float[1,16,8,8] y)"
LOOP = """
[first] r = MatMul (x, w)
[l] f, o = Loop (n, , r) <body = l (int64 i, bool k, float[1,16] s) => (bool k2, float[1,16] s2, float[1,16] one) {
  [go] k2 = Identity (k)
  [m] t = MatMul (s, w)
  [tanh] s2 = Tanh (t)
  [add] one = Add (s2, r) }>
[z] y = Mul (f, f)
"""
LOOP_SIGNATURE = "(float[1,16] x) => (float[1,16] y, float[m,1,16] o)"
SCAN = """
[first] r = MatMul (x, w)
[l] f, o = Scan <num_scan_inputs = 1, body = l (float[1,16] s, float[1,16] a) => (float[1,16] s2, float[1,16] one) {
  [t] t = Add (s, a)
  [tanh] s2 = Tanh (t)
  [relu] one = Add (t, r) }> (r, xs)
[z] y = Mul (f, f)
"""
SCAN_SIGNATURE = "(float[1,16] x, float[3,1,16] xs) => (float[1,16] y, float[3,1,16] o)"

NESTED = """
[turns] turns = Cast <to = 1> (n)
[on] on = Cast <to = 1> (yes)
[first] q = MatMul (x, w)
[i] y = If (flag) <
  then_branch = t () => (float[1,16] u) {
    [l] u = Loop (n, yes, q) <body = b (int64 i, bool k, float[1,16] s) => (bool k2, float[1,16] s2) {
      [go] k2 = Identity (k)
      [add] a = Add (s, q)
      [tanh] s2 = Tanh (a) }> },
  else_branch = e () => (float[1,16] v) { [neg] v = Neg (q) }>
"""
NESTED_SIGNATURE = "(float[1,16] x, bool flag) => (float[1,16] y, float turns, float on)"


def with_if() -> Graph:
    return model(IF, IF_SIGNATURE, "float[16,16,1,1] w")


def with_loop() -> Graph:
    return model(LOOP, LOOP_SIGNATURE, "float[16,16] w, int64 n", n=3)


def with_scan() -> Graph:
    return model(SCAN, SCAN_SIGNATURE, "float[16,16] w")


def with_loop_in_branch() -> Graph:
    return model(NESTED, NESTED_SIGNATURE, "int64 n, bool yes, float[16,16] w", n=3, yes=True)


NETWORKS = {"if": with_if, "loop": with_loop, "scan": with_scan, "loop in a branch": with_loop_in_branch}


def samples(graph: Graph, size: float = 1.0) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {
            t.name: np.array(index % 2 == 0) if t.dtype == bool
            else np.asarray(size * random.normal(size=t.shape), np.float32)
            for t in graph.inputs
        }
        for index in range(4)
    ]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_typed_files(name: str, tmp_path: Path) -> None:
    graph = NETWORKS[name]()
    feeds = samples(graph)
    made = TensorRTBackend().emit(graph.copy(), ORIN, tmp_path, feeds)
    manifest = read_manifest(tmp_path)
    assert [(entry.file, entry.tensorrt.least, entry.tensorrt.below) for entry in manifest.models] == [
        ("model_fp16_typed.onnx", "10.0", None), ("model_fp16.onnx", None, "10.0"), ("model_fp32.onnx", None, None),
    ]  # fmt: skip
    typed = onnx.load(tmp_path / "model_fp16_typed.onnx")
    onnx.checker.check_model(typed, full_check=True)
    session = ort.InferenceSession(str(tmp_path / "model_fp16_typed.onnx"), providers=["CPUExecutionProvider"])
    for one in feeds:
        found = dict(zip([t.name for t in graph.outputs], session.run(None, one), strict=True))
        assert sqnr_db(outputs(graph, one), found) > 45
    found = made.check["models"]["model_fp16_typed.onnx"]
    assert 45 < found["sqnr_db"] < 90
    if installed():
        assert found["rtx_compile_check"]["error"] is None
    run = TensorRTBackend().runner(graph, tmp_path)
    assert sqnr_db(outputs(graph, feeds[0]), run(feeds[0])) > 45
    corrupt(graph)
    assert sqnr_db(outputs(graph, feeds[0]), run(feeds[0])) < 40


def test_int8_around_a_body(tmp_path: Path) -> None:
    head = "[largest] m = ReduceMax <keepdims = 0> (x)\n[f] flag = Greater (m, bound)\n"
    signature = "(float[1,16,8,8] x) => (float[1,16,8,8] y)"
    graph = model(head + IF, signature, "float[16,16,1,1] w, float bound", bound=3.3)
    feeds = samples(graph)
    floats = graph.copy()
    run_pass(Quantize(effort="fast"), graph, target=ORIN, data={"calibration": Samples(feeds)})
    made = TensorRTBackend().emit(graph, ORIN, tmp_path, feeds, Beside(floats, feeds))
    assert made.model == "model_int8_typed.onnx"
    found = made.check["models"]["model_int8_typed.onnx"]
    assert found["int8_share_of_macs"] > 0
    assert found["sqnr_db"] > 20
    if installed():
        assert (found["rtx_compile_check"]["error"], found["rtx_compile_check"]["float_layers"]) == (None, [])


@pytest.mark.parametrize("version", ["8.5.3", "10.3.0"])
@pytest.mark.parametrize("name", ["if", "loop"])
def test_a_bundle_on_a_board(name: str, version: str, tmp_path: Path) -> None:
    graph = NETWORKS[name]()
    feeds = [{k: v.astype(np.float32) if v.dtype == bool else v for k, v in one.items()} for one in samples(graph)]
    if name == "if":  # what is fed to the stand-in is float32
        graph = model("[f] flag = Greater (level, zero)\n" + IF, IF_SIGNATURE.replace("bool flag", "float level"),
                      "float[16,16,1,1] w, float zero", zero=0.5)  # fmt: skip
        feeds = [{"x": one["x"], "level": one["flag"]} for one in feeds]
    TensorRTBackend().emit(graph, ORIN, tmp_path / "out", feeds)
    machine = bench(tmp_path / "out", tmp_path, version)
    status, _, err = machine.run()
    assert (status, err) == (0, "")
    typed = version.startswith("10")
    assert machine.report["best"]["file"] == ("model_fp16_typed.onnx" if typed else "model_fp16.onnx")


def types(graph: Graph) -> dict[str, str]:
    return {t.name: str(t.dtype) for one in graph.graphs() for node in one.nodes for t in node.outputs}


def test_what_a_body_reads_from_outside_has_the_type_that_it_has_there() -> None:
    graph = with_if()
    in_half(graph, {"c"})
    settle(graph, "test")
    found = types(graph)
    assert (found["c"], found["u"], found["b"]) == ("float32", "float16", "float32")
    inner = [node for one in graph.graphs()[1:] for node in one.nodes]
    assert [n.name for n in inner if n.op == "Cast" and n.inputs[0].name == "c"] == ["c.half.cast", "c.half.1.cast"]
    rounded(graph)
    settle(graph, "test")
    assert not any(t.dtype == np.float16 for t in graph.constants())
    assert sqnr_db(outputs(with_if(), samples(graph)[0]), outputs(graph, samples(graph)[0])) > 45


def test_bodies_that_stay_float() -> None:
    graph = with_scan()
    in_half(graph)
    settle(graph, "test")
    assert {node.op for node in graph.graphs()[1].nodes if node.outputs[0].dtype == np.float16} == set()
    assert types(graph)["r"] == "float16"
    graph = with_loop_in_branch()
    in_half(graph)
    settle(graph, "test")
    found = types(graph)
    assert [found[name] for name in ("q", "v", "a", "s2")] == ["float16", "float16", "float32", "float32"]


# -- what overflows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_bodies_are_measured(name: str) -> None:
    graph = NETWORKS[name]()
    ranges = BodyRanges(graph)
    for feeds in samples(graph):
        ranges.see(feeds)
    (largest,) = ranges.largest.values()
    assert 0.5 < largest < 20
    ranges.see({k: v * np.float32(1000) if v.dtype != bool else v for k, v in samples(graph)[0].items()})
    assert max(ranges.largest.values()) > (100 if name != "loop" else 1)


def test_the_largest_of_all_turns() -> None:
    """A loop that doubles its state: the last turn of eight has the largest."""
    body = "[d] d = Loop (n, yes, x) <body = l (int64 i, bool k, float[2] s) => (bool k2, float[2] s2) { "
    body += "[go] k2 = Identity (k)\n[two] s2 = Add (s, s) }>\n[y] y = Identity (d)"
    graph = model(body, "(float[2] x) => (float[2] y)", "int64 n, bool yes", n=8, yes=True)
    ranges = BodyRanges(graph)
    ranges.see({"x": np.array([1, -2], np.float32)})
    assert ranges.largest == {"d": 512.0}
    assert overflowing(graph, [{"x": np.array([1, -2], np.float32)}]) == []
    # Twice as much must have room too: 256 * 200 has not.
    assert overflowing(graph, [{"x": np.array([200, 1], np.float32)}]) == ["d", "y", "go", "two"]


def test_a_body_that_overflows_stays_float(tmp_path: Path) -> None:
    text = IF.replace("[in] u = Conv (c, w)", "[sq] q = Mul (c, c)\n[root] u = Sqrt (q)")
    graph = model(text, IF_SIGNATURE, "float[16,16,1,1] w")
    feeds = samples(graph, size=200.0)
    beyond = overflowing(graph, feeds)
    assert beyond == ["sq", "root", "neg", "inner", "abs", "exp"]
    made = TensorRTBackend().emit(graph.copy(), ORIN, tmp_path, feeds)
    assert made.notes[0] == "6 layers stay FP32, for FP16 would overflow: sq, root, neg."
    manifest = read_manifest(tmp_path)
    assert manifest.models[1].float32_layers == tuple(beyond)
    found: Any = made.check["models"]
    assert found["model_fp16_typed.onnx"]["sqnr_db"] > 45


def test_rules_hold_inside_bodies() -> None:
    profile = profile_of(ORIN)
    for graph in (with_if(), with_loop()):
        made = models_of(profile, graph, None, samples(graph))
        assert [finding for one in made for finding in lint(one.graph, one.rules)] == []
    loops = [node for node in made[0].graph.nodes if node.op == "Loop"]
    assert [node.inputs[1].name for node in loops] == ["l.condition"]
