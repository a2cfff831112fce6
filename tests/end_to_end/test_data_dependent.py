"""Networks whose outputs have a size that depends on the data: detectors with their NMS, NonZero, and their kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

Edgec = Callable[..., tuple[int, str, str]]
RUN = ("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")
RECIPE = """\
data: {{calibration: {{arrays: data.npz}}}}
passes: {passes}
targets: [{target}]
"""
BACKBONE = "c = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w1) r = Relu(c) "
TAILS = {
    "NonZero": ("y = NonZero(r)", "int64[4,n] y"),
    "Compress": ("f = Reshape(r, all) g = Greater(f, half) y = Compress(f, g)", "float[n] y"),
    "Unique": ("f = Reshape(r, all) t = Round(f) y = Unique(t)", "float[n] y"),
    "TopK": (
        "f = Reshape(r, all) g = Greater(f, half) i = Cast<to=7>(g) k = ReduceSum<keepdims=1>(i) y, p = TopK(f, k)",
        "float[n] y, int64[n] p",
    ),
    "NonMaxSuppression": (
        "f = Reshape(r, heads) t = Transpose<perm=[0,2,1]>(f) b, s = Split<axis=2>(t, parts) boxes = Sigmoid(b) "
        "q = Transpose<perm=[0,2,1]>(s) scores = Sigmoid(q) y = NonMaxSuppression(boxes, scores, most, iou, least)",
        "int64[n,3] y, float[1,64,4] boxes",
    ),
}


def network(kind: str) -> onnx.ModelProto:
    """The tail of a kind behind a convolution of 3x16x16."""
    tail, outputs = TAILS[kind]
    random = np.random.default_rng(0)
    weights = {
        "w1": (random.normal(size=(16, 3, 3, 3)) / 5).astype(np.float32),
        "all": np.array([-1], np.int64), "half": np.array(0.5, np.float32), "heads": np.array([1, 16, 64], np.int64),
        "parts": np.array([4, 12], np.int64), "most": np.array([10], np.int64), "iou": np.array([0.5], np.float32),
        "least": np.array([0.75], np.float32),
    }  # fmt: skip
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,3,16,16] x) => ({outputs}) {{ {BACKBONE}{tail} }}"""
    model = onnx.parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items() if k in read)
    return model


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], Path]:
    def make(kind: str, passes: str, target: str) -> Path:
        onnx.save(network(kind), tmp_path / "model.onnx")
        random = np.random.default_rng(1)
        np.savez(tmp_path / "data.npz", x=random.normal(size=(40, 3, 16, 16)).astype(np.float32))
        (tmp_path / "compress.yaml").write_text(RECIPE.format(passes=passes, target=target))
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return make


def outputs_of(path: Path, samples: np.ndarray) -> list[list[np.ndarray]]:
    session = ort.InferenceSession(str(path))
    return [session.run(None, {"x": sample[None]}) for sample in samples]


