"""Engines for batches of several sizes: profiles in the recipe, networks that are opened for them, bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles import Bench, bench

from edgec.backends.protocol import Beside, legalize
from edgec.backends.registry import target
from edgec.backends.tensorrt.backend import TensorRTBackend
from edgec.backends.tensorrt.bundle import read_manifest
from edgec.backends.tensorrt.dynamic_batch import Batches, check_batches, opened
from edgec.backends.tensorrt.rtx import installed
from edgec.ir.batch_flow import FLOW_RULES
from edgec.ir.errors import EmitError, UsageError
from edgec.ir.execution import Session, seeded_feeds, sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.framework.target import Target
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, model, run_pass

NANO, XAVIER, ORIN = map(target, ("jetson-nano", "jetson-xavier-nx", "jetson-orin-nano"))
BODY = """
[a] a = Conv <pads = [1, 1, 1, 1]> (x, wa)
[r] r = Relu (a)
[up] u = Resize <mode = "linear"> (r, , , sizes)
[pool] p = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (u)
[rows] f = Reshape (p, rows)
[fc] y = Gemm <transB = 1> (f, wg, bg)
"""
SIGNATURE = "(float[1,16,8,8] x) => (float[1,20] y)"
WEIGHTS = "float[16,16,3,3] wa, float[20,256] wg, float[20] bg, int64[4] sizes, int64[2] rows"
SHAPE = [16, 8, 8]


def network() -> Graph:
    return model(BODY, SIGNATURE, WEIGHTS, sizes=[1, 16, 16, 16], rows=[1, 256])


def with_profile(board: Target, least: int, usual: int, most: int) -> Target:
    shapes = {"min": [least, *SHAPE], "opt": [usual, *SHAPE], "max": [most, *SHAPE]}
    return TensorRTBackend().configured(board, {"profiles": {"x": shapes}}, place)


def place(*loc: str) -> str:
    return ".".join(("c.yaml: line 1: targets[0]", *loc))


def samples(count: int = 8) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": random.normal(size=(1, *SHAPE)).astype(np.float32)} for _ in range(count)]


def emitted(board: Target, folder: Path) -> Any:
    backend, graph = TensorRTBackend(), network()
    backend.accept(graph, board)
    legalize(graph, backend, board)
    floats = graph.copy()
    if board.scheme is not None:
        run_pass(Quantize(effort="fast"), graph, target=board, data={"calibration": Samples(samples())})
    return backend.emit(graph, board, folder, samples(3), Beside(floats, samples()))


# -- bundles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("board", "version"), [(NANO, "8.2.1"), (XAVIER, "8.2.1"), (ORIN, "8.5.3"), (ORIN, "10.3.0")])
def test_a_bundle_on_a_board(board: Target, version: str, tmp_path: Path) -> None:
    board = with_profile(board, 1, 4, 6)
    emitted(board, tmp_path / "out")
    machine = bench(tmp_path / "out", tmp_path, version)
    status, out, err = machine.run()
    assert (status, err) == (0, "")
    assert ": 4 samples at once: median " in out
    best = machine.report["best"]
    assert best["latency"]["batch"] == 4
    assert best["check"]["samples"] == 3
    assert "-batch1-4-6." in best["build"]["engine"]
    calls = machine.calls()
    profile = ["--minShapes=x:1x16x8x8", "--optShapes=x:4x16x8x8", "--maxShapes=x:6x16x8x8"]
    builds = [call for call in calls if call[0].startswith("--onnx")]
    assert builds and all([flag for flag in call if "Shapes" in flag] == profile for call in builds)
    fed = [flag for call in calls if any("loadInputs" in f for f in call) for flag in call if "--shapes" in flag]
    assert fed[:3] == ["--shapes=x:1x16x8x8", "--shapes=x:4x16x8x8", "--shapes=x:6x16x8x8"]
    timed = [call for call in calls if any("exportTimes" in flag for flag in call)]
    assert timed and all("--shapes=x:4x16x8x8" in call for call in timed)


def test_a_bundle(tmp_path: Path) -> None:
    board = with_profile(ORIN, 2, 4, 4)
    with pytest.raises(UsageError):
        TensorRTBackend().accept(network(), board)  # it is compiled at 1
    board = with_profile(ORIN, 1, 4, 4)
    made = emitted(board, tmp_path)
    manifest = read_manifest(tmp_path)
    assert (manifest.inputs[0].shape, manifest.inputs[0].shapes) == ((1, 16, 8, 8), ((1, 16, 8, 8), (4, 16, 8, 8)))
    assert manifest.outputs[0].shapes == ((1, 20), (4, 20))
    for entry in manifest.models:
        proto = onnx.load(tmp_path / entry.file)
        onnx.checker.check_model(proto, full_check=True)
        for value in (*proto.graph.input, *proto.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    check = json.loads((tmp_path / "check.json").read_text())
    assert check["lint"] == []
    assert check["inputs"][0]["profile"] == {"min": [1, *SHAPE], "opt": [4, *SHAPE], "max": [4, *SHAPE]}
    if installed():
        for file in ("model_int8_typed.onnx", "model_fp16_typed.onnx"):
            assert check["models"][file]["rtx_compile_check"]["error"] is None
        assert check["models"]["model_int8_typed.onnx"]["rtx_compile_check"]["int8_share_of_promised_macs"] == 1.0
    assert made.sqnr_db > 20
    run = TensorRTBackend().runner(network(), tmp_path)  # of one sample, as it was compiled
    feeds = samples(1)[0]
    assert sqnr_db(Session(network()).run(feeds), run(feeds)) > 20


def test_memory_is_that_of_the_largest_batch(tmp_path: Path) -> None:
    estimates = []
    for most in (1, 9):
        folder = tmp_path / str(most)
        emitted(with_profile(NANO, 1, 1, most), folder)
        estimates.append(read_manifest(folder).models[0].memory_bytes)
    static = tmp_path / "static"
    emitted(NANO, static)
    assert estimates[0] == read_manifest(static).models[0].memory_bytes
    # Four copies of 8 more batches of the activations, the largest of them 16x16x16 beside 16x8x8.
    assert estimates[1] - estimates[0] == 4 * 8 * 4 * (16 * 16 * 16 + 16 * 8 * 8)


@pytest.fixture
def nano(tmp_path: Path) -> Bench:
    emitted(with_profile(NANO, 1, 2, 3), tmp_path / "out")
    return bench(tmp_path / "out", tmp_path, "8.2.1")


def test_without_a_profile_the_engine_takes_one_sample(nano: Bench) -> None:
    """What the stand-in says where the driver would leave the profile out, as trtexec does."""
    manifest = json.loads((nano.folder / "manifest.json").read_text())
    del manifest["inputs"][0]["profile"]
    (nano.folder / "manifest.json").write_text(json.dumps(manifest))
    status, _, err = nano.run()
    assert status == 12
    assert "model_fp16.onnx: its engine does not run (Error: Unexpected file size for input x)" in err


def test_a_batch_that_is_too_large_for_the_engine(nano: Bench) -> None:
    manifest = json.loads((nano.folder / "manifest.json").read_text())
    manifest["inputs"][0]["profile"]["max"][0] = 2
    (nano.folder / "manifest.json").write_text(json.dumps(manifest))
    status, _, err = nano.run()
    assert status == 12
    assert "Supplied binding dimension [3, 16, 8, 8] for x exceed min ~ max range" in err


def test_another_profile_is_another_engine(nano: Bench) -> None:
    assert nano.run()[0] == 0
    manifest = json.loads((nano.folder / "manifest.json").read_text())
    manifest["inputs"][0]["profile"]["max"][0] = 8
    (nano.folder / "manifest.json").write_text(json.dumps(manifest))
    assert nano.run()[0] == 0
    assert not nano.report["best"]["build"]["reused"]


# -- networks that are opened ------------------------------------------------------------------------------------------

OPENED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("[n] y = Relu (x)", "(float[1,4,6] x) => (float[1,4,6] y)", "", {}),
    ("[n] y = Reshape (x, s)", "(float[1,4,6] x) => (float[4,6] y)", "int64[2] s", {"s": [4, 6]}),
    ("[n] y = Reshape (x, s)", "(float[1,4,6] x) => (float[1,24] y)", "int64[2] s", {"s": [1, -1]}),
    ("[n] y = Reshape (x, s)", "(float[2,4,6] x) => (float[2,2,12] y)", "int64[3] s", {"s": [0, 2, -1]}),
    (
        "[t] t = Transpose <perm = [1, 0, 2]> (x)\n[n] y = Reshape (t, s)", "(float[1,4,6] x) => (float[4,6,1] y)",
        "int64[3] s", {"s": [4, 6, 1]},
    ),
    ("[n] y = Flatten (x)", "(float[1,4,6] x) => (float[1,24] y)", "", {}),
    ("[n] y = Flatten <axis = 0> (x)", "(float[1,4,6] x) => (float[1,24] y)", "", {}),
    (
        "[n] y = Slice (x, s, e)", "(float[1,4,6] x) => (float[1,3,6] y)", "int64[2] s, int64[2] e",
        {"s": [0, 1], "e": [1, 4]},
    ),
    (
        "[n] y = Slice (x, s, e, a, d)", "(float[1,4,6] x) => (float[1,2,6] y)",
        "int64[2] s, int64[2] e, int64[2] a, int64[2] d", {"s": [1, -1], "e": [3, -100], "a": [-2, 0], "d": [1, -1]},
    ),
    ("[n] y = Slice (x, s, e, a)", "(float[1,4,6] x) => (float[1,4,2] y)", "int64[1] s, int64[1] e, int64[1] a",
     {"s": [1], "e": [3], "a": [2]}),
    ("[n] y = Concat <axis = 1> (t, x, t)", "(float[1,4,6] x) => (float[1,6,6] y)", "float[1,1,6] t", {}),
    (
        "[p] p = Transpose <perm = [1, 0, 2]> (x)\n[n] y = Concat <axis = 0> (t, p)",
        "(float[1,4,6] x) => (float[5,1,6] y)", "float[1,1,6] t", {},
    ),
    (
        "[e] e = Expand (x, s)\n[n] y = Mul (e, w)", "(float[1,1,6] x) => (float[1,4,6] y)", "int64[3] s, float[4,6] w",
        {"s": [1, 4, 6]},
    ),
    ("[n] y = Expand (x, s)", "(float[2,1,6] x) => (float[2,4,6] y)", "int64[3] s", {"s": [2, 4, 6]}),
    (
        '[n] y = Resize <mode = "nearest"> (x, , , s)', "(float[1,2,3,3] x) => (float[1,2,7,10] y)", "int64[4] s",
        {"s": [1, 2, 7, 10]},
    ),
    ("[n] y = Softmax <axis = 1> (x)", "(float[3,4] x) => (float[3,4] y)", "", {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "signature", "weights", "values"), OPENED)
def test_samples_side_by_side(body: str, signature: str, weights: str, values: dict[str, Any]) -> None:
    graph = model(body, signature, weights, **values)
    made, axes = opened(graph, "board")
    found = check_batches(made, Batches(graph, seeded_feeds(graph, samples=3), axes), [1, 2, 7], "board")
    assert min(found.values()) > 100
    assert made.inputs[0].shape is not None and made.inputs[0].shape[0] == "batch"


def test_two_inputs_and_an_output_that_is_the_same_for_all() -> None:
    body = "[s] y = Add (x, z)\n[c] c = Relu (w)"
    graph = model(body, "(float[1,3] x, float[1,3] z) => (float[1,3] y, float[2] c)", "float[2] w")
    made, axes = opened(graph, "board")
    assert axes == {"y": 0, "c": None}
    check_batches(made, Batches(graph, seeded_feeds(graph), axes), [5], "board")


BRANCHES = "then_branch = t () => (float[1,4] u) { u = Relu (x) }, else_branch = e () => (float[1,4] v) { v = Neg (x) }"
REFUSED = [
    ("[n] y = Softmax <axis = 0> (x)", "", {}, "Softmax", "it works along axis 0, which is the batch's"),
    ("[n] s = Shape (x)\n[k] k = Cast <to = 1> (s)\n[m] r = ReduceSum <keepdims = 0> (k)\n[a] y = Add (x, r)", "", {},
     "Shape", "it reads the batch size"),
    (f"[n] y = If (b) <{BRANCHES}>", "bool b", {"b": True}, "If", "how samples of a batch run through it is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "weights", "values", "op", "what"), REFUSED)
def test_samples_that_do_not_stay_apart(body: str, weights: str, values: dict[str, Any], op: str, what: str) -> None:
    graph = model(body, "(float[1,4] x) => (float[1,4] y)", weights, **values)
    with pytest.raises(EmitError) as caught:
        opened(graph, "jetson-nano")
    assert str(caught.value) == (
        f"jetson-nano: profiles: node 'n' ({op}): {what}, so the batch cannot vary; leave out 'profiles', or change "
        "the network so that its samples stay apart"
    )


def test_what_a_batch_computes_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that let a sum over the batch through would be found."""
    monkeypatch.setitem(FLOW_RULES, "CumSum", lambda at: 0)
    graph = model("[n] y = CumSum (x, zero)", "(float[1,4] x) => (float[1,4] y)", "int64 zero", zero=0)
    made, axes = opened(graph, "board")
    batches = Batches(graph, seeded_feeds(graph), axes)
    assert check_batches(made, batches, [1], "board") == {"1": float("inf")}
    made.inputs[0].shape = [2, 4]
    with pytest.raises(EmitError, match=r"^board: profiles: does not take 3 samples at once \(cannot run the model \("):
        check_batches(made, batches, [3], "board")
    made.inputs[0].shape = ["batch", 4]
    with pytest.raises(EmitError, match=r"^board: profiles: gives something else for 3 samples at once than for each "):
        check_batches(made, batches, [1, 3], "board")


