"""``edgec check``: a network that tells colours apart, fed in the ranges and orders that users get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from PIL import Image
from refusals import Edgec

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RIGHT = "scale: 1/255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
COUNT = 24


def network() -> onnx.ModelProto:
    """Red, green and blue by how much a channel leads; gray where none leads by one normalized unit.

    What arrives at its BatchNormalization has the statistics of the right preprocessing.
    """
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3,8,8] x) => (float[N,4] y)
        {
            [bn] n = BatchNormalization (x, g, b, mean, var)
            p = GlobalAveragePool (n)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, w, bias)
        }"""
    )
    pixels = np.stack([image(label, seed) for label in range(4) for seed in range(COUNT)]) / 255
    read = (pixels - MEAN) / STD
    # The BatchNormalization is there for its statistics: scale and bias undo it.
    mean, var = read.mean(axis=(0, 1, 2)), read.var(axis=(0, 1, 2))
    lead = 1.5 * np.eye(4, 3) - 0.5
    lead[3] = 0
    weights = {
        "g": np.sqrt(var + 1e-5), "b": mean, "mean": mean, "var": var, "w": lead, "bias": np.array([0, 0, 0, 1.0]),
    }  # fmt: skip
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return model


def image(label: int, seed: int) -> np.ndarray:
    """Pixels of [8, 8, 3]: gray noise with one channel raised; none for the last class."""
    random = np.random.default_rng(100 * label + seed)
    values = 110 + 20 * random.standard_normal((8, 8, 3))
    if label < 3:
        values[..., label] += 90
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for label, name in enumerate(("a_red", "b_green", "c_blue", "d_gray")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for seed in range(COUNT):
            Image.fromarray(image(label, seed)).save(tmp_path / "images" / name / f"{seed}.png")
    onnx.save(network(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(folder: Path, preprocess: str, metric: str = "top1, labels: folders") -> None:
    (folder / "compress.yaml").write_text(
        f"data:\n  preprocess: {{size: [8, 8], {preprocess}}}\n"
        f"  eval: {{images: images, metric: {metric}}}\npasses: [fold]\n"
    )


def checked(edgec: Edgec) -> tuple[int, dict]:
    status, out, _ = edgec("check", "model.onnx", "-O", "compress.yaml", "--json", "--input", "x:1x3x8x8")
    return status, json.loads(out)


def test_the_right_preprocessing_stays(colours: Path, edgec: Edgec) -> None:
    recipe(colours, RIGHT)
    status, report = checked(edgec)
    assert status == 0 and report["best"] is None
    own = report["preprocessings"]["as written"]
    assert own["metric"] == 1.0 and not own["batch_normalization"]["suspicious"]
    assert report["verdict"].startswith("top1 is 1.00 as written, and no usual preprocessing is better")


@pytest.mark.parametrize(
    ("written", "best"),
    [
        ("scale: 1/255", "ImageNet's, RGB"),  # mean and std forgotten
        ("scale: 1", "ImageNet's, RGB"),
        (f"{RIGHT}, color: bgr", "as written, RGB"),  # the figures stay in their places
    ],
)
def test_a_wrong_one_is_told_with_the_better_one(colours: Path, edgec: Edgec, written: str, best: str) -> None:
    recipe(colours, written)
    status, report = checked(edgec)
    assert status == 1
    rows = report["preprocessings"]
    assert rows[report["best"]]["metric"] == rows[best]["metric"] == 1.0
    assert rows["as written"]["metric"] < 0.8
    assert f"{rows['as written']['metric']:.2f} as written, 1.00 with " in report["verdict"]


def test_statistics_tell_without_labels(colours: Path, edgec: Edgec) -> None:
    recipe(colours, "scale: 1", "sqnr")
    status, report = checked(edgec)
    assert status == 1 and report["best"] is None
    apart = report["preprocessings"]["as written"]["batch_normalization"]
    assert apart["suspicious"] and apart["mean"] > 50
    assert not report["preprocessings"]["ImageNet's, RGB"]["batch_normalization"]["suspicious"]
    assert "at 'bn' the samples do not look like what the network was trained on" in report["verdict"]


def test_the_table(colours: Path, edgec: Edgec) -> None:
    recipe(colours, "scale: 1/255")
    status, out, _ = edgec("check", "model.onnx", "-O", "compress.yaml", "--input", "x:1x3x8x8")
    assert status == 1
    assert "ImageNet's, RGB *" in out and "as written" in out and "0.2500" in out


def test_compiling_warns_of_a_metric_near_chance(colours: Path, edgec: Edgec) -> None:
    recipe(colours, "scale: 1/255")
    status, out, _ = edgec(
        "model.onnx", "-O", "compress.yaml", "-o", "out", "--no-timing", "--input", "x:1x3x8x8", "--json"
    )
    assert status == 0
    notes = json.loads(out)["notes"]
    near = "the original's top1 is 0.25, near the 0.25 of chance: its preprocessing or its labels are hardly right; "
    assert [note for note in notes if note.startswith(near)]
    assert [note for note in notes if note.startswith("at 'bn' the samples do not look like what the network was")]
    recipe(colours, RIGHT)
    _, out, _ = edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "--no-timing", "--input", "x:1x3x8x8", "--json")
    assert not [note for note in json.loads(out)["notes"] if "chance" in note or "trained on" in note]


def test_without_data_there_is_nothing_to_check(colours: Path, edgec: Edgec) -> None:
    (colours / "compress.yaml").write_text("passes: [fold]\n")
    status, _, err = edgec("check", "model.onnx", "-O", "compress.yaml")
    assert status == 2
    assert err == ("edgec: compress.yaml: has no data to check with; add data.eval, with labels, or data.calibration\n")
