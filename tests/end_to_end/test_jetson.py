"""A recipe compiled for TensorRT targets, and engines built where there is (a stand-in for) TensorRT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import ORIN, Bench, bench, write_bundle
from refusals import Edgec

RECIPE = """\
data:
  preprocess: {size: [16, 16], color: gray, scale: 1/255}
  calibration: {images: good}
  eval: {ok: good, ng: [bad], metric: auroc}
passes: [fold, normalize, quantize]
targets: [jetson-nano, jetson-orin-nano, trt-host]
"""
ARGUMENTS = ("model.onnx", "-O", "compress.yaml", "-q", "--json")
UNBUILT = "No engine was built here: run.sh builds, checks and times it on the board."


@pytest.fixture
def jetson_job(job: Path) -> Path:
    (job / "compress.yaml").write_text(RECIPE, encoding="utf-8")
    return job


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A made-up Jetson Orin Nano with TensorRT 10.3."""
    made = bench(write_bundle(tmp_path / "made-up", ORIN), tmp_path / "machine", "10.3.0")
    for name in ("EDGEC_BOARD_ROOT", "FAKE_TRTEXEC"):
        monkeypatch.setenv(name, made.environment()[name])
    return made


def test_bundles_beside_each_other(jetson_job: Path, edgec: Edgec) -> None:
    status, out, err = edgec(*ARGUMENTS)
    assert (status, err) == (0, "")
    report = json.loads(out)
    manifest = json.loads((jetson_job / "build/model/manifest.json").read_text())
    for name, entry in report["targets"].items():
        assert set(entry["files"]) <= set(manifest["files"])
        assert (entry["latency_ms"], entry["memory_bytes"]) == (None, None)
        assert entry["notes"][-1] == UNBUILT or "RTX" in entry["notes"][-1]
        assert entry["metric"] == pytest.approx(report["baseline"]["metric"], abs=0.05)
        assert entry["sqnr_db"] > 35, name
    nano = report["targets"]["jetson-nano"]
    assert nano["notes"][0] == "Jetson Nano has no 8-bit arithmetic: the bundle is FP16."
    missed = [remark["what"] for one in nano["passes"] for remark in one["missed"]]
    assert missed == ["Jetson Nano has no 8-bit arithmetic: it stays in float"]
    # All of its layers have fewer than 16 channels.
    assert report["targets"]["jetson-orin-nano"]["files"][0] == "jetson-orin-nano/model_fp16_typed.onnx"
    check = json.loads((jetson_job / "build/model/jetson-nano/check.json").read_text())
    np.testing.assert_allclose(check["inputs"][0]["folded"]["scale"], 1 / 255, rtol=1e-6)
    status, out, _ = edgec("run", "build/model", "-O", "compress.yaml", "--json")
    assert status == 0
    networks = json.loads(out)["networks"]
    assert {"model.onnx", "jetson-nano/fp16", "jetson-nano/fp32", "trt-host/fp16_typed"} <= set(networks)
    assert networks["jetson-nano/fp32"]["sqnr_db"] is None or networks["jetson-nano/fp32"]["sqnr_db"] > 100
    assert 35 < networks["jetson-nano/fp16"]["sqnr_db"] < 80


def test_engines_are_built_here(jetson_job: Path, edgec: Edgec, machine: Bench) -> None:
    status, out, err = edgec(*ARGUMENTS, "--build")
    assert (status, err) == (0, "")
    targets = json.loads(out)["targets"]
    orin, nano = targets["jetson-orin-nano"], targets["jetson-nano"]
    assert orin["latency_ms"] == 1.5
    assert orin["notes"][-1] == (
        "Built here on NVIDIA Jetson Orin Nano Developer Kit, compute capability 8.7, TensorRT 10.3.0: "
        "model_fp16_typed.onnx is the fastest that passed, 1.500 ms."
    )
    assert UNBUILT not in orin["notes"]
    folder = jetson_job / "build/model/jetson-orin-nano"
    assert (folder / "best.engine").stat().st_size > 0
    assert json.loads((folder / "built.json").read_text())["status"] == 0
    assert {"jetson-orin-nano/best.engine", "jetson-orin-nano/built.json"} <= set(orin["files"])
    assert not (folder / "engines").exists()
    assert nano["latency_ms"] is None
    assert nano["notes"][-1] == (
        "No engine was built here: NVIDIA Jetson Orin Nano Developer Kit has compute capability 8.7, and the bundle "
        "is for Jetson Nano (5.3); emit a bundle for this board."
    )