# -- profiles that are wrong -------------------------------------------------------------------------------------------

EXAMPLE = "write {min: [1, 3, 224, 224], opt: [4, 3, 224, 224], max: [8, 3, 224, 224]}"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"profile": {}}, "targets[0].profile: unknown option; the only option here is profiles. Did you mean 'profiles'?"),
    ({"profiles": 3}, f"targets[0].profiles: must name the model's inputs, each with its shapes; {EXAMPLE}"),
    ({"profiles": {}}, f"targets[0].profiles: must name the model's inputs, each with its shapes; {EXAMPLE}"),
    (
        {"profiles": {"x": {"min": [1], "max": [2]}}},
        f"targets[0].profiles.x: must hold min, opt and max, a shape each; {EXAMPLE}",
    ),
    (
        {"profiles": {"x": {"min": [0, 4], "opt": [1, 4], "max": [2, 4]}}},
        f"targets[0].profiles.x.min: must be a list of sizes from 1 on; {EXAMPLE}",
    ),
    (
        {"profiles": {"x": {"min": [1, 4], "opt": "2x4", "max": [2, 4]}}},
        f"targets[0].profiles.x.opt: must be a list of sizes from 1 on; {EXAMPLE}",
    ),
    (
        {"profiles": {"x": {"min": [1, 4], "opt": [1, 4], "max": [2, 4, 1]}}},
        "targets[0].profiles.x: min, opt and max have 2, 2, 3 dimensions; write shapes of one rank",
    ),
    (
        {"profiles": {"x": {"min": [1, 4], "opt": [1, 4], "max": [2, 8]}}},
        "targets[0].profiles.x: dimension 1 varies (4, 4, 8), and only the batch may; write the same sizes in all "
        "three; give only the first dimension, the batch's, a range",
    ),
    (
        {"profiles": {"x": {"min": [4, 4], "opt": [2, 4], "max": [8, 4]}}},
        "targets[0].profiles.x: min has 4 samples, more than opt with 2; let them rise: min, opt, max",
    ),
    (
        {"profiles": {"x": {"min": [1, 4], "opt": [9, 4], "max": [8, 4]}}},
        "targets[0].profiles.x: opt has 9 samples, more than max with 8; let them rise: min, opt, max",
    ),
    (
        {
            "profiles": {
                "x": {"min": [1, 4], "opt": [2, 4], "max": [8, 4]},
                "z": {"min": [1, 4], "opt": [2, 4], "max": [4, 4]},
            }
        },
        "targets[0].profiles.z: has other batch sizes than 'x' (1/2/4 and 1/2/8); all inputs take the samples of one "
        "batch: write the same sizes",
    ),
]


