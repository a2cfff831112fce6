"""`edgec module:function` and `edgec.compile(module, ...)`: from torch to the output folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from networks.modules import module

import edgec

TESTS = Path(__file__).parents[1]


def test_the_command_says_nothing_but_its_own_and_gives_the_same_bytes(job: Path) -> None:
    (job / "plain.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    manifests = []
    for seed in ("1", "2"):
        arguments = ["networks.modules:residual", "-O", "plain.yaml", "-q", "--no-timing", "--json", "-o", f"out{seed}"]
        done = subprocess.run(
            [sys.executable, "-m", "edgec.tools.cli", *arguments],
            capture_output=True, text=True, check=False, cwd=job,
            env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        report = json.loads(done.stdout)
        assert (report["model"], report["name"]) == ("networks.modules:residual", "residual")
        manifests.append(json.loads((job / f"out{seed}" / "manifest.json").read_text()))
    assert manifests[0]["model"] == manifests[1]["model"]
    assert manifests[0]["files"]["model.onnx"] == manifests[1]["files"]["model.onnx"]


def test_a_module_is_compiled(job: Path) -> None:
    made, example = module("autoencoder")
    (job / "plain.yaml").write_text("passes: [fold, {factorize: {energy: 0.9, only: [down.2]}}]\ntargets: [cpu]\n")
    report = edgec.compile(made, example, "plain.yaml", "out", timing=False)
    assert made.training
    told = [entry["node"] for record in report["passes"] for entry in (*record["did"], *record["missed"])]
    assert "down.2" in told
    with torch.no_grad():
        want = made.eval()(*example).numpy()
    (job / "exact.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    edgec.compile(made, example, "exact.yaml", "exact", timing=False)
    got = ort.InferenceSession(str(job / "exact/model.onnx")).run(None, {"x": example[0].numpy()})[0]
    assert np.abs(got - want).max() / np.abs(want).max() < 1e-4


def test_a_program_is_compiled(job: Path) -> None:
    made, example = module("autoencoder")
    torch.export.save(torch.export.export(made.eval(), example), job / "net.pt2")
    (job / "plain.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    edgec.compile("net.pt2", "plain.yaml", timing=False)
    manifest = json.loads((job / "build/net/manifest.json").read_text())
    digest = hashlib.sha256((job / "net.pt2").read_bytes()).hexdigest()
    assert manifest["model"] == {"name": "net.pt2", "sha256": digest}
