"""run.py of Coral's and Ethos-U's folders: what a board gets, run here on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks.board_networks import NETWORKS

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.registry import target


@pytest.fixture
def folder(lab: Any, tmp_path: Path) -> Path:
    make, shape = NETWORKS["mobile_blocks"]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    CoralBackend().emit(lab.quantized(graph, feeds), target("coral-dev-board"), tmp_path, [feeds])
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(folder / "run.py"), "--runs", "5", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def report(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return result


def test_it_checks_and_times(folder: Path) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "1 golden samples, equal to what was computed where it was made" in done.stdout
    said = report(folder)
    assert said["passed"] and said["golden"] == {"samples": 1, "least_sqnr_db": 300.0, "equal": True}
    assert said["latency_ms"]["runs"] == 4 and said["latency_ms"]["least"] <= said["latency_ms"]["median"]
    assert said["peak_memory_bytes"] > 1 << 20
    assert said["model"] == "model.tflite" and said["runtime"] == "ai_edge_litert"


def test_another_network_is_found(folder: Path) -> None:
    golden = dict(np.load(folder / "golden.npz"))
    golden["output0.0"] = -golden["output0.0"]
    np.savez(folder / "golden.npz", **golden)
    done = run(folder)
    assert done.returncode == 1 and "dB from the golden outputs, less than 25: another network computes" in done.stderr
    assert report(folder)["passed"] is False and "latency_ms" not in report(folder)


def test_a_changed_file_is_refused(folder: Path) -> None:
    content = bytearray((folder / "model.tflite").read_bytes())
    content[-1] ^= 1
    (folder / "model.tflite").write_bytes(content)
    done = run(folder)
    assert (done.returncode, done.stderr) == (
        3, "run.py: model.tflite is not the file that check.json names; copy the folder again\n",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["check.json", "golden.npz", "model.tflite"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    done = run(folder)
    assert done.returncode == 3
    assert done.stderr == f"run.py: {name} is not in {folder}; copy the folder again\n"


def test_a_delegate_that_is_not_there(folder: Path) -> None:
    done = run(folder, "--delegate", "edgetpu")
    assert done.returncode == 4
    assert done.stderr.startswith("run.py: the delegate libedgetpu.so.1 cannot be loaded (")
