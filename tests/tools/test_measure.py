"""Latency and memory are measured in a process of their own; nothing here depends on how long anything takes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.ir.errors import InternalError
from edgec.tools.measure import measure


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A fully connected layer of 64 MiB of weights."""
    weight = numpy_helper.from_array(np.ones((4096, 4096), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4096])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4096])],
        [weight],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_is_measured(model: Path) -> None:
    speed = measure("cpu", model)
    assert speed.latency_ms > 0
    assert speed.runs >= 20
    # The weights are in it, the runtime's libraries are not.
    assert 64 << 20 <= speed.memory_bytes < 512 << 20


def test_a_model_that_does_not_run(tmp_path: Path) -> None:
    broken = tmp_path / "net.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(InternalError, match="could not be timed") as caught:
        measure("cpu", broken)
    assert caught.value.where == str(broken)
    assert len(str(caught.value).splitlines()) == 1


def test_modules_in_the_current_folder_are_not_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    for name in ("numpy.py", "edgec.py", "json.py"):
        Path(name).write_text("open('was-here', 'w')\nraise SystemExit(9)\n")
    assert measure("cpu", model).runs >= 20
    assert not Path("was-here").exists()


def test_the_process_is_told_to_use_one_thread(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    seen = {}

    def run(command: list[str], **settings: object) -> object:
        seen.update(settings["env"])  # type: ignore[call-overload]
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(KeyboardInterrupt):
        measure("cpu", model)
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["PATH"] == os.environ["PATH"]
