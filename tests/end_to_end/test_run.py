"""`edgec run`: what was emitted, on data, gives what the compilation measured of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bundles import ORIN, SHAPE, write_bundle
from refusals import Edgec

from edgec.ir.files import save
from edgec.testing import model

ALL = ["model.onnx", "coral-dev-board", "cpu"]


def test_it_measures_what_the_compilation_measured(earlier: Path, edgec: Edgec) -> None:
    status, out, err = edgec("run", "out", "-O", "compress.yaml", "--json")
    assert (status, err) == (0, "")
    got, report = json.loads(out), json.loads((earlier / "out/report.json").read_text())
    assert (got["samples"], got["metric"], list(got["networks"])) == (12, "auroc", ALL)
    found = {name: entry["metric"] for name, entry in got["networks"].items()}
    expected = {name: entry["metric"] for name, entry in report["targets"].items()}
    assert found == {**expected, "model.onnx": report["quality"]["metric"]["compressed"]}
    assert [entry["runtime"] for entry in got["networks"].values()] == ["onnxruntime", "LiteRT", "onnxruntime"]
    assert got["networks"]["model.onnx"]["sqnr_db"] is None
    assert all(got["networks"][name]["sqnr_db"] > 20 for name in report["targets"])


def test_one_target_on_other_images(earlier: Path, edgec: Edgec) -> None:
    """Without the two classes there is no AUROC, and in a target's folder nothing to compare with."""
    status, out, err = edgec("run", "out/cpu", "-O", "compress.yaml", "--images", "bad", "--outputs", "outputs.npz")
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines() if line.startswith(("out", "cpu"))] == [
        ["out/cpu:", "6", "samples"],
        ["cpu", "onnxruntime"],
    ]
    assert list(np.load("outputs.npz")) == ["cpu/reconstruction"]
    assert np.load("outputs.npz")["cpu/reconstruction"].shape == (6, 1, 16, 16)


def test_the_table(earlier: Path, edgec: Edgec) -> None:
    status, out, _ = edgec("run", "out", "-O", "compress.yaml", "--images", "good", "--images", "bad")
    lines = out.splitlines()
    assert (status, lines[0], lines[2].split()) == (0, "out: 12 samples", ["runs", "in", "SQNR", "to", "model.onnx"])
    assert [line.split()[0] for line in lines[4:7]] == ALL
    assert lines[5].endswith(" dB")


