"""edgec inspect --sensitivity: the layers of a network in 8 bits, as a table, as JSON, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from refusals import Edgec

INSPECT = ("inspect", "model.onnx", "--sensitivity", "-O", "compress.yaml")


def test_a_table_and_a_plot(job: Path, edgec: Edgec) -> None:
    status, out, err = edgec(*INSPECT, "--plot", "layers.svg")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "model.onnx in 8 bits on CPU (onnxruntime): what the rounding of each layer costs"
    assert [line.split()[0] for line in lines[4:7]] == ["encoder", "middle", "sigmoid"]
    assert lines[-1].startswith("1 operators stay float: decoder: CPU (onnxruntime) has no 8-bit kernel for ConvTransp")
    drawn = (job / "layers.svg").read_text()
    assert drawn.startswith("<?xml")
    edgec(*INSPECT, "--plot", "layers.png")
    assert (job / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_json(job: Path, edgec: Edgec) -> None:
    status, out, _ = edgec(*INSPECT, "--target", "coral-dev-board", "--json")
    assert status == 0
    found = json.loads(out)
    assert found["target"] == "coral-dev-board"
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1, abs=1e-4)
    assert all(layer["alone_db"] > 20 for layer in found["layers"])
    assert found["float"] == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("inspect", "model.onnx", "--sensitivity"),
         "inspect: --sensitivity wants calibration data; name a recipe that has some with -O"),
        (("inspect", "model.onnx", "--plot", "a.svg"),
         "inspect: argument --plot: goes with --sensitivity only; 'edgec inspect --help' explains"),
        ((*INSPECT, "--groups"),
         "inspect: argument --groups: not allowed with argument --sensitivity; 'edgec inspect --help' explains"),
        ((*INSPECT, "--plot", "a.gif"),
         "inspect: argument --plot: 'a.gif' is none of .svg, .png, .pdf; 'edgec inspect --help' explains"),
        ((*INSPECT, "--target", "jetson-nano"),
         "target 'jetson-nano': Jetson Nano has no 8-bit arithmetic; name another one with --target"),
    ],
)  # fmt: skip
def test_mistakes(job: Path, edgec: Edgec, arguments: tuple[str, ...], line: str) -> None:
    assert edgec(*arguments) == (2, "", f"edgec: {line}\n")


def test_a_recipe_without_data(job: Path, edgec: Edgec) -> None:
    (job / "compress.yaml").write_text("passes: [fold]\n")
    status, _, err = edgec(*INSPECT)
    what = "compress.yaml: has no data.calibration, on which layers are measured; add data.calibration"
    assert (status, err) == (2, f"edgec: {what}\n")