@pytest.mark.parametrize(("options", "line"), WRONG)
def test_what_is_no_profile(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        TensorRTBackend().configured(ORIN, options, place)
    assert str(caught.value) == f"c.yaml: line 1: {line}"


UNFIT: list[tuple[dict[str, list[int]], str]] = [
    ({"im": [1, 4]}, "profiles.im: the model has no input 'im'; the inputs are 'image', 'x'"),
    ({"imag": [1, 4]}, "profiles.imag: the model has no input 'imag'; Did you mean 'image'?"),
    ({"x": [1, 4, 1]}, "profiles.x: has 3 dimensions, and input 'x' has 2; its shape is 2x4"),
    ({"x": [1, 5]}, "profiles.x: dimension 1 is 5, and input 'x' has 4 there; its shape is 2x4"),
    (
        {"x": [3, 4]},
        "profiles.x: goes from 3 to 5 samples, and the network is compiled at 2 (2x4); let it hold 2, or pin the model "
        "with --input",
    ),
    (
        {"x": [1, 4]},
        "profiles: has none for input 'image', whose first dimension is the batch's too; give each input a profile",
    ),
]


@pytest.mark.parametrize(("shapes", "line"), UNFIT)
def test_a_profile_that_does_not_fit(shapes: dict[str, list[int]], line: str) -> None:
    graph = model("[n] y = Add (x, image)", "(float[2,4] image, float[2,4] x) => (float[2,4] y)")
    profiles = {
        name: {"min": shape, "opt": [shape[0] + 1, *shape[1:]], "max": [shape[0] + 2, *shape[1:]]}
        for name, shape in shapes.items()
    }
    board = TensorRTBackend().configured(ORIN, {"profiles": profiles}, place)
    with pytest.raises(UsageError) as caught:
        TensorRTBackend().accept(graph, board)
    assert str(caught.value) == f"c.yaml: line 1: targets[0].{line}"
