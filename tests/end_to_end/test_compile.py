"""`edgec MODEL -O RECIPE`: the contract that deployment scripts rely on."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edgec.tools.report import TIMINGS

Edgec = Callable[..., tuple[int, str, str]]
ARGUMENTS = ("model.onnx", "-O", "compress.yaml", "-q", "--no-timing")


def without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_timings(item) for key, item in value.items() if key not in TIMINGS}
    return [without_timings(item) for item in value] if isinstance(value, list) else value


def test_the_output_folder(job: Path, edgec: Edgec) -> None:
    status, _, _ = edgec(*ARGUMENTS, "-o", "out")
    assert status == 0
    files = sorted(p.relative_to(job / "out").as_posix() for p in (job / "out").rglob("*") if p.is_file())
    assert {
        "model.onnx", "report.json", "report.html", "manifest.json",
        "cpu/model.onnx", "coral-dev-board/model.tflite", "coral-dev-board/check.json",
    } <= set(files)  # fmt: skip
    manifest = json.loads((job / "out" / "manifest.json").read_text())
    assert sorted(manifest["files"]) == [name for name in files if name != "manifest.json"]
    for name, entry in manifest["files"].items():
        data = (job / "out" / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert manifest["model"]["sha256"] == hashlib.sha256((job / "model.onnx").read_bytes()).hexdigest()


def test_the_report(job: Path, edgec: Edgec) -> None:
    status, out, _ = edgec(*ARGUMENTS, "--json")
    assert status == 0
    report = json.loads(out)
    assert report == json.loads((job / "build" / "model" / "report.json").read_text())
    for side in ("baseline", "compressed"):
        assert {"params", "macs", "weight_bytes", "peak_activation_bytes", "nodes"} <= set(report[side])
    assert [entry["name"] for entry in report["passes"]] == ["fold", "normalize", "factorize"]
    for entry in report["passes"]:
        assert {
            "name", "seconds", "params_before", "params_after", "macs_before", "macs_after", "sqnr_db", "did", "missed",
        } <= set(entry)  # fmt: skip
    assert (report["model"], report["recipe"], report["name"]) == ("model.onnx", "compress.yaml", "model")
    assert report["quality"]["metric"]["name"] == "auroc"
    assert set(report["targets"]) == {"cpu", "coral-dev-board"}
    for entry in report["targets"].values():
        assert {"files", "sqnr_db", "metric", "fits", "notes"} <= set(entry)
        assert [step["name"] for step in entry["passes"]] == ["quantize"]
        assert entry["sqnr_db"] > 20


def test_the_same_inputs_give_the_same_bytes_on_any_number_of_threads(job: Path, edgec: Edgec) -> None:
    for place, threads in (("one", "1"), ("two", "2"), ("again", "2")):
        assert edgec(*ARGUMENTS, "-o", place, "--threads", threads)[0] == 0
    first = json.loads((job / "one" / "manifest.json").read_text())
    for place in ("two", "again"):
        other = json.loads((job / place / "manifest.json").read_text())
        for name, entry in first["files"].items():
            if not name.startswith("report."):
                assert other["files"][name] == entry, name
        reports = [json.loads((job / p / "report.json").read_text()) for p in ("one", place)]
        assert without_timings(reports[0]) == without_timings(reports[1])


def test_the_network_takes_raw_pixels_and_runs_in_onnxruntime(job: Path, edgec: Edgec) -> None:
    assert edgec(*ARGUMENTS, "-o", "out")[0] == 0
    pixels = np.random.default_rng(2).integers(0, 256, (1, 1, 16, 16)).astype(np.float32)
    run = {
        path: ort.InferenceSession(str(job / path)).run(None, {"image": x})[0]
        for path, x in (("model.onnx", pixels / 255), ("out/model.onnx", pixels), ("out/cpu/model.onnx", pixels))
    }
    np.testing.assert_allclose(run["out/model.onnx"], run["model.onnx"], atol=0.05)
    np.testing.assert_allclose(run["out/cpu/model.onnx"], run["model.onnx"], atol=0.1)


def test_every_key_of_the_report_is_documented(job: Path, edgec: Edgec) -> None:
    text = (Path(__file__).parents[2] / "docs" / "output.md").read_text(encoding="utf-8")
    documented = {name for line in text.splitlines() if line.startswith("| `") for name in line.split("`")[1::2]}
    report = json.loads(edgec(*ARGUMENTS, "--json")[1])
    parts = [report, report["baseline"], report["compressed"], *report["passes"], *report["targets"].values()]
    parts += [target["cost"] for target in report["targets"].values()]
    assert {key for part in parts for key in part} <= documented
    manifest = json.loads((job / "build" / "model" / "manifest.json").read_text())
    assert set(manifest) <= documented


def test_a_requirement_that_is_not_met(job: Path, edgec: Edgec) -> None:
    recipe = job / "compress.yaml"
    recipe.write_text(recipe.read_text() + "require: {params_removed: 0.99, metric_drop: 1}\n")
    status, out, _ = edgec(*ARGUMENTS, "--json")
    assert status == 1
    require = json.loads(out)["require"]
    assert not require["params_removed"]["met"]
    assert require["metric_drop"]["met"]


def test_the_summary_names_every_target(job: Path, edgec: Edgec) -> None:
    status, out, _ = edgec(*ARGUMENTS)
    assert status == 0
    for text in ("before and after", "weights", "MACs", "auroc", "cpu", "coral-dev-board", "build/model"):
        assert text in out


def test_latency_and_memory_are_measured(job: Path, edgec: Edgec) -> None:
    status, out, _ = edgec("model.onnx", "-O", "compress.yaml", "-q", "--json")
    assert status == 0
    report = json.loads(out)
    for entry in (report["baseline"], report["compressed"], *report["targets"].values()):
        assert entry["latency_ms"] > 0
        assert entry["memory_bytes"] > 0


def test_a_recipe_without_data_or_passes(job: Path, edgec: Edgec) -> None:
    (job / "plain.yaml").write_text("passes: [fold]\ntargets: [cpu, coral-dev-board]\n")
    status, out, _ = edgec("model.onnx", "-O", "plain.yaml", "-q", "--no-timing", "--json")
    assert status == 0
    report = json.loads(out)
    assert report["quality"]["metric"] is None
    assert report["targets"]["coral-dev-board"]["sqnr_db"] > 80


def test_a_dynamic_batch_is_1_or_pinned(job: Path, edgec: Edgec) -> None:
    import onnx

    model = onnx.load(job / "model.onnx")
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, job / "model.onnx")
    note = "the batch of input 'image' is open and taken as 1 (--input image:4x1x16x16 would make it 4)"
    status, out, _ = edgec(*ARGUMENTS)
    assert status == 0
    assert f"model.onnx: {note}\n" in out
    assert json.loads((job / "build" / "model" / "report.json").read_text())["notes"][0] == note
    assert note.replace("'", "&#39;") in (job / "build" / "model" / "report.html").read_text()
    status, out, _ = edgec(*ARGUMENTS, "--input", "image:1x1x16x16")
    assert status == 0
    assert "taken as 1" not in out


def test_nothing_of_a_model_stays_in_memory(job: Path) -> None:
    import edgec
    from edgec.ir.graph import Graph

    def graphs() -> int:
        return sum(isinstance(thing, Graph) for thing in gc.get_objects())

    edgec.compile("model.onnx", "compress.yaml", "out", timing=False)
    after_one = graphs()
    edgec.compile("model.onnx", "compress.yaml", "out", timing=False)
    assert graphs() == after_one


def test_python_face(job: Path) -> None:
    import edgec

    report = edgec.compile("model.onnx", "compress.yaml", "out", timing=False)
    assert report["compressed"]["params"] < report["baseline"]["params"]
    assert edgec.load("out/model.onnx").metadata["edgec.input.image"]


@pytest.mark.parametrize("options", [("--dump-ir", "ir"), ("--print-after", "fold"), ("--print-changed",), ("--time",)])
def test_watching(job: Path, edgec: Edgec, options: tuple[str, ...]) -> None:
    status, out, err = edgec(*ARGUMENTS, *options)
    assert status == 0
    if options[0] == "--dump-ir":
        names = sorted(p.name for p in (job / "ir").glob("*.txt"))
        assert names == [
            "00-input.txt", "01-fold.txt", "02-normalize.txt", "03-factorize.txt",
            "04-cpu-quantize.txt", "05-coral-dev-board-quantize.txt",
        ]  # fmt: skip
    elif options[0] == "--time":
        assert "all passes" in err
    else:
        assert "passes[0] 'fold'" in out
