"""One target that cannot be emitted: the others are, and nobody is told that all is well."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.cpu.backend import CpuBackend
from edgec.ir.errors import InternalError

Edgec = Callable[..., tuple[int, str, str]]
RUN = ("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")
NO_KERNEL = "coral-dev-board: node 'determinant' (Det): the coral backend cannot lower it"


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that the Edge TPU has no operator for, for it and for the CPU."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4,4] x) => (float[1] y) { [determinant] d = Det(x) [double] y = Add(d, d) }"""
    )
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "compress.yaml").write_text("passes: [fold]\ntargets: [coral-dev-board, cpu]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return found


def test_the_others_are_emitted(two: Path, edgec: Edgec) -> None:
    status, out, err = edgec(*RUN)
    assert status == 4
    assert err.startswith(f"edgec: {NO_KERNEL}")
    assert err.count("\n") == 1
    assert "coral-dev-board: NOT EMITTED\n" in out
    report = report_of(two)
    assert list(report["targets"]) == ["coral-dev-board", "cpu"]
    error = err.removeprefix("edgec: ").rstrip()
    assert report["targets"]["coral-dev-board"] == {
        "title": "Coral Dev Board (Edge TPU)", "error": error, "exit_status": 4,
    }  # fmt: skip
    assert report["targets"]["cpu"]["files"] == ["cpu/model.onnx", "cpu/check.json"]
    assert not (two / "out" / "coral-dev-board").exists()
    manifest = json.loads((two / "out" / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.onnx", "report.json", "report.html", "cpu/model.onnx", "cpu/check.json"}
    digest = hashlib.sha256((two / "out" / "cpu" / "model.onnx").read_bytes()).hexdigest()
    assert manifest["files"]["cpu/model.onnx"]["sha256"] == digest
    page = (two / "out" / "report.html").read_text()
    assert f"This target was not emitted: {NO_KERNEL}".replace("'", "&#39;") in page
    assert edgec("run", "out", "--arrays", str(samples(two)))[0] == 0


def samples(folder: Path) -> Path:
    import numpy as np

    np.savez(folder / "x.npz", x=np.random.default_rng(0).random((3, 4, 4), np.float32))
    return folder / "x.npz"


def test_an_output_with_a_failed_target_can_be_replaced(two: Path, edgec: Edgec) -> None:
    assert edgec(*RUN)[0] == 4
    assert edgec(*RUN)[0] == 4
    (two / "compress.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    assert edgec(*RUN)[0] == 0


def test_where_no_target_can_be_emitted_the_earlier_output_stays(two: Path, edgec: Edgec) -> None:
    assert edgec(*RUN)[0] == 4
    before = (two / "out" / "manifest.json").read_bytes()
    (two / "compress.yaml").write_text("passes: [fold]\ntargets: [coral-dev-board]\n")
    status, out, err = edgec(*RUN)
    assert (status, out, err.count("\n")) == (4, "", 1)
    assert err.startswith(f"edgec: {NO_KERNEL}")
    assert (two / "out" / "manifest.json").read_bytes() == before


def test_a_line_for_each_target_where_none_can_be_emitted(
    two: Path, edgec: Edgec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("scale")

    monkeypatch.setattr(CpuBackend, "emit", broken)
    status, _, err = edgec(*RUN)
    assert status == 70
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"edgec: {NO_KERNEL}")
    assert lines[1].startswith("edgec: cpu: backend 'cpu': raised KeyError: 'scale'; the model before it")
    assert not (two / "out").exists()


@pytest.mark.parametrize(
    ("stage", "raised", "said"),
    [
        ("legalization", InternalError("coral", "lost tensor 'x'"), "coral-dev-board: coral: lost tensor 'x'"),
        ("emit", KeyError("scale"), "coral-dev-board: backend 'coral': raised KeyError: 'scale'"),
        ("runner", InternalError("coral", "lost tensor 'x'"), "coral-dev-board: coral: lost tensor 'x'"),
    ],
)
def test_a_fault_of_one_backend(
    two: Path, edgec: Edgec, monkeypatch: pytest.MonkeyPatch, stage: str, raised: Exception, said: str
) -> None:
    identity = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4,4] x) => (float[1,4,4] y) { d = Relu(x) [double] y = Add(d, d) }"""
    )
    onnx.save(identity, two / "model.onnx")

    def broken(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(CoralBackend, stage, broken)
    status, _, err = edgec(*RUN)
    assert status == 70
    fix = "the model before it and the rest of the recipe are in "
    assert err.startswith(f"edgec: {said}; {fix}repro/coral-dev-board-")
    assert err.count("\n") == 1
    repro = two / err.rstrip().rpartition(fix)[2]
    assert type(raised).__name__ in (repro / "traceback.txt").read_text()
    assert not (two / "out" / "coral-dev-board").exists()
    assert report_of(two)["targets"]["coral-dev-board"]["exit_status"] == 70
    # The reproducer makes it happen again.
    status, _, again = edgec(
        str(repro / "model.onnx"), "-O", str(repro / "compress.yaml"), "-q", "--no-timing", "-o", "b"
    )
    assert status == 70
    assert again.startswith(f"edgec: {said.removeprefix('coral-dev-board: ')}; {fix}repro/coral-dev-board-")


def test_traceback_shows_where_it_comes_from(two: Path, edgec: Edgec) -> None:
    status, _, err = edgec(*RUN, "--traceback")
    assert status == 4
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith(f"edgec: {NO_KERNEL}")


def test_a_requirement_is_not_called_met_for_what_is_missing(two: Path, edgec: Edgec) -> None:
    recipe = two / "compress.yaml"
    recipe.write_text(recipe.read_text() + "require: {sqnr_min: 40, params_removed: 0}\n")
    status, out, _ = edgec(*RUN)
    assert status == 4
    assert report_of(two)["require"] == {
        "sqnr_min": {"asked": 40.0, "got": None, "met": None, "unjudged": ["coral-dev-board"]},
        "params_removed": {"asked": 0.0, "got": 0.0, "met": True},
    }
    said = "met by what was emitted, not known for coral-dev-board"
    assert f"require sqnr_min: asked 40, got infinite: {said}\n" in out
    assert said in (two / "out" / "report.html").read_text()


def test_python_gets_the_report(two: Path) -> None:
    import edgec

    report = edgec.compile("model.onnx", "compress.yaml", "out", timing=False)
    assert report["targets"]["coral-dev-board"]["error"].startswith(NO_KERNEL)
    assert report["targets"]["cpu"]["sqnr_db"] is None
