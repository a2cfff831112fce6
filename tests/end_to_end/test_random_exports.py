"""Random networks as exporters write them through the command: no fault of edgec's own, and right figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from random_exports import exported
from refusals import Edgec

TARGETS = "[cpu, coral-dev-board, jetson-nano]"
SEEDS = range(1000, 1014)
RUN = ("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "--threads", "1", "-o", "out")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("passes", ["[fold]", "[fold, quantize: {effort: fast}]"])
def test_no_fault_of_its_own(seed: int, passes: str, folder: Path, edgec: Edgec) -> None:
    """What is exact stays so; what a target cannot take is refused (4), and the cpu takes all of it."""
    network = exported(seed)
    onnx.save(network.model, "model.onnx")
    np.savez("data.npz", **network.samples(np.random.default_rng(2), 32))
    Path("compress.yaml").write_text(
        f"data: {{calibration: {{arrays: data.npz}}}}\npasses: {passes}\ntargets: {TARGETS}\n"
    )
    status, _, err = edgec(*RUN)
    assert status in (0, 4), err
    assert "fault of" not in err
    report = json.loads((folder / "out" / "report.json").read_text())
    assert "error" not in report["targets"]["cpu"]
    if passes == "[fold]":
        fresh = network.samples(np.random.default_rng(3), 6)
        before, after = (ort.InferenceSession(path) for path in ("model.onnx", "out/cpu/model.onnx"))
        for row in range(6):
            feeds = {name: values[row : row + 1] for name, values in fresh.items()}
            for exact, values in zip(before.run(None, feeds), after.run(None, feeds), strict=True):
                np.testing.assert_allclose(values, exact, rtol=1e-3, atol=1e-4 * max(np.abs(exact).max(initial=0), 1))


def test_a_seed_is_a_network() -> None:
    assert exported(7).model == exported(7).model
    assert exported(7).model != exported(8).model
