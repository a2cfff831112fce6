"""`edgec-opt`: one pipeline on one model, the graph on stdout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgec.tools.opt import main

Opt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def opt(job: Path, capsys: pytest.CaptureFixture[str]) -> Opt:
    """Runs the command on the job's model: exit status, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["model.onnx", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_without_a_pipeline_the_graph_is_printed(opt: Opt) -> None:
    status, out, err = opt()
    assert (status, err) == (0, "")
    assert "BatchNormalization" in out


def test_passes_run_in_order(opt: Opt, job: Path) -> None:
    status, out, _ = opt("-p", "fold,factorize{rank=0.5, only=[middle]}", "-o", "small.onnx")
    assert status == 0
    assert "BatchNormalization" not in out
    assert "middle.tucker.core" in out
    assert ort.InferenceSession(str(job / "small.onnx")).run(None, {"image": np.zeros((1, 1, 16, 16), np.float32)})


def test_data_and_target(opt: Opt) -> None:
    status, out, err = opt("-p", "fold,normalize,quantize", "--data", "compress.yaml", "--target", "coral-dev-board")
    assert (status, err) == (0, "")
    assert out.count("QuantizeLinear") > 4


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (("-p", "fold,"), 2, "-p 'fold,': a pass has no name; write fold,factorize{params=0.1}"),
        (("-p", "fould"), 2, "-p: passes[0]: no pass named 'fould'. Did you mean 'fold'? 'edgec passes' lists them"),
        (("-p", "fold{x=1}"), 2, "-p: passes[0] 'fold': has no option 'x'; it takes share_weights, keep_batch"),
        (
            ("-p", "quantize"),
            2,
            "-p: passes[0] 'quantize': needs 'data.calibration', which the recipe does not have; add data.calibration",
        ),
        (
            ("--target", "cpux"),
            2,
            "--target: no target named 'cpux'. Did you mean 'cpu'? 'edgec targets' lists them",
        ),
        (("-o", "good/none/x.onnx"), 2, "good/none/x.onnx: cannot be written (no such file or directory); "
                                        "give another file with -o"),
        (("--dump-ir", "model.onnx"), 2, "model.onnx: cannot be written (not a directory); "
                                         "give another folder with --dump-ir"),
    ],
)  # fmt: skip
def test_mistakes(opt: Opt, arguments: tuple[str, ...], status: int, line: str) -> None:
    got, _, err = opt(*arguments)
    assert (got, err) == (status, f"edgec-opt: {line}\n")


def test_a_quantized_model_takes_no_float_pass(opt: Opt, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = ("-p", "fold,quantize", "--data", "compress.yaml", "--target", "cpu", "-o", "int8.onnx")
    assert opt(*made)[0] == 0
    assert main(["int8.onnx", "-p", "factorize{rank=0.5}"]) == 2
    assert capsys.readouterr().err == (
        "edgec-opt: -p: passes[0] 'factorize' needs a 'float' graph, which this is not; put 'dequantize' before it\n"
    )
    assert main(["int8.onnx", "-p", "fold"]) == 0


def test_what_is_watched(opt: Opt, job: Path) -> None:
    status, out, err = opt("-p", "fold", "--print-changed", "--print-after", "fold", "--time", "--dump-ir", "ir")
    assert status == 0
    assert "// passes[0] 'fold' changed" in out
    assert "// after passes[0] 'fold'" in out
    assert err.splitlines()[-1].endswith("s  all passes")
    assert sorted(p.name for p in (job / "ir").iterdir()) == [
        "00-input.onnx", "00-input.txt", "01-fold.onnx", "01-fold.txt",
    ]  # fmt: skip
