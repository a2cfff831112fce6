"""What a report says is what holds of samples that nothing was fitted to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from refusals import Edgec

from edgec.ir.estimates import Means
from edgec.ir.execution import Session
from edgec.ir.files import load
from edgec.ir.signal import sqnr_scores

BODY = """<ir_version: 8, opset_import: ["" : 17]>
net (float[1,3,32,32] x) => (float[1,10] y)
{
    c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w1)
    r = Relu (c)
    d = Conv <pads = [1,1,1,1], strides = [2,2]> (r, w2)
    s = Relu (d)
    p = GlobalAveragePool (s)
    f = Flatten (p)
    y = Gemm (f, w3)
}"""


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    model = parser.parse_model(BODY)
    for name, shape in (("w1", (32, 3, 3, 3)), ("w2", (32, 32, 3, 3)), ("w3", (32, 10))):
        values = random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compiled(edgec: Edgec, recipe: str, *, status: int = 0, **arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    for name, values in arrays.items():
        np.savez(f"{name}.npz", **values)
    Path("compress.yaml").write_text(recipe)
    got, out, err = edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "--no-timing", "--json", "-q")
    assert got == status, err
    return json.loads(out)


def truth(emitted: str, count: int = 48) -> Means:
    """SQNR on samples of which no run has heard."""
    original, other = Session(load(Path("model.onnx"))), Session(load(Path(emitted)), optimize=True)
    feeds = [{"x": one[None]} for one in pictures(count, seed=99)]
    return sqnr_scores([original.run(one) for one in feeds], [other.run(one) for one in feeds])


QUANTIZED = "data: {calibration: {arrays: seen.npz}}\npasses: [fold, quantize]\ntargets: [cpu-avx2]\n"


@pytest.mark.parametrize("count", [12, 32])
def test_sqnr_is_that_of_samples_set_aside(folder: Path, edgec: Edgec, count: int) -> None:
    report = compiled(edgec, QUANTIZED, seen={"x": pictures(count, 1)})
    assert report["measured_on"]["sqnr"] == {"samples": count // 4, "source": "calibration", "unseen": True}
    target = report["targets"]["cpu-avx2"]
    # Three or eight samples may be harder than others are, or by chance a little easier; fitted ones flatter by 10 dB.
    assert -6 < target["sqnr_db"] - truth("out/cpu-avx2/model.onnx").value() < 2.5
    few = [
        note for note in report["notes"] if note.startswith(f"passes were fitted to {count - count // 4} calibration")
    ]
    assert len(few) == 1
    assert report["passes"][0]["sqnr_db"] is None and target["passes"][0]["sqnr_db"] is not None


def test_what_weights_were_fitted_to_proves_nothing(folder: Path, edgec: Edgec) -> None:
    """One image: an SQNR on it flatters, so there is none, and no requirement is met by it."""
    report = compiled(edgec, QUANTIZED + "require: {sqnr_min: 5}\n", status=1, seen={"x": pictures(1, 1)})
    assert report["measured_on"]["sqnr"] == {"samples": 1, "source": "fitted", "unseen": False}
    target = report["targets"]["cpu-avx2"]
    assert target["sqnr_db"] is None and isinstance(target["sqnr_db_fitted"], float)
    assert report["require"]["sqnr_min"] == {
        "asked": 5.0, "got": None, "met": False, "because": "no samples were left that nothing was fitted to",
    }  # fmt: skip
    assert any(note.startswith("there were too few samples to set some aside") for note in report["notes"])
    page = Path("out/report.html").read_text()
    assert "SQNR on fitted samples" in page and "there were too few samples to set some aside" in page


def test_samples_of_eval_are_taken_where_they_are_new(folder: Path, edgec: Edgec) -> None:
    recipe = QUANTIZED.replace("}}\n", "}, eval: {arrays: eval.npz, metric: sqnr}}\n", 1)
    report = compiled(edgec, recipe, seen={"x": pictures(40, 1)}, eval={"x": pictures(20, 2)})
    assert report["measured_on"]["sqnr"] == {"samples": 20, "source": "eval", "unseen": True}
    assert report["notes"] == []
    low, high = report["targets"]["cpu-avx2"]["sqnr_interval"]
    assert low < truth("out/cpu-avx2/model.onnx").value() < high
    same = compiled(edgec, recipe, seen={"x": pictures(40, 1)}, eval={"x": pictures(40, 1)})
    assert same["measured_on"]["sqnr"] == {"samples": 10, "source": "calibration", "unseen": True}
    assert same["notes"][0].startswith("passes were fitted to 30 calibration samples")
    assert same["notes"][1] == (
        "30 of the 40 samples of data.eval are training or calibration samples too: its sqnr says less than it seems;"
        " judge by samples that nothing is fitted to"
    )


def test_pruning_and_training_see_none_of_what_is_reported_on(folder: Path, edgec: Edgec) -> None:
    """All samples in one set for all uses: what is said of the network holds of others."""
    recipe = (
        "data: {calibration: {arrays: seen.npz}, train: {arrays: seen.npz}}\n"
        "passes: [fold, {prune: {params: 0.6}}, {finetune: {epochs: 3, teacher: original}}]\ntargets: [cpu]\n"
    )
    report = compiled(edgec, recipe, seen={"x": pictures(64, 1)})
    said, true = report["quality"]["sqnr_db"], truth("out/model.onnx").value()
    assert said <= true + 1.5
    assert report["measured_on"]["sqnr"]["samples"] == 16


def test_what_a_pass_chose_by_is_not_reported_on(folder: Path, edgec: Edgec) -> None:
    labels = np.arange(60) % 10
    recipe = (
        "data:\n  calibration: {arrays: seen.npz}\n  train: {arrays: train.npz}\n"
        "  eval: {arrays: eval.npz, metric: top1}\n"
        "passes: [fold, {finetune: {epochs: 1, monitor: MONITOR, teacher: original}}]\ntargets: [cpu]\n"
    )
    arrays = {
        "seen": {"x": pictures(40, 1)}, "train": {"x": pictures(40, 3)},
        "eval": {"x": pictures(60, 2), "labels": labels},
    }  # fmt: skip
    by_metric = compiled(edgec, recipe.replace("MONITOR", "metric"), **arrays)
    assert by_metric["measured_on"]["metric"]["samples"] == 30
    assert by_metric["measured_on"]["sqnr"]["samples"] == 30
    chose = "a pass chose by data.eval's top1 on every other sample; what is reported was measured on the rest"
    assert chose in by_metric["notes"]
    by_loss = compiled(edgec, recipe.replace("MONITOR", "loss"), **arrays)
    assert by_loss["measured_on"]["metric"]["samples"] == 60 and chose not in by_loss["notes"]


def test_confidence_in_a_recipe(folder: Path, edgec: Edgec) -> None:
    recipe = QUANTIZED.replace("}}\n", "}, eval: {arrays: eval.npz, metric: sqnr}}\n", 1)
    arrays = {"seen": {"x": pictures(40, 1)}, "eval": {"x": pictures(30, 2)}}
    level = compiled(edgec, recipe, **arrays)["targets"]["cpu-avx2"]["sqnr_db"]
    asked = f"require: {{sqnr_min: {level - 0.05:.2f}}}\n"
    assert compiled(edgec, recipe + asked, **arrays)["require"]["sqnr_min"]["met"]
    unsure = compiled(edgec, recipe + asked.replace("}", ", confidence: 0.95}"), status=1, **arrays)["require"][
        "sqnr_min"
    ]
    assert not unsure["met"] and unsure["confidence"] == 0.95 and unsure["bound"] < unsure["asked"]
    Path("compress.yaml").write_text(recipe + asked.replace("}", ", confidence: 95}"))
    status, _, err = edgec("model.onnx", "-O", "compress.yaml")
    assert status == 2
    assert err == (
        "edgec: compress.yaml: line 4: require.confidence: must be between 0.5 and 0.9999, not 95; write a probability"
        " such as 0.95\n"
    )