@pytest.mark.parametrize("kind", TAILS)
def test_an_exact_pass_gives_the_same_shapes_and_values(
    kind: str, detector: Callable[[str, str, str], Path], edgec: Edgec
) -> None:
    folder = detector(kind, "[fold]", "cpu")
    status, _, err = edgec(*RUN)
    assert (status, err) == (0, "")
    unseen = np.random.default_rng(2).normal(size=(6, 3, 16, 16)).astype(np.float32)
    before = outputs_of(folder / "model.onnx", unseen)
    assert len({tuple(v.shape for v in run) for run in before}) > 1, "the sizes do not depend on the data"
    for one, other in zip(before, outputs_of(folder / "out" / "cpu" / "model.onnx", unseen), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    check = json.loads((folder / "out" / "cpu" / "check.json").read_text())
    assert check["other_shape_in_runs"] == {}


def test_a_lossy_network_is_compared_where_it_can_be(detector: Callable[[str, str, str], Path], edgec: Edgec) -> None:
    folder = detector("NonMaxSuppression", "[fold, quantize]", "cpu")
    assert edgec(*RUN)[0] == 0
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    assert 5 < report["targets"]["cpu"]["sqnr_db"] < 60, "boxes can be compared, whatever NMS selects"
    (count,) = report["targets"]["cpu"]["other_shape"].values()
    runs = report["measured_on"]["sqnr"]["samples"]
    assert 0 < count <= runs
    note = (
        f"output 'y' has another shape than the original's in {count} of {runs} runs: the SQNR leaves them out, and a"
        " metric of your own can judge them (data.eval: {metric: 'python:module:function'})"
    )
    assert note in report["targets"]["cpu"]["notes"]
    assert report["compressed"]["other_shape"] == {}
    status, out, err = edgec("run", "out", "--arrays", "data.npz", "--json", "--outputs", "all.npz")
    assert (status, err) == (0, "")
    networks = json.loads(out)["networks"]
    counted = networks["cpu"]["other_shape"]["y"]
    samples = np.load("data.npz")["x"]
    sizes = [
        [len(run[0]) for run in outputs_of(folder / "out" / name, samples)] for name in ("model.onnx", "cpu/model.onnx")
    ]
    assert counted == sum(a != b for a, b in zip(*sizes, strict=True)) > 0
    assert 5 < networks["cpu"]["sqnr_db"] < 60
    saved = np.load("all.npz")
    assert saved["cpu/boxes"].shape == (40, 64, 4)
    assert [len(saved[f"cpu/y/{number}"]) for number in range(40)] == sizes[1]
    _, out, _ = edgec("run", "out", "--arrays", "data.npz")
    line = f"cpu: output 'y' has another shape than model.onnx's on {counted} samples, which its SQNR leaves out"
    assert line in out.splitlines()


def test_a_requirement_is_not_met_by_what_was_left_out(detector: Callable[[str, str, str], Path], edgec: Edgec) -> None:
    folder = detector("NonMaxSuppression", "[fold, quantize]", "cpu")
    recipe = folder / "compress.yaml"
    recipe.write_text(recipe.read_text() + "require: {sqnr_min: 1}\n")
    status, out, _ = edgec(*RUN)
    assert status == 1
    because = "of output 'y' some runs have another shape than the original's, which no SQNR can compare"
    assert f"NOT MET ({because})" in out


def test_a_metric_of_the_users_own_judges_what_is_compiled(
    detector: Callable[[str, str, str], Path], edgec: Edgec
) -> None:
    folder = detector("NonMaxSuppression", "[fold]", "cpu")
    (folder / "judge.py").write_text(
        "def found(samples):\n    return sum(outputs['y'].shape[1] for _, outputs, _ in samples) + 0.0\n"
    )
    evaluated = "eval: {arrays: data.npz, metric: 'python:judge:found'}"
    recipe = folder / "compress.yaml"
    recipe.write_text(recipe.read_text().replace("data: {", f"data: {{{evaluated}, "))
    assert edgec(*RUN)[0] == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["targets"]["cpu"]["metric"] == report["baseline"]["metric"] == 3 * 40


def test_a_metric_of_the_users_own_gets_whole_outputs(detector: Callable[[str, str, str], Path], edgec: Edgec) -> None:
    folder = detector("NonMaxSuppression", "[fold]", "cpu")
    (folder / "judge.py").write_text(
        "def found(samples):\n    return sum(len(outputs['y']) for _, outputs, _ in samples) + 0.0\n"
    )
    evaluated = "data: {eval: {arrays: data.npz, metric: 'python:judge:found'}}"
    (folder / "run.yaml").write_text(f"{evaluated}\npasses: [fold]\n")
    assert edgec(*RUN)[0] == 0
    status, out, err = edgec("run", "out", "-O", "run.yaml", "--json")
    assert (status, err) == (0, "")
    total = sum(len(run[0]) for run in outputs_of(folder / "model.onnx", np.load("data.npz")["x"]))
    assert json.loads(out)["networks"]["cpu"]["metric"] == total


@pytest.mark.parametrize("command", [("inspect", "model.onnx"), ("inspect", "model.onnx", "--json")])
def test_inspect(command: tuple[str, ...], detector: Callable[[str, str, str], Path], edgec: Edgec) -> None:
    detector("NonMaxSuppression", "[fold]", "cpu")
    status, out, err = edgec(*command)
    assert (status, err) == (0, "")
    assert '"n"' in out or "nx3" in out


@pytest.mark.parametrize("kind", TAILS)
def test_edgec_opt(kind: str, detector: Callable[[str, str, str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    from edgec.tools.opt import main

    folder = detector(kind, "[fold]", "cpu")
    assert (
        main(["model.onnx", "-p", "fold,quantize", "--target", "cpu", "--data", "compress.yaml", "-o", "q.onnx"]) == 0
    )
    assert "QuantizeLinear" in capsys.readouterr().out
    assert len(outputs_of(folder / "q.onnx", np.zeros((1, 3, 16, 16), np.float32))) == 1


SEQUENCE = "edgec: model.onnx: output 'y': is a sequence, or an optional without a value; edgec compares tensors only; "


@pytest.mark.parametrize(
    ("body", "fix"),
    [
        ("r = Relu(x) y = SplitToSequence<axis=1>(r)", "end the network before it with --cut r"),
        ("y = SplitToSequence<axis=1>(x)", "take it out of the model's outputs"),
    ],
)
def test_an_output_that_is_no_tensor(
    body: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgec: Edgec
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f'<ir_version: 8, opset_import: ["" : 17]> net (float[1,4] x) => (seq(float[1,1]) y) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    (tmp_path / "compress.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    assert edgec(*RUN) == (3, "", f"{SEQUENCE}{fix}\n")
    if "--cut" in fix:
        assert edgec(*RUN, "--cut", "r")[0] == 0


@pytest.mark.parametrize("step", ["factorize: {params: 0.9}", "compress: {params: 0.9}"])
@pytest.mark.parametrize("kind", ["NonZero", "NonMaxSuppression"])
def test_fewer_weights_where_a_try_changes_how_many_there_are(
    step: str, kind: str, detector: Callable[[str, str, str], Path], edgec: Edgec
) -> None:
    """A try that finds another number of boxes than the original lost that output; it was a fault of edgec's own."""
    folder = detector(kind, f"[fold, {step}]", "cpu")
    status, _, err = edgec(*RUN)
    assert (status, err) == (0, "")
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["compressed"]["params"] < report["baseline"]["params"]
