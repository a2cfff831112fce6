"""Input that was made to break something: names, files of another kind, metadata, sizes; edgec says so in a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from refusals import ARGUMENTS, Edgec, edit, refused

RECIPE = "passes: [fold]\ntargets: [cpu, coral-dev-board]\n"


def write(job: Path, nodes: list[onnx.NodeProto], weights: tuple[onnx.TensorProto, ...] = (), **shapes: list) -> None:
    """Puts a float network in the place of the job's: its first shape is the input's, its last the output's."""
    sides = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[-1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (job / "model.onnx").write_bytes(model.SerializeToString())
    (job / "compress.yaml").write_text(RECIPE)


def test_names_that_hold_lines_and_escapes(earlier: Path, edgec: Edgec) -> None:
    write(earlier, [helper.make_node("Rely\n\x1b[31m", ["x"], ["y"], "a\nb\x1b[2J")], x=[1, 4], y=[1, 4])
    refused(
        earlier,
        edgec,
        3,
        r"model.onnx: node 'a\nb\x1b[2J' (Rely\n\x1b[31m): is no operator of ONNX opset 17; "
        "export the network with standard ONNX operators",
    )


def test_names_that_hold_lines_and_escapes_compile(job: Path, edgec: Edgec) -> None:
    node = helper.make_node("Relu", ["x\n"], ["<script>\x1b[2J"], "a\nb")
    write(job, [node], **{"x\n": [1, 4], "<script>\x1b[2J": [1, 4]})
    (job / "compress.yaml").write_text('name: "<b>\\n\\e[31m"\n' + RECIPE)
    status, out, err = edgec(*ARGUMENTS)
    assert (status, err) == (0, "")
    assert out.startswith(r"<b>\n\x1b[31m: before and after")
    assert "\x1b" not in out
    assert "<b>" not in (job / "out" / "report.html").read_text().split("</style>")[1]


def test_a_model_whose_name_is_no_text(job: Path, edgec: Edgec) -> None:
    name = os.fsdecode(b"\xff\n.onnx")
    (job / "model.onnx").rename(job / name)
    status, out, err = edgec(name, *ARGUMENTS[1:3], "--no-timing")
    assert status == 0
    assert err.startswith("edgec: reading \\udcff\\n.onnx\n")
    assert "build/\\udcff\\n: model.onnx" in out
    report = json.loads((job / "build" / os.fsdecode(b"\xff\n") / "report.json").read_text())
    assert (report["model"], report["name"]) == ("\ufffd\n.onnx", "\ufffd\n")


def test_what_onnxruntime_cannot_run_names_the_file(earlier: Path, edgec: Edgec) -> None:
    shape = numpy_helper.from_array(np.array([5]), "shape")
    write(earlier, [helper.make_node("Reshape", ["x", "shape"], ["y"], "r")], (shape,), x=[1, 4], y=None)
    refused(
        earlier,
        edgec,
        3,
        "model.onnx: onnxruntime: cannot run the model (Non-zero status code returned while running Reshape node. "
        "Name:'r' Status Message: input_shape_size == requested_shape_size was false. The input tensor cannot be "
        "reshaped to the requested shape. Input shape:{1,4}, requested shape:{5}); "
        "export the network again, or end it before that node with --cut",
    )


@pytest.mark.parametrize(
    "entry",
    [
        "{junk", "[]", '{"scale": [1]}', '{"scale": [0], "offset": [0]}', '{"scale": [1, 1], "offset": [0]}',
        '{"scale": [NaN], "offset": [0]}', '{"scale": "a", "offset": [0]}', "[" * 100_000,
    ],
)  # fmt: skip
def test_metadata_that_edgec_did_not_write(earlier: Path, edgec: Edgec, entry: str) -> None:
    model = onnx.load(earlier / "model.onnx")
    helper.set_model_props(model, {"edgec.input.image": entry})
    onnx.save(model, earlier / "model.onnx")
    refused(
        earlier,
        edgec,
        3,
        "model.onnx: metadata 'edgec.input.image': is no scale and offset of that input; "
        "remove it from the model's metadata, or export the network again",
    )


def test_a_pipe_in_the_place_of_the_model(earlier: Path, edgec: Edgec) -> None:
    (earlier / "model.onnx").unlink()
    os.mkfifo(earlier / "model.onnx")
    refused(earlier, edgec, 3, "model.onnx: is a pipe, which cannot be mapped; give a file")


@pytest.mark.parametrize("function", ["sys.exit(0)", "raise SystemExit"])
def test_data_that_leave(earlier: Path, edgec: Edgec, function: str) -> None:
    (earlier / "leaving.py").write_text(f"import sys\ndef samples():\n    {function}\n")
    edit(earlier / "compress.yaml", "{images: good}", "{python: 'leaving:samples'}")
    said = {"sys.exit(0)": " (0)"}.get(function, "")
    refused(earlier, edgec, 3, f"python: leaving:samples: failed with SystemExit{said}; fix the function")


def test_data_that_print_leave_the_report_alone(job: Path, edgec: Edgec) -> None:
    (job / "loud.py").write_text(
        "import numpy as np\n"
        "print('imported')\n"
        "def samples():\n"
        "    print('called')\n"
        "    yield np.zeros((1, 16, 16), np.float32)\n"
    )
    edit(job / "compress.yaml", "{images: good}", "{python: 'loud:samples'}")
    status, out, err = edgec(*ARGUMENTS, "--json")
    assert status == 0
    assert json.loads(out)["model"] == "model.onnx"
    assert set(err.split()) == {"imported", "called"}


def test_dumps_in_the_output_folder(earlier: Path, edgec: Edgec) -> None:
    refused(
        earlier,
        edgec,
        2,
        "out/ir: lies in the output folder 'out', which is replaced at the end; give another folder with --dump-ir",
        "--dump-ir",
        "out/ir",
    )


def test_dumps_on_a_full_disk(earlier: Path, edgec: Edgec) -> None:
    (earlier / "ir").mkdir()
    (earlier / "ir" / "00-input.txt").symlink_to("/dev/full")
    status, _, err = edgec(*ARGUMENTS, "--dump-ir", "ir")
    assert (status, err) == (4, "edgec: ir: cannot be written (no space left on device); dump to another folder\n")


@pytest.mark.parametrize(
    ("nodes", "weights", "shapes"),
    [
        ([], (), {"x": [1, 4]}),
        ([helper.make_node("Identity", ["x"], ["y"])], (), {"x": [1, 4], "y": [1, 4]}),
        ([helper.make_node("Relu", ["x"], ["y"])], (), {"x": [], "y": []}),
        (
            [helper.make_node("Div", ["x", "zero"], ["y"])],
            (numpy_helper.from_array(np.zeros((1, 4), np.float32), "zero"),),
            {"x": [1, 4], "y": [1, 4]},
        ),
    ],
    ids=["no nodes", "identity", "scalars", "infinities"],
)
def test_networks_of_next_to_nothing(
    job: Path,
    edgec: Edgec,
    nodes: list[onnx.NodeProto],
    weights: tuple[onnx.TensorProto, ...],
    shapes: dict[str, list[int]],
    recwarn: pytest.WarningsRecorder,
) -> None:
    write(job, nodes, weights, **shapes)
    status, _, err = edgec(*ARGUMENTS)
    assert (status, err) == (0, "")
    assert [str(warning.message) for warning in recwarn] == []