def test_a_bundle(tmp_path: Path, edgec: Edgec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its models runs, on arrays and without a recipe."""
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "jetson-orin-nano", ORIN)
    x = np.random.default_rng(2).uniform(-1, 1, (3, *SHAPE[1:])).astype(np.float32)
    np.savez(tmp_path / "x.npz", **{"x:0": x})
    status, out, err = edgec("run", "jetson-orin-nano", "--arrays", "x.npz", "--outputs", "y.npz", "--json")
    assert (status, err) == (0, "")
    names = [f"jetson-orin-nano/{kind}" for kind in ("fp16", "int8", "fp32")]
    assert list(json.loads(out)["networks"]) == names
    outputs = np.load("y.npz")
    for name, apart in ((names[1], 5e-3), (names[2], 1e-6)):
        session = ort.InferenceSession(f"jetson-orin-nano/model_{name[17:]}.onnx", providers=["CPUExecutionProvider"])
        expected = np.concatenate([session.run(None, {"x:0": row[np.newaxis]})[0] for row in x])
        np.testing.assert_allclose(outputs[f"{name}/y"], expected, atol=apart)
    # What is FP16 on the board is rounded to FP16 here.
    assert (outputs[f"{names[0]}/y"].astype(np.float16) == outputs[f"{names[0]}/y"]).all()
    assert np.abs(outputs[f"{names[0]}/y"] - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["out"], 2, "run: there are no samples; add --images, --arrays, or -O with a recipe that has data.eval"),
        (
            ["model.onnx", "--images", "good"],
            2,
            "run: images need a recipe with data.preprocess, which says how they become inputs; name one with -O",
        ),
        (
            ["out", "-O", "compress.yaml", "--labels", "folders"],
            2,
            "run: --labels goes with --images; put an array named 'labels' into the .npz",
        ),
        (
            ["out", "--arrays", "model.onnx"],
            2,
            "run: --arrays: 'model.onnx' is neither .npz nor .npy; save it with numpy.savez",
        ),
        (
            ["out", "-O", "compress.yaml", "--images", "nowhere"],
            3,
            "nowhere: there is no such folder of images; correct the path",
        ),
        (
            ["nowhere", "-O", "compress.yaml"],
            3,
            "nowhere: there is no such folder; give an output folder, or a target's folder in it",
        ),
        (
            ["good", "-O", "compress.yaml"],
            3,
            "good: holds no network that edgec emitted; give an output folder, or a target's folder in it",
        ),
        (
            ["out", "-O", "compress.yaml", "--outputs", "nowhere/y.npz"],
            2,
            "nowhere/y.npz: cannot be written (no such file or directory); give another file with --outputs",
        ),
    ],
)
def test_mistakes(earlier: Path, edgec: Edgec, arguments: list[str], status: int, line: str) -> None:
    assert edgec("run", *arguments) == (status, "", f"edgec: {line}\n")


def test_a_check_that_says_too_little(earlier: Path, edgec: Edgec) -> None:
    shutil.copytree(earlier / "out" / "coral-dev-board", earlier / "alone")
    (earlier / "alone/check.json").write_text("{}")
    line = "alone/check.json: does not say what model.tflite takes; copy the folder again, or compile again"
    assert edgec("run", "alone", "-O", "compress.yaml") == (3, "", f"edgec: {line}\n")


def test_a_bundle_of_a_network_that_takes_bytes(tmp_path: Path, edgec: Edgec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle takes them as float32, and data of bytes are cast as they are for the other targets."""
    monkeypatch.chdir(tmp_path)
    text = """<ir_version: 8, opset_import: ["" : 17]>
        net (uint8[1,4,4,3] x) => (float[1,2,4,4] y) <float[2,3,1,1] w = {1, 2, 3, 4, 5, 6}>
        { f = Cast<to=1>(x) t = Transpose<perm=[0,3,1,2]>(f) y = Conv(t, w) }"""
    onnx.save(onnx.parser.parse_model(text), "model.onnx")
    pictures = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)
    np.savez("data.npz", x=pictures)
    Path("compress.yaml").write_text("passes: [fold]\ntargets: [jetson-nano, cpu]\n")
    assert edgec("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")[0] == 0
    status, out, err = edgec("run", "out", "--arrays", "data.npz", "--json", "--outputs", "all.npz")
    assert (status, err) == (0, "")
    assert "jetson-nano/fp16" in json.loads(out)["networks"]
    kernel = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    wanted = np.einsum("oc,nhwc->nohw", kernel, pictures.astype(np.float32))
    np.testing.assert_allclose(np.load("all.npz")["jetson-nano/fp16/y"], wanted, rtol=2e-3)


def test_a_model_is_run_as_the_compiler_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgec: Edgec) -> None:
    """Pinned and cut: any ONNX file, not only what edgec emitted."""
    monkeypatch.chdir(tmp_path)
    body = "c = Conv <pads = [1,1,1,1]> (x, w)\ny = Relu (c)"
    graph = model(body, "(float[1,3,8,8] x) => (float[1,4,8,8] y)", "float[4,3,3,3] w")
    graph.inputs[0].shape = ["N", 3, "H", "W"]
    save(graph, tmp_path / "network.onnx")
    images = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    np.savez(tmp_path / "data.npz", x=images)
    arguments = ["run", "network.onnx", "--arrays", "data.npz", "--outputs", "out.npz", "--json"]
    status, out, err = edgec(*arguments, "--input", "x:1x3x8x8", "--cut", "c")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["samples"] == 3
    assert report["networks"]["network.onnx"]["runtime"] == "onnxruntime"
    with np.load(tmp_path / "out.npz") as written:
        [(name, values)] = written.items()
    assert name.endswith("/c")
    assert values.min() < 0, "it ends in front of the Relu"
    (tmp_path / "folder").mkdir()
    assert edgec("run", "folder", "--arrays", "data.npz", "--cut", "c") == (
        2,
        "",
        "edgec: run: --input and --cut go with a model, not with a folder; leave them out\n",
    )