PROFILE = "{profiles: {image: {min: [1, 1, 16, 16], opt: [2, 1, 16, 16], max: [5, 1, 16, 16]}}}"


def test_engines_for_batches(jetson_job: Path, edgec: Edgec, machine: Bench) -> None:
    """The model leaves the batch open, and the recipe says how large one may be."""
    model = onnx.load("model.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, "model.onnx")
    text = RECIPE.replace("jetson-nano, jetson-orin-nano, trt-host", f"cpu, jetson-orin-nano: {PROFILE}")
    (jetson_job / "compress.yaml").write_text(text, encoding="utf-8")
    status, out, err = edgec(*ARGUMENTS, "--build")
    assert (status, err) == (0, "")
    targets = json.loads(out)["targets"]
    orin = targets["jetson-orin-nano"]
    assert orin["notes"][-1].endswith(
        "model_fp16_typed.onnx is the fastest that passed, 1.500 ms for 2 samples at once."
    )
    assert orin["sqnr_db"] > 35
    cpu = onnx.load(jetson_job / "build/model/cpu/model.onnx").graph.input[0]
    assert [dim.dim_value for dim in cpu.type.tensor_type.shape.dim] == [1, 1, 16, 16]
    status, out, _ = edgec("run", "build/model", "-O", "compress.yaml", "--json")
    assert status == 0
    assert {"cpu", "jetson-orin-nano/fp16_typed", "jetson-orin-nano/fp32"} <= set(json.loads(out)["networks"])


@pytest.mark.parametrize(
    ("targets", "line"),
    [
        (
            "[cpu: {profiles: {}}]",
            "compress.yaml: line 6: targets[0]: has options, and cpu takes none; write - cpu",
        ),
        (
            f"[jetson-nano: {PROFILE.replace('16]', '8]')}]",
            "compress.yaml: line 6: targets[0].jetson-nano.profiles.image: dimension 3 is 8, and input 'image' has 16 "
            "there; its shape is 1x1x16x16",
        ),
        (
            "[jetson-nano: {batch: 8}]",
            "compress.yaml: line 6: targets[0].jetson-nano.batch: unknown option; the only option here is profiles",
        ),
    ],
)
def test_options_of_targets_that_are_wrong(jetson_job: Path, edgec: Edgec, targets: str, line: str) -> None:
    text = RECIPE.replace("[jetson-nano, jetson-orin-nano, trt-host]", targets)
    (jetson_job / "compress.yaml").write_text(text, encoding="utf-8")
    status, _, err = edgec(*ARGUMENTS)
    assert (status, err) == (2, f"edgec: {line}\n")
    assert not (jetson_job / "build").exists()


def test_an_engine_that_cannot_be_built(jetson_job: Path, edgec: Edgec, machine: Bench) -> None:
    machine.settings["fail"] = {"*": "wrong"}
    machine.environment()
    status, _, err = edgec(*ARGUMENTS, "--build")
    assert status == 4
    assert err.startswith("edgec: jetson-orin-nano: --build: model_fp32.onnx: is too far from the golden outputs")
    assert err.endswith("; leave out --build to emit the bundle alone\n")
    left = {path.name for path in (jetson_job / "build" / "model").iterdir() if path.is_dir()}
    assert left == {"jetson-nano"}  # the other target, which this machine builds no engine for
