"""overlay in recipes: a converted network compiled for every target, and a stage in front of a network of channels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from refusals import Edgec

from edgec.frontends.overlay import Overlay, overlay_channels
from edgec.ir.execution import Session
from edgec.ir.files import load

CONVERT = """\
data:
  preprocess: {size: [16, 16], color: gray, scale: 1/255}
  calibration: {images: good}
  train: {images: good}
  eval: {ok: good, ng: [bad], metric: auroc}
passes:
  - fold
  - overlay: {block: 2}
  - distill: {epochs: 2, batch: 4, monitor: loss}
  - normalize
  - quantize: {effort: fast}
targets: [cpu, coral-dev-board, jetson-nano, jetson-orin-nano]
"""
ABSORB = CONVERT.replace("{block: 2}", "{block: 2, magnitude: none, strides: absorb}")
PREPEND = """\
data:
  preprocess: {size: [16, 16], color: gray, scale: 1/255}
  calibration: {images: good}
passes:
  - overlay: {mode: prepend, block: 4, color: gray, log: true}
  - fold
  - quantize: {effort: fast}
targets: [cpu, coral-dev-board]
"""


def test_convert_distill_and_quantize_for_every_target(job: Path, edgec: Edgec) -> None:
    (job / "compress.yaml").write_text(CONVERT, encoding="utf-8")
    status, out, err = edgec("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["compressed"]["macs"] < 0.6 * report["baseline"]["macs"]
    words = [remark["what"] for remark in report["passes"][1]["did"]]
    assert words[0].startswith(
        "the luminance of each block, and dct bands h1, v1, d1 (absolute); the first convolution"
    )
    assert words[1] == "'decoder' gives 2x2 pixels for each of its cells"
    assert set(report["targets"]) == {"cpu", "coral-dev-board", "jetson-nano", "jetson-orin-nano"}
    for name, entry in report["targets"].items():
        assert entry["sqnr_db"] > 5, name
        assert entry["sqnr_db_to_graph"] is None or entry["sqnr_db_to_graph"] > 20, name
    check = json.loads((job / "build/model/coral-dev-board/check.json").read_text())
    # All but the DEPTH_TO_SPACE at the end, which spreads the cells.
    assert check["edge_tpu"]["mapped"] == check["edge_tpu"]["operators"] - 1


def test_absorb_distill_and_quantize_for_every_target(job: Path, edgec: Edgec) -> None:
    (job / "compress.yaml").write_text(ABSORB, encoding="utf-8")
    status, out, err = edgec("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert [remark["what"] for remark in report["passes"][1]["did"]] == [
        "the luminance of each block, and dct bands h1, v1, d1; one convolution in the place of 'encoder' gives 100.0% "
        "of the old response",
        "one convolution in the place of 'decoder' gives 2x2 pixels for each of its cells, and 100.0% of the old "
        "response",
    ]
    assert report["passes"][1]["sqnr_db"] > 20
    for name, entry in report["targets"].items():
        assert entry["sqnr_db_to_graph"] is None or entry["sqnr_db_to_graph"] > 20, name
    check = json.loads((job / "build/model/coral-dev-board/check.json").read_text())
    assert check["edge_tpu"]["mapped"] == check["edge_tpu"]["operators"] - 1


def test_a_network_of_channels_takes_images(job: Path, edgec: Edgec) -> None:
    overlay = Overlay(4, log=True)
    weight = np.random.default_rng(0).normal(size=(3, len(overlay.names), 3, 3)).astype(np.float32)
    shape = [1, len(overlay.names), 4, 4]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["y"], "first")], "channels",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 2, 2])], [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), job / "channels.onnx"
    )
    (job / "compress.yaml").write_text(PREPEND, encoding="utf-8")
    status, out, err = edgec("channels.onnx", "-O", "compress.yaml", "-q", "--no-timing", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert [record["name"] for record in report["passes"]] == ["overlay", "fold"]
    assert report["passes"][0]["did"][0]["what"].startswith("takes gray images of 16x16: the luminance of each block")
    # Six images are too few to set some aside.
    assert all(entry["sqnr_db_fitted"] > 15 for entry in report["targets"].values())
    x = np.random.default_rng(1).random((1, 1, 16, 16), np.float32)
    got = Session(load(job / "build/channels/model.onnx")).run({"image": x})["y"]
    wanted = Session(load(job / "channels.onnx")).run({"image": overlay_channels(x, overlay)})["y"]
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_the_stage_stands_first(job: Path, edgec: Edgec) -> None:
    (job / "compress.yaml").write_text("passes:\n  - fold\n  - overlay: {mode: prepend}\n")
    status, _, err = edgec("model.onnx", "-O", "compress.yaml", "-q")
    what = "passes[1] 'overlay' changes what the network takes, and 'fold' stands before it; put 'overlay' first"
    assert (status, err) == (2, f"edgec: compress.yaml: line 3: {what}\n")
