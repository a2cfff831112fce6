"""finetune and distill by the edgec command: in a recipe, killed and gone on with, beside bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from refusals import Edgec

from edgec import load as edgec_load

HEAD = """\
data:
  preprocess: {size: [16, 16], color: gray, scale: 1/255}
  calibration: {images: good}
  train: {images: good}
  eval: {ok: good, ng: [bad], metric: auroc}
"""
ARGUMENTS = ("model.onnx", "-O", "compress.yaml", "-o", "out", "--no-timing", "--quiet")


def recipe(job: Path, passes: str, targets: str = "[cpu]") -> None:
    (job / "compress.yaml").write_text(f"{HEAD}passes: {passes}\ntargets: {targets}\n", encoding="utf-8")


def report(job: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job / "out" / "report.json").read_text(encoding="utf-8"))
    return found


def test_a_recipe_that_trains(job: Path, edgec: Edgec) -> None:
    """Behind normalize the graph takes pixels; the original that teaches it does not. Then each target trains int8."""
    recipe(
        job,
        "[fold, normalize, factorize: {rank: 0.3, min_rank: 1}, finetune: {epochs: 12, rate: 0.003, teacher: original, "
        "monitor: loss, batch: 2}, quantize, distill: {epochs: 1, rate: 0.0001, batch: 3}]",
        "[cpu, coral-dev-board]",
    )
    assert edgec(*ARGUMENTS)[0] == 0
    found = report(job)
    tuned = found["passes"][3]
    assert tuned["did"][0]["what"].startswith("12 epochs on 4 samples for mse to the teacher; ")
    assert tuned["curves"]["loss"][-1] < tuned["curves"]["loss"][0]
    assert tuned["sqnr_db_fitted"] > found["passes"][2]["sqnr_db_fitted"]  # none of six images can be spared
    for board in ("cpu", "coral-dev-board"):
        steps = found["targets"][board]["passes"]
        assert [step["name"] for step in steps] == ["quantize", "distill"]
        assert steps[1]["did"][0]["what"].startswith("1 epochs on 4 samples")
    assert not (job / "out.checkpoints").exists()
    assert "polyline" in (job / "out" / "report.html").read_text(encoding="utf-8")


def test_a_loss_beside_the_recipe(job: Path, edgec: Edgec) -> None:
    (job / "losses.py").write_text(
        "def l4(outputs, feeds, labels):\n"
        "    assert labels is None\n"
        "    return ((outputs['reconstruction'] - feeds['image']) ** 4).mean()\n",
        encoding="utf-8",
    )
    recipe(job, "[fold, finetune: {epochs: 2, rate: 0.001, loss: 'python:losses:l4'}]")
    assert edgec(*ARGUMENTS)[0] == 0
    assert "for python:losses:l4;" in report(job)["passes"][1]["did"][0]["what"]
    recipe(job, "[fold, finetune: {loss: 'python:losses:l5'}]")
    status, _, said = edgec(*ARGUMENTS)
    assert (status, said.strip()) == (
        2,
        "edgec: compress.yaml: line 6: passes[1] 'finetune': loss: the module 'losses' has no function 'l5'; "
        "correct the name",
    )


def test_a_teacher_that_is_not_there(job: Path, edgec: Edgec) -> None:
    recipe(job, "[fold, finetune: {teacher: teacher.onnx}]")
    status, _, said = edgec(*ARGUMENTS)
    assert status == 3
    line = "edgec: compress.yaml: line 6: passes[1] 'finetune': teacher: teacher.onnx: does not exist; check the path"
    assert said.strip() == line


def test_a_run_that_is_killed_goes_on(job: Path, edgec: Edgec) -> None:
    """SIGKILL in the middle of training; the next run ends as one that nothing disturbed."""
    recipe(job, "[fold, finetune: {epochs: 400, rate: 0.001, monitor: loss, batch: 1}]")
    command = [sys.executable, "-m", "edgec.tools.cli", *ARGUMENTS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(command, cwd=job, env=environment)
    checkpoints = job / "out.checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.training.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    assert list(checkpoints.glob("*.training.pt"))
    assert subprocess.run(command, cwd=job, env=environment, check=False).returncode == 0
    assert not checkpoints.exists()
    resumed = (job / "out" / "model.onnx").read_bytes()
    again = [argument if argument != "out" else "other" for argument in command]
    assert subprocess.run(again, cwd=job, env=environment, check=False).returncode == 0
    assert (job / "other" / "model.onnx").read_bytes() == resumed


def test_two_processes_train_what_one_does(job: Path, edgec: Edgec) -> None:
    """torchrun with two processes on the CPU: the weights are those of one process to float tolerance."""
    recipe(
        job,
        "[fold, factorize: {rank: 0.3, min_rank: 1}, "
        "distill: {epochs: 4, optimizer: sgd, rate: 0.01, monitor: loss, batch: 4, match: {r: n, s: r}}]",
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "edgec.tools.cli", *(word if word != "out" else "two" for word in ARGUMENTS), "--threads", "1"]
    done = subprocess.run([*torchrun, *command], cwd=job, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("before and after") == 1
    assert edgec(*ARGUMENTS, "--threads", "1")[0] == 0
    one, two = (edgec_load(job / name / "model.onnx") for name in ("out", "two"))
    changed = 0
    for mine, other in zip(one.constants(), two.constants(), strict=True):
        np.testing.assert_allclose(mine.values, other.values, rtol=1e-3, atol=1e-5, err_msg=mine.name)
        changed += mine.values.dtype.kind == "f"
    assert changed > 5
    figures = report(job)["passes"][2]["did"][0]["figures"]
    assert figures["best_epoch"] > 0
