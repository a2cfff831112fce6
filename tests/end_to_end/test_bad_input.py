"""What bad input gets: one line, the right exit status, the earlier output whole, the inputs unchanged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from refusals import ARGUMENTS, Edgec, edit, fingerprint, refused


def test_truncated_model(earlier: Path, edgec: Edgec) -> None:
    data = (earlier / "model.onnx").read_bytes()
    (earlier / "model.onnx").write_bytes(data[: len(data) // 2])
    status, _, err = edgec(*ARGUMENTS)
    assert status == 3
    assert err.startswith("edgec: model.onnx: ends too early: a field at byte ")
    assert err.endswith("bytes more; the file is truncated or corrupted; export or copy it again\n")


def test_other_format(earlier: Path, edgec: Edgec) -> None:
    shutil.copy(earlier / "out" / "coral-dev-board" / "model.tflite", earlier / "model.onnx")
    refused(earlier, edgec, 3, "model.onnx: is a TFLite file, not an ONNX model; export the network to ONNX first")


def test_missing_model(earlier: Path, edgec: Edgec) -> None:
    (earlier / "model.onnx").unlink()
    refused(earlier, edgec, 3, "model.onnx: does not exist; check the path")


def test_nan_weights(earlier: Path, edgec: Edgec) -> None:
    model = onnx.load(earlier / "model.onnx")
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "encoder.weight"))
    onnx.save(model, earlier / "model.onnx")
    refused(
        earlier,
        edgec,
        3,
        "model.onnx: weight 'encoder.weight': has 1 value that is not finite; train or export the network again",
    )


def test_unknown_operator(earlier: Path, edgec: Edgec) -> None:
    model = onnx.load(earlier / "model.onnx")
    model.graph.node[2].op_type = "Rely"
    onnx.save(model, earlier / "model.onnx")
    refused(
        earlier,
        edgec,
        3,
        "model.onnx: node 'relu' (Rely): is no operator of ONNX opset 17; "
        "export the network with standard ONNX operators. Did you mean 'Relu'?",
    )


def test_unknown_domain(earlier: Path, edgec: Edgec) -> None:
    model = onnx.load(earlier / "model.onnx")
    model.graph.node[2].domain = "com.acme"
    onnx.save(model, earlier / "model.onnx")
    refused(
        earlier,
        edgec,
        3,
        "model.onnx: node 'relu' (Relu): is of the domain 'com.acme', which edgec does not know; "
        "export the network with standard ONNX operators",
    )


def test_open_dimensions(earlier: Path, edgec: Edgec) -> None:
    model = onnx.load(earlier / "model.onnx")
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, earlier / "model.onnx")
    refused(
        earlier,
        edgec,
        3,
        "model.onnx: input 'image': has open dimensions (1x1xHx16); pin them with --input image:1x1x224x16",
    )


@pytest.mark.parametrize(
    ("pin", "line"),
    [
        ("image", "--input image: has no shape and no value; write it as NAME:1x3x224x224, or as NAME=16000"),
        (
            "image:1x16x16",
            "--input image:1x16x16: has 3 dimensions, but input 'image' of model.onnx has 4; its shape is 1x1x16x16",
        ),
    ],
)
def test_pins(earlier: Path, edgec: Edgec, pin: str, line: str) -> None:
    refused(earlier, edgec, 2, line, "--input", pin)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("missing", "needs 'weights.bin', which does not exist; copy the data file beside the model"),
        ("short", "needs bytes 0 to 288 of 'weights.bin', which has 100; the data file is truncated; copy it again"),
        ("outside", "points to '../weights.bin', outside the model's folder; put its data file beside the model"),
    ],
)
def test_external_data(earlier: Path, edgec: Edgec, kind: str, what: str) -> None:
    model, weights = earlier / "model.onnx", earlier / "weights.bin"
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    if kind == "missing":
        weights.unlink()
    elif kind == "short":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        proto = onnx.load(model, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../weights.bin"
        model.write_bytes(proto.SerializeToString())
    refused(earlier, edgec, 3, f"model.onnx: weight 'encoder.weight': {what}")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; export the network again"),
        (b"hello world", "is not an ONNX model (byte 2 starts no protobuf field); give an .onnx file"),
    ],
)
def test_no_model(earlier: Path, edgec: Edgec, content: bytes, what: str) -> None:
    (earlier / "model.onnx").write_bytes(content)
    refused(earlier, edgec, 3, f"model.onnx: {what}")


def test_an_operator_that_the_backend_cannot_lower(earlier: Path, edgec: Edgec) -> None:
    node = helper.make_node("Det", ["x"], ["y"], "det")
    sides = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 4, 4]), ("y", [1]))]
    graph = helper.make_graph([node], "g", sides[:1], sides[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), earlier / "model.onnx")
    (earlier / "compress.yaml").write_text("passes: [fold]\ntargets: [coral-dev-board]\n")
    before = fingerprint(earlier)
    status, _, err = edgec(*ARGUMENTS)
    assert status == 4
    assert "node 'det' (Det): the coral backend cannot lower it; " in err
    assert len(err.splitlines()) == 1
    assert fingerprint(earlier) == before


def test_recipe_with_a_wrong_key(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "targets:", "target:")
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 10: target: unknown key; "
        "the keys here are name, seed, data, passes, targets, results, require. Did you mean 'targets'?",
    )


def test_recipe_with_a_wrong_value(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "energy: 0.999", "energy: 2")
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 8: passes[2] 'factorize': energy: input should be less than or equal to 1; "
        "'edgec passes factorize' explains",
    )


def test_recipe_that_is_no_yaml(earlier: Path, edgec: Edgec) -> None:
    (earlier / "compress.yaml").write_text("passes: [fold\n")
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 2: not YAML (expected ',' or ']', but got '<stream end>'); "
        "look at the indentation and brackets before column 1",
    )


def test_every_mistake_of_a_recipe_is_told_at_once(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "- quantize", "- quantise")
    edit(earlier / "compress.yaml", "energy: 0.999", "energie: 1")
    status, _, err = edgec(*ARGUMENTS)
    assert status == 2
    assert [line.split(": ")[2:4] for line in err.splitlines()] == [
        ["line 8", "passes[2] 'factorize'"],
        ["line 9", "passes[3]"],
    ]


def test_unknown_pass(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "- quantize", "- quantise")
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 9: passes[3]: no pass named 'quantise'. Did you mean 'quantize'? "
        "'edgec passes' lists them",
    )


def test_unknown_target(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "[cpu, coral-dev-board]", "[cpu, coral]")
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 10: targets[1]: no target named 'coral'; 'edgec targets' lists them",
    )


def test_wrong_order(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "  - quantize\n", "")
    edit(
        earlier / "compress.yaml", "  - factorize: {energy: 0.999}\n", "  - quantize\n  - factorize: {energy: 0.999}\n"
    )
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 9: passes[3] 'factorize' needs a 'float' graph, but passes[2] 'quantize' ended that; "
        "move 'factorize' above it",
    )


def test_missing_recipe(earlier: Path, edgec: Edgec) -> None:
    (earlier / "compress.yaml").unlink()
    refused(earlier, edgec, 2, "compress.yaml: there is no such recipe; check the path after -O")


def test_empty_image_folder(earlier: Path, edgec: Edgec) -> None:
    for path in (earlier / "good").iterdir():
        path.unlink()
    fix = "put images into it (.png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp, .pgm, .ppm, .pnm, .gif)"
    refused(
        earlier,
        edgec,
        3,
        f"compress.yaml: line 3: data.calibration.images: 'good': holds no image; {fix}\n"
        f"edgec: compress.yaml: line 4: data.eval.ok: 'good': holds no image; {fix}",
    )


def test_unreadable_image(earlier: Path, edgec: Edgec) -> None:
    (earlier / "good" / "0.png").write_bytes(b"not an image")
    refused(
        earlier,
        edgec,
        3,
        "good/0.png: cannot be decoded as an image (its content is of no known format, or it has no pixels); "
        "replace it or take it out of the folder",
    )


def test_images_of_another_colour(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "color: gray", "color: rgb")
    refused(
        earlier,
        edgec,
        2,
        "compress.yaml: line 3: data.calibration: images come out as 3x16x16 (rgb, size 16x16) "
        "but the model's input 'image' takes 1x16x16; set color: gray",
    )


def test_an_image_of_another_shape(earlier: Path, edgec: Edgec) -> None:
    edit(earlier / "compress.yaml", "size: [16, 16], ", "")
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(earlier / "good" / "0.png")
    refused(
        earlier,
        edgec,
        3,
        "good/0.png: comes out as 1x8x16, but the model's input 'image' takes 1x16x16; "
        "set size: [16, 16] in data.preprocess",
    )


def test_a_model_in_the_output_folder(earlier: Path, edgec: Edgec) -> None:
    before = fingerprint(earlier)
    status, _, err = edgec("out/model.onnx", *ARGUMENTS[1:])
    assert (status, err) == (
        2,
        "edgec: out: holds 'out/model.onnx', which this run reads, and is replaced at its end; "
        "give another folder with -o\n",
    )
    assert fingerprint(earlier) == before


def test_output_that_is_not_ours_is_not_deleted(job: Path, edgec: Edgec) -> None:
    (job / "out").mkdir()
    (job / "out" / "thesis.txt").write_text("years of work")
    refused(
        job, edgec, 2, "out: holds files that are no output of edgec (no manifest.json); give another folder with -o"
    )


def test_output_that_is_a_file(job: Path, edgec: Edgec) -> None:
    (job / "out").write_text("")
    refused(job, edgec, 2, "out: is a file, and the output is a folder; give another folder with -o")


def test_output_that_cannot_be_written(job: Path, edgec: Edgec) -> None:
    (job / "blocked").write_text("")
    status, _, err = edgec(*ARGUMENTS[:-1], "blocked/out")
    assert (status, err) == (
        2,
        "edgec: blocked/out: cannot be written (not a directory); give another folder with -o\n",
    )


def test_full_disk(earlier: Path, edgec: Edgec, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from edgec.tools import compile as compiling

    def full(graph: object, path: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(compiling, "save", full)
    refused(earlier, edgec, 4, "out: the disk is full; free some space and run again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(earlier: Path, number: signal.Signals) -> None:
    """A signal in the middle, while the calibration data are read from a slow source."""
    (earlier / "slow.py").write_text(
        "import time\n"
        "import numpy as np\n"
        "def samples():\n"
        "    for i in range(100000):\n"
        "        open('started', 'w').close()\n"
        "        time.sleep(0.05)\n"
        "        yield {'image': np.full((1, 16, 16), i / 1e5, np.float32)}\n"
    )
    edit(earlier / "compress.yaml", "{images: good}", "{python: 'slow:samples'}")
    before = fingerprint(earlier / "out")
    child = subprocess.Popen(
        [sys.executable, "-m", "edgec.tools.cli", *ARGUMENTS], stderr=subprocess.PIPE, text=True, cwd=earlier
    )
    try:
        deadline = time.monotonic() + 60
        while not (earlier / "started").exists():
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == (130 if number == signal.SIGINT else 143)
    assert err == "edgec: interrupted; the earlier output is as it was\n"
    assert fingerprint(earlier / "out") == before
    assert not [p for p in earlier.iterdir() if p.name.startswith(".out")]


def test_a_run_killed_between_its_two_renames_is_mended(earlier: Path, edgec: Edgec) -> None:
    (earlier / "out").rename(earlier / ".out.previous")
    (earlier / "compress.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    (earlier / "model.onnx").write_bytes(b"")
    assert edgec(*ARGUMENTS)[0] == 3
    assert (earlier / "out" / "manifest.json").is_file()


def test_usage(job: Path, edgec: Edgec) -> None:
    assert edgec("model.onnx")[0] == 2
    assert edgec()[0] == 2


def test_traceback_is_shown_on_request(job: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgec.tools.cli", "none.onnx", "-O", "compress.yaml", "-q", "--traceback"],
        capture_output=True, text=True, check=False, cwd=job,
    )  # fmt: skip
    assert "Traceback" in done.stderr
    assert "edgec.ir.errors.InputError: none.onnx: does not exist; check the path" in done.stderr
