"""From pictures to names and boxes: in a board's folder, and by `edgec run` on all that was emitted."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import Edgec

from edgec.backends.ethos import vela
from edgec.ir.files import save
from edgec.testing import model

COLORS = ["red", "green", "blue"]
CLASSIFIER = "p = GlobalAveragePool(x)\nf = Flatten(p)\ng = Gemm(f, w)\ny = Softmax(g)"
# Three grids of cells, boxes in pixels, scores of two classes: YOLO v8's output, of 84 anchors.
DETECTOR = """a = Conv<strides=[8,8],kernel_shape=[8,8]>(x, w8)
b = Relu(a)
c = Conv<strides=[2,2],kernel_shape=[2,2]>(b, w2)
d = Relu(c)
e = Conv<strides=[2,2],kernel_shape=[2,2]>(d, w2)
i = Conv(b, h1, b1)
j = Conv(d, h2, b1)
k = Conv(e, h3, b1)
l = Reshape(i, s)
m = Reshape(j, s)
n = Reshape(k, s)
o = Concat<axis=2>(l, m, n)
q = Sigmoid(o)
boxes, scores = Split<axis=1>(q, parts)
t = Mul(boxes, side)
y = Concat<axis=1>(t, scores)"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, one of each colour, and more of them to calibrate with."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder, count in (("photos", 1), ("calibration", 12)):
        (tmp_path / folder).mkdir()
        for place, name in enumerate(COLORS):
            for number in range(count):
                pixels = random.integers(0, 90, (40, 60, 3), np.uint8)
                pixels[..., place] += 120
                Image.fromarray(pixels).save(tmp_path / folder / f"{name}{number or ''}.png")
    return tmp_path


def classify(target: str, passes: str = "[fold, quantize]") -> None:
    save(model(CLASSIFIER, "(float[1,3,32,32] x) => (y)", "float[3,3] w", w=8 * np.eye(3)), Path("model.onnx"))
    Path("names.txt").write_text("".join(f"{name}\n" for name in COLORS))
    Path("compress.yaml").write_text(f"""data:
  preprocess: {{size: [32, 32], scale: 1/255}}
  calibration: {{images: calibration}}
results: {{labels: names.txt}}
passes: {passes}
targets: [{target}]
""")


