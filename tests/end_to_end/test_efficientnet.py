"""A second real network: EfficientNet-Lite0 with its ImageNet weights, from PyTorch's export to the Edge TPU's file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from networks import efficientnet_lite0, photos
from PIL import Image

from edgec.backends.coral.backend import CoralBackend
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.files import load

RECIPE = """\
data:
  preprocess: {size: [224, 224], color: rgb, scale: 1/128, mean: 127/128}
  calibration: {images: calibration}
  eval: {images: held-out, metric: sqnr}
passes: [fold, normalize, quantize]
targets: [coral-dev-board]
require: {sqnr_min: 8}
"""


@pytest.mark.slow
def test_photographs_to_the_edge_tpu(
    tmp_path: Path, edgec: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    efficientnet_lite0.export(tmp_path / "efficientnet.onnx", batch_norm=True)
    for folder, crops in (("calibration", photos.calibration_crops(16)), ("held-out", photos.held_out_crops(8))):
        (tmp_path / folder).mkdir()
        for number, crop in enumerate(crops):
            Image.fromarray(crop).save(tmp_path / folder / f"{number:03}.png")
    (tmp_path / "compress.yaml").write_text(RECIPE)
    status, out, err = edgec("efficientnet.onnx", "-O", "compress.yaml", "-o", "out", "-q", "--no-timing", "--json")
    assert status == 0, err
    report = json.loads(out)
    folded = report["passes"][0]
    assert (report["baseline"]["nodes"], report["compressed"]["nodes"]) == (148, 95)
    assert (report["baseline"]["macs"], report["baseline"]["macs_unknown"]) == (385_187_552, 0)
    assert folded["missed"] == []
    assert folded["sqnr_db"] > 90

    check = json.loads((tmp_path / "out" / "coral-dev-board" / "check.json").read_text())
    assert set(check["operators"]) == {"PAD", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "RESHAPE"}
    assert check["edge_tpu"]["on_cpu"] == []
    (port,) = check["inputs"]
    assert (port["scale"], port["zero_point"]) == (1.0, 127 - 128)  # the bytes are the pixels

    # On photographs that were not calibrated with, the file gives what the QDQ model gives: the goal is 35 dB.
    graph = load(tmp_path / "out" / "model.onnx")
    target = report["targets"]["coral-dev-board"]
    assert target["sqnr_db_to_graph"] is None or target["sqnr_db_to_graph"] >= 35
    run = CoralBackend().runner(graph, tmp_path / "out" / "coral-dev-board")
    pixels = [crop.transpose(2, 0, 1)[None].astype(np.float32) for crop in photos.held_out_crops(8)]
    floats = np.concatenate([Session(graph).run({"image": x})["scores"] for x in pixels])
    found = np.concatenate([run({"image": x - 127})["scores"] for x in pixels])
    assert sqnr_db({"": floats}, {"": found}) > 8
    assert np.mean(floats.argmax(1) == found.argmax(1)) >= 0.5
