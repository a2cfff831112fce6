"""Files as they lie on the disk: valid by onnx's checker, of a format that their opset has, and run as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgec.ir.errors import EmitError, InputError
from edgec.ir.execution import seeded_feeds
from edgec.ir.files import load, save
from edgec.ir.valid_files import NotValidError, as_written, check_valid, run_file
from edgec.testing import model

VECTOR = "(float[2,8] x) => (float[2,8] y)"


@pytest.mark.parametrize("opset", range(13, 25))
def test_the_format_is_no_older_than_the_operators(opset: int, tmp_path: Path) -> None:
    """onnx's own table: opset 20 came with IR version 9, 21 with 10, 23 with 11."""
    graph = model("y = Relu (x)", VECTOR, opset=opset)
    graph.ir_version = 8
    save(graph, tmp_path / "model.onnx")
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    assert onnx.load(tmp_path / "model.onnx").ir_version == max(8, least)
    graph.ir_version = None
    save(graph, tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx").ir_version == least
    assert load(tmp_path / "model.onnx").ir_version == least


def test_what_onnxruntime_gives_for_the_file(tmp_path: Path) -> None:
    graph = model("y = Abs (x)", VECTOR)
    save(graph, tmp_path / "model.onnx")
    feeds = [{"x": np.full((2, 8), -value, np.float32)} for value in (1.0, 2.0)]
    outputs = as_written(tmp_path / "model.onnx", feeds, "cpu: model.onnx")
    assert outputs is not None
    assert [one["y"][0, 0] for one in outputs] == [1.0, 2.0]


def test_a_type_that_the_opset_has_not(tmp_path: Path) -> None:
    """The very fault: IsInf of FP16 in a file of opset 13, where opset 20 is the first to have it."""
    graph = model("h = Cast <to = 10> (x)\n[i] i = IsInf (h)\ny = Cast <to = 1> (i)", VECTOR, opset=20)
    graph.opset = 13
    save(graph, tmp_path / "model.onnx")
    with pytest.raises(NotValidError, match=r"is not valid ONNX \(onnx.checker says: .*float16"):
        check_valid(tmp_path / "model.onnx")
    with pytest.raises(EmitError) as caught:
        as_written(tmp_path / "model.onnx", seeded_feeds(graph), "trt-host: model_fp16_typed.onnx")
    assert str(caught.value).startswith("trt-host: model_fp16_typed.onnx: is not valid ONNX (onnx.checker says: ")
    assert str(caught.value).endswith(
        "; hold the model that you compile against onnx.checker, and export it again where that refuses it"
    )
    with pytest.raises(InputError):
        as_written(tmp_path / "model.onnx", [], "model.onnx", error=InputError)


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    graph = model("y = Gather (x, i)", "(float[2,8] x) => (float[1,8] y)", "int64[1] i", i=[5])
    save(graph, tmp_path / "model.onnx")
    check_valid(tmp_path / "model.onnx")
    with pytest.raises(NotValidError, match=r"^does not run in onnxruntime \(.*out of data bounds"):
        run_file(tmp_path / "model.onnx", seeded_feeds(graph, samples=1))


def test_a_sound_file_without_a_kernel_here(tmp_path: Path) -> None:
    graph = model("h = Cast <to = 16> (x)\ni = Sin (h)\ny = Cast <to = 1> (i)", VECTOR, opset=22)
    save(graph, tmp_path / "model.onnx")
    check_valid(tmp_path / "model.onnx")
    assert run_file(tmp_path / "model.onnx", seeded_feeds(graph, samples=1)) is None