def look(folder: str, *arguments: str, content: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", str(Path(folder) / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, input=content, check=False)


@pytest.mark.skipif(bool(vela.missing()), reason="; ".join(vela.missing()))
def test_a_classifier_to_names_on_an_imx93_folder(here: Path, edgec: Edgec) -> None:
    classify("ethos-u65")
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    folder = here / "out" / "ethos-u65"
    assert (folder / "labels.txt").read_text().split() == COLORS
    assert (folder / "model_vela.tflite").is_file()
    done = look("out/ethos-u65", "--images", "photos", "--csv", "said.csv")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [[f"{name}.png:", name] for name in sorted(COLORS)]
    assert lines[3].startswith("3 pictures, ")
    with Path("said.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows if row["rank"] == "1"] == sorted(COLORS) and len(rows) == 9


@pytest.mark.parametrize("passes", ["[fold]", "[fold, quantize]", "[fold, normalize, quantize]"])
def test_every_form_of_the_input(passes: str, here: Path, edgec: Edgec) -> None:
    """Float, int8, and bytes as a camera gives them."""
    classify("coral-dev-board", passes)
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    done = look("out/coral-dev-board", "--images", "photos/green.png")
    assert done.returncode == 0 and done.stdout.decode().startswith("green.png: green 0."), done.stderr
    frame = np.asarray(Image.open("photos/blue.png")).tobytes()
    done = look("out/coral-dev-board", "--frames", "60x40", content=2 * frame + b"cut short")
    assert [line.split()[:3] for line in done.stdout.decode().splitlines()[:2]] == [
        ["frame", "0:", "blue"],
        ["frame", "1:", "blue"],
    ]


def test_all_that_was_emitted_says_the_same(here: Path, edgec: Edgec) -> None:
    classify("cpu, coral-dev-board")
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    status, out, err = edgec("run", "out", "--images", "photos", "--csv", "said.csv")
    assert (status, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.startswith(tuple(f"{name}.png" for name in COLORS))]
    assert [row[:2] for row in rows] == [[f"{name}.png", name] for name in sorted(COLORS)]
    with Path("said.csv").open() as file:
        best = [
            (row["network"], Path(row["file"]).stem, row["name"]) for row in csv.DictReader(file) if row["rank"] == "1"
        ]
    assert len(best) == 9 and {network for network, _, _ in best} == {"model.onnx", "cpu", "coral-dev-board"}
    assert all(file == name for _, file, name in best)
    report = json.loads(edgec("run", "out/cpu", "--images", "photos", "--json")[1])
    assert report["results"]["kind"] == "classes"
    assert [said["cpu"][0]["name"] for said in report["results"]["files"].values()] == sorted(COLORS)


def detect(passes: str) -> None:
    random = np.random.default_rng(3)
    graph = model(
        DETECTOR, "(float[1,3,64,64] x) => (y)",
        "float[8,3,8,8] w8, float[8,8,2,2] w2, float[6,8,1,1] h1, float[6,8,1,1] h2, float[6,8,1,1] h3, float[6] b1"
        ", int64[3] s, int64[2] parts, float side",
        s=[1, 6, -1], parts=[4, 2], side=64, b1=[0, 0, -1, -1, 1, 1],
        **{name: 2 * random.standard_normal((6, 8, 1, 1)) for name in ("h1", "h2", "h3")},
    )  # fmt: skip
    save(graph, Path("model.onnx"))
    Path("compress.yaml").write_text(f"""data:
  preprocess: {{size: [64, 64], scale: 1/255, fit: pad}}
  calibration: {{images: calibration}}
results: {{confidence: 0.6}}
passes: {passes}
targets: [coral-dev-board]
""")


def test_yolo_to_boxes_on_a_coral_folder(here: Path, edgec: Edgec) -> None:
    detect("[fold]")
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    known = json.loads(Path("out/coral-dev-board/results.json").read_text())
    assert (known["kind"], known["form"], known["classes"], known["strides"]) == ("boxes", "centres", 2, [8, 16, 32])
    assert look("out/coral-dev-board", "--images", "photos", "--csv", "board.csv").returncode == 0
    assert edgec("run", "out", "--images", "photos", "--csv", "here.csv")[0] == 0
    with Path("board.csv").open() as board, Path("here.csv").open() as emitted:
        there = [list(row.values()) for row in csv.DictReader(board)]
        rows = [list(row.values()) for row in csv.DictReader(emitted)]
    original = [[Path(row[1]).name, *row[2:]] for row in rows if row[0] == "model.onnx"]
    assert len(there) == len(original) > 3
    assert [row[:3] for row in there] == [row[:3] for row in original]
    # Pictures are decoded and scaled by different code there: a level of a pixel moves a corner by less than one.
    np.testing.assert_allclose(
        np.array([row[3:] for row in there], float), np.array([row[3:] for row in original], float), atol=1.0
    )


def test_boxes_in_int8(here: Path, edgec: Edgec) -> None:
    detect("[fold, quantize]")
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    done = look("out/coral-dev-board", "--images", "photos")
    assert done.returncode == 0 and b" at " in done.stdout


REFUSED = {
    "results: {kind: boxes}": "results.kind: no output is of kind 'boxes' ('y' [1, 3])",
    "results: {output: z}": "results.output: the network has no output 'z'",
    "results: {labels: two.txt}": "results.labels: holds 2 names, and the network tells 3 classes apart",
    "results: {labels: none.txt}": "results.labels: 'none.txt': there is no such file",
    "results: {labels: gaps.txt}": "results.labels: 'gaps.txt' has empty lines",
    "results: {kind: box}": "results.kind: must be one of auto, classes, boxes, mask, score, none, not 'box'. Did you",
    "results: {confidence: 2}": "results.confidence: must be between 0 and 1, not 2",
    "results: {kind: mask, form: grid}": "results.form: goes with boxes, not with kind 'mask'",
}


@pytest.mark.parametrize("section", list(REFUSED))
def test_mistakes_in_the_recipe(section: str, here: Path, edgec: Edgec) -> None:
    classify("cpu", "[fold]")
    Path("two.txt").write_text("a\nb\n")
    Path("gaps.txt").write_text("a\n\nb\n")
    recipe = Path("compress.yaml")
    recipe.write_text(recipe.read_text().replace("results: {labels: names.txt}", section))
    status, _, err = edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")
    assert status in (2, 3) and REFUSED[section] in err and not Path("out").exists()


def test_what_a_board_is_told_of_mistakes(here: Path, edgec: Edgec) -> None:
    classify("coral-dev-board", "[fold]")
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    Path("empty").mkdir()
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for arguments, status, line in (
        (("--images", "nowhere"), 3, b"nowhere is not there"),
        (("--images", "empty"), 3, b"empty holds no picture"),
        (("--images", "broken.png"), 3, b"broken.png: has no header"),
        (("--frames", "60"), 2, b"--frames 60 is no size; write WIDTHxHEIGHT"),
        (("--csv", "x.csv"), 2, b"--csv: goes with --images or --frames"),
    ):
        done = look("out/coral-dev-board", *arguments)
        assert (done.returncode, done.stdout) == (status, b"") and line in done.stderr
    (here / "out/coral-dev-board/results.json").unlink()
    done = look("out/coral-dev-board", "--images", "photos")
    assert done.returncode == 3 and b"does not say what the outputs mean" in done.stderr


def test_nothing_is_guessed(here: Path, edgec: Edgec) -> None:
    """Three numbers without a Softmax may be anything."""
    classify("cpu", "[fold]")
    save(model(CLASSIFIER.replace("Softmax", "Neg"), "(float[1,3,32,32] x) => (y)", "float[3,3] w"), Path("model.onnx"))
    recipe = Path("compress.yaml")
    recipe.write_text(recipe.read_text().replace("results: {labels: names.txt}", ""))
    assert edgec("model.onnx", "-O", "compress.yaml", "-o", "out", "-q")[0] == 0
    assert not Path("out/results.json").exists()
    status, _, err = edgec("run", "out", "--images", "photos", "-O", "compress.yaml", "--csv", "x.csv")
    assert status == 2 and "--csv goes with --images and with a folder that says what the outputs mean" in err


def test_what_stood_behind_a_cut_runs_in_numpy(here: Path, edgec: Edgec) -> None:
    """The boxes' arithmetic stays out of int8; the board's folder and `edgec run` give the whole network's boxes."""
    detect("[fold]")
    arguments = ("model.onnx", "-O", "compress.yaml", "-q", "--cut", "o")
    assert edgec(*arguments, "-o", "cut")[0] == 0
    assert edgec("model.onnx", "-O", "compress.yaml", "-q", "-o", "whole")[0] == 0
    folder = here / "cut" / "coral-dev-board"
    assert {"tail.py", "tail.json", "tail.npz", "results.json"} <= {path.name for path in folder.iterdir()}
    assert [entry["name"] for entry in json.loads((folder / "check.json").read_text())["outputs"]] == ["o"]
    done, whole = look("cut/coral-dev-board", "--images", "photos"), look("whole/coral-dev-board", "--images", "photos")
    assert done.returncode == 0 and b" at " in done.stdout
    assert done.stdout.splitlines()[:3] == whole.stdout.splitlines()[:3]
    for place in ("cut", "whole"):
        assert edgec("run", place, "--images", "photos", "--csv", f"{place}.csv")[0] == 0
    assert Path("cut.csv").read_text() == Path("whole.csv").read_text()


def test_a_cut_that_numpy_cannot_finish(here: Path, edgec: Edgec) -> None:
    detect("[fold]")
    assert edgec("model.onnx", "-O", "compress.yaml", "-q", "--cut", "b", "-o", "out")[0] == 0
    notes = json.loads(Path("out/report.json").read_text())["notes"]
    assert [note for note in notes if note.startswith("what stood behind the cut is not in the folders: ")]
    assert not Path("out/coral-dev-board/tail.json").exists()


def test_a_metric_sees_what_stood_behind_the_cut(here: Path, edgec: Edgec) -> None:
    """Probabilities are computed in numpy; the metric judges them, on every target."""
    classify("cpu, coral-dev-board")
    x = np.random.default_rng(0).uniform(0, 0.3, (12, 3, 32, 32)).astype(np.float32)
    labels = np.arange(12) % 3
    x[np.arange(12), labels] += 0.5
    np.savez("eval.npz", x=x, labels=labels)
    recipe = Path("compress.yaml")
    judged = "  eval: {arrays: eval.npz, metric: top1, output: y}\n"
    recipe.write_text(recipe.read_text().replace("results:", f"{judged}results:"))
    assert edgec("model.onnx", "-O", "compress.yaml", "-q", "--cut", "g", "-o", "out")[0] == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["quality"]["metric"]["baseline"] == 1.0
    assert [entry["metric"] for entry in report["targets"].values()] == [1.0, 1.0]
    assert report["results"]["output"] == "y" and report["results"]["logits"] is False
    measured = json.loads(edgec("run", "out", "-O", "compress.yaml", "--json")[1])
    assert {entry["metric"] for entry in measured["networks"].values()} == {1.0}
